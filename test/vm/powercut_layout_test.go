//go:build vm

package vm_test

import (
	"bytes"
	"maps"
	"strconv"
	"strings"
	"sync"
)

// volumes are where those of TestPowerCut are mounted.
const volumes = "/srv/plain /srv/linear /srv/striped /srv/thin /srv/crypt /srv/btrfs"

// backup backs them up, two of them with the providers that they would have without a name,
// too, and one with lvm, which takes it only where it is named. Originals of an encrypted
// volume go only to a place that was named. On a busy host an emulated machine may need
// more than the window.
const backup = "stillpoint backup --retry 5 --retry-wait 2s --cache-dir /var/tmp --provider /srv/plain=dm --provider /srv/thin=lvm --provider /srv/linear=lvm " + volumes

// layoutScript makes them so that they come back at each boot: a table of
// device-mapper's own, a linear volume of LVM in a group without thin pools, a striped and a
// thin one in another, LUKS over LVM, and a disk with btrfs. It is LUKS1, because systemd
// opens LUKS2 with the key in a keyring, where dm cannot have it.
const layoutScript = `set -e
disk() { readlink -f /dev/disk/by-id/virtio-scratch$1; }
cat >/etc/systemd/system/plain.service <<'EOF'
[Unit]
DefaultDependencies=no
Requires=dev-disk-by\x2did-virtio\x2dscratch0.device
After=dev-disk-by\x2did-virtio\x2dscratch0.device
Before=local-fs-pre.target
Wants=local-fs-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/dmsetup create plain --table "0 1048576 linear /dev/disk/by-id/virtio-scratch0 2048"
[Install]
WantedBy=sysinit.target
EOF
systemctl enable -q plain.service
systemctl start plain.service
vgcreate -q -y vg $(disk 1) $(disk 2)
vgcreate -q -y classic $(disk 4)
lvcreate -q -y -L 300M -n linear classic
lvcreate -q -y -L 400M -i 2 -n striped vg
lvcreate -q -y -T -L 600M -V 500M -n thin vg/pool
lvcreate -q -y -L 300M -n crypt vg
mkdir -p /etc/keys
head -c 32 /dev/urandom >/etc/keys/crypt
chmod -R go= /etc/keys
cryptsetup luksFormat -q --type luks1 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/vg/crypt /etc/keys/crypt
echo "crypt UUID=$(blkid -s UUID -o value /dev/vg/crypt) /etc/keys/crypt luks" >/etc/crypttab
systemctl daemon-reload
systemctl start systemd-cryptsetup@crypt
make() {
	mkfs.$2 -q $3
	mkdir -p /srv/$1
	echo "UUID=$(blkid -s UUID -o value $3) /srv/$1 $2 defaults,x-systemd.device-timeout=200s 0 2" >>/etc/fstab
	mount /srv/$1 2>/dev/null || { systemctl daemon-reload; mount /srv/$1; }
	head -c 2000000 /dev/urandom >/srv/$1/blob
	mkdir /srv/$1/etc
	cp /etc/passwd /etc/group /etc/fstab /srv/$1/etc
}
make plain ext4 /dev/mapper/plain
make linear ext4 /dev/classic/linear
make striped xfs /dev/vg/striped
make thin xfs /dev/vg/thin
make crypt ext4 /dev/mapper/crypt
make btrfs btrfs $(disk 3)
sync
`

// showMounts shows what is on which block device and where it is mounted.
const showMounts = `set -e
udevadm settle --timeout=60
for dir in ` + volumes + `; do findmnt --noheadings --raw --output TARGET,SOURCE,FSTYPE,UUID $dir; done
lsblk --noheadings --raw --output NAME,TYPE,FSTYPE,UUID,MOUNTPOINTS --exclude 7 | sort -u`

// showDevices shows what there is below that, loop devices, and subvolumes of the btrfs.
const showDevices = `set -e
losetup --noheadings --raw --output NAME,BACK-FILE
dmsetup info --columns --noheadings --options name,uuid,suspended,readonly | sort
lvs --all --noheadings --options lv_full_name,lv_uuid,lv_size,lv_tags | sort
btrfs subvolume list /srv/btrfs`

// someLeft wants that a backup has left a logical volume, or that the agent has removed one
// since it started.
const someLeft = `stillpoint clean --dry-run --json | grep '/lvm:' || journalctl --quiet --no-pager --boot --unit=stillpoint-agent | grep 'snapshot of a killed process deleted.*provider=lvm'`

// reached waits until a backup is at the step at which it is to be stopped.
const reached = `i=0
until test -e /run/reached; do
	i=$((i + 1))
	test $((i % 100)) != 0 || systemctl is-active -q backup || { journalctl --quiet --no-pager --unit=backup >&2; exit 1; }
	sleep 0.02
done`

// whole looks at the file systems themselves, which nobody may have mounted then.
const whole = `set -e
systemctl stop stillpoint-agent
for dir in ` + volumes + `; do
	dev=$(findmnt --noheadings --raw --output SOURCE $dir)
	type=$(findmnt --noheadings --raw --output FSTYPE $dir)
	umount $dir
	case $type in
	ext4) e2fsck -fn $dev ;;
	xfs) xfs_repair -n $dev 2>&1 ;;
	btrfs) btrfs check --readonly $dev 2>&1 ;;
	esac || { echo "$dir is damaged" >&2; exit 1; }
	mount $dir
done
systemctl start stillpoint-agent
timeout 60 stillpoint agent status`

// acknowledged is what the ledgers said to be safe, as it comes.
type acknowledged struct {
	mu   sync.Mutex
	rest []byte // of a line that is not whole
	safe map[string]int64
	done chan struct{} // closed when no more comes
	err  error
}

func (a *acknowledged) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rest = append(a.rest, p...)
	for {
		line, rest, ok := bytes.Cut(a.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		a.rest = rest
		dir, text, _ := strings.Cut(string(line), " ")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, err
		}
		a.safe[dir] = n
	}
}

// volumes is how many of them have been written to.
func (a *acknowledged) volumes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.safe)
}

// end waits until no more comes.
func (a *acknowledged) end() map[string]int64 {
	<-a.done
	return maps.Clone(a.safe)
}
