//go:build vm

package vm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"stillpoint/test/vm"
)

// choiceLayout makes a volume of each kind that another provider is best for, where the
// kernel lets each of the last three take most of them: LVs, LUKS2 as cryptsetup opens it
// (its key in the kernel's keyring), a plain disk, and a file on an LV.
const choiceLayout = `
cd /dev/disk/by-id
vgcreate -qq data "$(readlink -f virtio-scratch0)"
lvcreate -qqy -L 900M -n linear data
lvcreate -qqy -L 800M -T data/pool
lvcreate -qqy -V 400M -n thin --thinpool pool data
lvcreate -qqy -L 400M -n crypt data
printf secret | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/data/crypt -
printf secret | cryptsetup open --key-file - /dev/data/crypt inner
dmsetup table inner | grep -q :logon:cryptsetup:
mkfs.ext4 -q /dev/data/linear
mkfs.xfs -q /dev/data/thin
mkfs.ext4 -q /dev/mapper/inner
mkfs.ext4 -q "$(readlink -f virtio-scratch1)"
mkdir -p /m/linear /m/thin /m/keyring /m/plain /m/image /var/backups
mount /dev/data/linear /m/linear
mount /dev/data/thin /m/thin
mount /dev/mapper/inner /m/keyring
mount virtio-scratch1 /m/plain
truncate -s 300M /m/linear/image
mkfs.ext4 -q /m/linear/image
mount -o loop /m/linear/image /m/image
for dir in /m/*; do echo $dir >$dir/name; done
`

// choices are the providers that take them.
var choices = map[string]string{"linear": "dm", "thin": "lvm", "keyring": "cow", "plain": "cow", "image": "cow"}

// TestChoice lets the program choose who takes what, on a kernel on which copy-on-write
// could take all of it.
func TestChoice(t *testing.T) {
	r := newRigWith(t, vm.Options{Kernel: vm.Backports, FS: "ext4", Disks: 2, DiskMB: 3072}, "")
	r.sub("without device-mapper", (*rig).withoutMapper)
	r.must(choiceLayout + "stillpoint init")
	r.sub("each alone", (*rig).eachAlone)
	r.sub("together", (*rig).chosenTogether)
	r.sub("one in the other", (*rig).oneInTheOther)
	r.sub("no place", (*rig).noPlace)
	r.sub("agent", func(r *rig) { r.mappedByAgent("/m/thin /m/plain") })
	r.noDevices()
}

// A host that has no device of device-mapper has none of its modules after a backup, too.
func (r *rig) withoutMapper() {
	r.must("! test -e /sys/class/misc/device-mapper")
	if out := r.must("stillpoint providers /"); !strings.Contains(out, "cow       chosen") || !strings.Contains(out, "is not on a logical volume") {
		r.Errorf("%s", out)
	}
	r.must("mkdir /var/first && STILLPOINT_REPO=/var/first stillpoint init && STILLPOINT_REPO=/var/first stillpoint backup /etc && stillpoint clean && stillpoint run /etc -- true && rm -r /var/first")
	r.must("! test -e /sys/class/misc/device-mapper && ! grep '^dm_' /proc/modules")
}

// A said is what `providers --json` says.
type said []struct {
	Mount, Provider, Reason, Code string
	Able, Chosen                  bool
}

func (r *rig) said(args string) (s said) {
	r.Helper()
	if err := json.Unmarshal([]byte(r.must("stillpoint providers --json "+args)), &s); err != nil {
		r.Fatal(err)
	}
	return s
}

// chosen is who takes what is mounted somewhere.
func (s said) chosen(mount string) (who string) {
	for _, c := range s {
		if c.Mount == mount && c.Chosen {
			who += c.Provider
		}
	}
	return who
}

// reason is what a provider says of it.
func (s said) reason(mount, provider string) string {
	for _, c := range s {
		if c.Mount == mount && c.Provider == provider {
			return c.Reason
		}
	}
	return ""
}

// providers are who took the volumes of a backup, by where they are mounted first.
func (r *rig) providers(script string) (who map[string]string, one bool) {
	r.Helper()
	var got mixedReport
	out := r.must(script)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
	who = map[string]string{}
	for _, v := range got.Volumes {
		who[v.Mounts[0]] = v.Provider
	}
	return who, got.OneInstant
}

func (r *rig) eachAlone() {
	all := r.said("")
	for name, want := range choices {
		dir := "/m/" + name
		if name == "linear" { // alone, without what lies in it
			if got := r.said(dir).chosen(dir); got != want {
				r.Errorf("%s: %s is chosen with its path", name, got)
			}
		}
		if got := all.chosen(dir); got != want {
			r.Errorf("%s: %s is chosen", name, got)
		}
		if who, _ := r.providers("stillpoint backup --json --retry 5 --retry-wait 2s --one-file-system " + dir); who[dir] != want {
			r.Errorf("%s is taken by %s", name, who[dir])
		}
		r.must("rm -rf /var/restored && stillpoint restore latest --to /var/restored && test $(cat /var/restored" + dir + "/name) = " + dir)
	}
	if why := all.reason("/m/keyring", "dm"); !strings.Contains(why, "keyring") || !strings.Contains(why, "--disable-keyring") {
		r.Errorf("of the key in the keyring dm says %q", why)
	}
	for _, name := range []string{"cow", "lvm"} {
		if who, _ := r.providers("stillpoint backup --json --retry 5 --retry-wait 2s --provider " + name + " --one-file-system /m/linear"); who["/m/linear"] != name {
			r.Errorf("by name it is taken by %v", who)
		}
	}
	if why := all.reason("/m/linear", "lvm"); !strings.Contains(why, "only where it is named (--provider lvm)") || !strings.Contains(why, "group data") {
		r.Errorf("of a classic volume lvm says %q", why)
	}
}

// Three providers that suspend writes in three ways take a set at one instant; so they do
// where lvm takes two kinds of volumes.
func (r *rig) chosenTogether() {
	dirs := "/m/linear /m/thin /m/plain /m/keyring"
	r.must("umount /m/image")
	defer r.must("mount -o loop /m/linear/image /m/image")
	r.must("systemd-run --quiet --unit=rounds guest rounds " + dirs)
	defer r.try("systemctl stop rounds")
	r.soon("test -s /m/keyring/counter")
	for _, named := range []string{"", "", "", "--provider /m/linear=lvm "} {
		who, one := r.providers("stillpoint backup --json --retry 5 --retry-wait 2s --require one-instant " + named + dirs)
		for name, want := range choices {
			if name == "linear" && named != "" {
				want = "lvm"
			}
			if got := who["/m/"+name]; got != want && name != "image" {
				r.Errorf("%s is taken by %s", name, got)
			}
		}
		if !one {
			r.Error("not of one instant")
		}
		r.must("rm -rf /var/restored && stillpoint restore latest --to /var/restored")
		r.Logf("%s", r.must("cd /var/restored/m && guest ordered linear thin plain keyring"))
	}
}

// A volume in a file on one that another provider takes comes to rest before that.
func (r *rig) oneInTheOther() {
	r.must("systemd-run --quiet --unit=rounds guest rounds /m/image /m/linear")
	defer r.try("systemctl stop rounds")
	r.soon("test -s /m/linear/counter")
	who, one := r.providers("stillpoint backup --json --retry 5 --retry-wait 2s --require one-instant --exclude /m/linear/image /m/linear /m/image")
	if who["/m/linear"] != "dm" || who["/m/image"] != "cow" || !one {
		r.Errorf("taken by %v, at one instant: %v", who, one)
	}
	r.must("rm -rf /var/restored && stillpoint restore latest --to /var/restored")
	r.Logf("%s", r.must("cd /var/restored/m && guest ordered image linear"))
}

// Where dm has no place for its cache file besides the volumes of the set, copy-on-write
// takes them, which needs none.
func (r *rig) noPlace() {
	r.must("umount /m/keyring /m/image") // the one's originals may lie on an encrypted volume only, the other's device writes to a file unseen
	defer r.must("mount /dev/mapper/inner /m/keyring && mount -o loop /m/linear/image /m/image")
	all := r.said("/")
	if got := all.chosen("/m/linear"); got != "cow" || !strings.Contains(all.reason("/m/linear", "dm"), "not in one set with the others") {
		r.Errorf("with all others %s takes it; dm says %q", got, all.reason("/m/linear", "dm"))
	}
	if got := all.chosen("/m/thin"); got != "lvm" { // needs no cache file
		r.Errorf("%s takes the thin volume", got)
	}
	r.must(`stillpoint run / -- sh -ec 'test $(cat /m/linear/name) = /m/linear; test $(cat /m/thin/name) = /m/thin'`)
	dir := "--cache-dir /m/linear /m/linear"
	alone := r.said(dir)
	if got := alone.chosen("/m/linear"); got != "cow" || !strings.Contains(alone.reason("/m/linear", "dm"), "part of the set") {
		r.Errorf("with no other place %s takes it; dm says %q", got, alone.reason("/m/linear", "dm"))
	}
	r.must("stillpoint run " + dir + " -- grep -q /m/linear /m/linear/name")
	if res := r.try("stillpoint backup --provider dm " + dir); res.Code != 1 || !strings.Contains(res.Out+res.Err, "cache-nowhere") {
		r.Errorf("by name: %d %s%s", res.Code, res.Out, res.Err)
	}
}

// noDevices wants none of ours, nor anything that carried them.
func (r *rig) noDevices() {
	r.Helper()
	r.must("umount /m/image; ! dmsetup ls | grep -i stillpoint && ! lvs --noheadings -o lv_tags | grep -i stillpoint && ! losetup --noheadings -l | grep .")
	if out := r.must("stillpoint clean --dry-run --json"); out != "[]" {
		r.Errorf("left are:\n%s", out)
	}
}
