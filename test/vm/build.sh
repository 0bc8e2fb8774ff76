#!/bin/sh
# Makes what the tests in a virtual machine boot from, in the folder given: a Debian 13
# as a disk with ext4 and as one with XFS, and three kernels with their initial RAM disks,
# those of Debian 12, of Debian 13 and of its backports. Run by image.go, which knows when.
set -eu
to=$1
suite=trixie
# From where this machine has its own packages.
archive() { apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1; }
mirror=$(archive)
[ -n "$mirror" ] || { # it has forgotten
	apt-get -qq update
	mirror=$(archive)
}
[ -n "$mirror" ] || {
	echo "apt knows no archive of Debian" >&2
	exit 1
}
# The kernels for virtual machines: the same source, without drivers of hardware.
kernel=linux-image-cloud-amd64
# What keeps volumes, what the tests call, and what measures.
tools=lvm2,dmsetup,thin-provisioning-tools,cryptsetup-bin,systemd-cryptsetup,btrfs-progs,e2fsprogs,xfsprogs,acl,attr,libcap2-bin,rsync,sqlite3,fio

hook() { # runs in the new system, whose folder is $1 for mmdebstrap
	cat <<'EOF'
set -eu
root=$1
printf 'MODULES=list\nCOMPRESS=lz4\nCOMPRESSLEVEL=1\nRESUME=none\nFSTYPE=ext4,xfs\n' >"$root/etc/initramfs-tools/conf.d/stillpoint"
printf 'virtio_pci\nvirtio_blk\next4\nxfs\n' >>"$root/etc/initramfs-tools/modules"
# The root is a plain disk: what its RAM disk has of these would only take time at each start.
for of in btrfs cryptroot dmsetup lvm2 thin-provisioning-tools; do
	find "$root/usr/share/initramfs-tools" -name "$of" -delete
done
for k in "$root"/boot/vmlinuz-*; do
	chroot "$root" update-initramfs -c -k "${k##*/vmlinuz-}"
done
cp "$root"/boot/* "${0%/*}/boot"
# Nothing asks, nothing waits, nobody logs in.
printf 'stillpoint-vm\n' >"$root/etc/hostname"
printf '127.0.0.1 localhost stillpoint-vm\n' >"$root/etc/hosts"
printf 'LABEL=root / auto defaults 0 1\n' >"$root/etc/fstab"
printf '5ac1e5ac1e5ac1e5ac1e5ac1e5ac1e50\n' >"$root/etc/machine-id"
for unit in getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service man-db.timer \
	lvm2-monitor.service xfs_scrub_all.timer systemd-tmpfiles-clean.timer getty@tty1.service serial-getty@ttyS0.service systemd-firstboot.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
# What nothing here needs would only make a backup of all longer: QEMU starts the kernels, and
# of the rest this is the largest.
rm -rf "$root"/boot/* "$root"/usr/lib/python3* "$root"/usr/share/python3* "$root"/usr/lib/udev/hwdb*
touch "$root/etc/.updated" "$root/var/.updated" # or systemd looks for what is new
EOF
}

work=$to/work # goes with the folder
mkdir -p "$work/boot"
hook >"$work/hook"
chmod +x "$work/hook"

install() {
	mmdebstrap --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
		--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' "$@"
}

# QEMU, of which this host's may be too old: before 8.1 it could run code of the kernel that
# another processor had just replaced, the more likely the busier the host is.
install --variant=extract --format=directory --include=qemu-system-x86 "$suite" "$to/qemu" "deb $mirror $suite main"

install --variant=apt --format=tar \
	--dpkgopt=force-unsafe-io --dpkgopt=force-confold \
	--essential-hook='mkdir -p "$1/etc/initramfs-tools"; printf "update_initramfs=no\n" >"$1/etc/initramfs-tools/update-initramfs.conf"' \
	--include="initramfs-tools,systemd-sysv,udev,kmod,lz4,mount,procps,util-linux,$tools" \
	--customize-hook="for s in bookworm $suite $suite-backports; do INITRD=No chroot \"\$1\" apt-get -qq install -y -t \$s $kernel || exit; done" \
	--customize-hook="$work/hook" \
	"$suite" "$work/root.tar" \
	"deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $mirror $suite-backports main" "deb $mirror bookworm main"

for fs in ext4 xfs; do
	disk=$work/$fs.raw
	truncate --size=8G "$disk"
	case $fs in
	ext4) mkfs.ext4 -q -L root "$disk" ;;
	xfs) mkfs.xfs -q -L root "$disk" ;;
	esac
	"${0%/*}/unpack.sh" "$disk" <"$work/root.tar"
	mv "$disk" "$to/"
done
for k in "$work"/boot/vmlinuz-*; do
	v=${k##*/vmlinuz-}
	case $v in
	6.1.*) name=bookworm ;;
	6.12.*) name=trixie ;;
	*) name=backports ;;
	esac
	mv "$k" "$to/kernel-$name"
	mv "$work/boot/initrd.img-$v" "$to/initrd-$name"
done
for name in bookworm trixie backports; do
	[ -s "$to/kernel-$name" ] || {
		echo "of the three kernels, that of $name is missing: $(ls "$work/boot" | tr '\n' ' ')" >&2
		exit 1
	}
done
rm -r "$work"
