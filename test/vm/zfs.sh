#!/bin/sh
# Makes what ZFS needs in a virtual machine, in the folder given: the two modules for the
# kernel of that version, from the source package in the contrib of the Debian that
# the kernel is of, and its programs with the libraries that a machine has not.
# Run by zfs.go, which knows when.
set -eu
to=$1
version=$2
case $version in
6.1.*) suite=bookworm libraries=libtirpc3,libssl3 ;;
6.12.*) suite=trixie libraries=libtirpc3t64,libssl3t64 ;;
*)
	echo "no Debian has ZFS for Linux $version" >&2
	exit 1
	;;
esac
archive() { apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1; }
mirror=$(archive)
[ -n "$mirror" ] || {
	apt-get -qq update
	mirror=$(archive)
}
[ -n "$mirror" ] || {
	echo "apt knows no archive of Debian" >&2
	exit 1
}

work=$to/work # goes with the folder
mkdir -p "$work" "$to/tree"

# Runs in the new system. DKMS would build for the kernel that runs, and start at once.
cat >"$work/inside" <<'END'
set -eu
version=$1
cd /var/tmp
apt-get -qq download zfs-dkms zfsutils-linux $(apt-cache depends zfsutils-linux | sed -n 's/^ *Depends: \(lib.*linux\)$/\1/p')
# Some have files in /lib, which is a link that must stay one.
for deb in *.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C / --keep-directory-symlink -x; done
cd /usr/src/zfs-*
build=/lib/modules/$version/build
source=/lib/modules/$version/source
[ -e "$source" ] || source=$build
{
	nice -n 10 ./configure --disable-dependency-tracking --prefix=/usr --with-config=kernel --with-linux="$source" --with-linux-obj="$build"
	nice -n 10 make -j2
} >/var/tmp/build.log 2>&1 || {
	tail -n 20 /var/tmp/build.log >&2
	exit 1
}
modules=/out/usr/lib/modules/$version/extra
mkdir -p "$modules" /out/usr/sbin /out/usr/lib/zfs
for module in $(find module -name '*.ko'); do
	strip --strip-debug -o "$modules/${module##*/}" "$module"
done
for program in zpool zfs mount.zfs; do
	file=$(command -v "$program")
	cp -L "$file" /out/usr/sbin/
	ldd "$file"
done | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u | while read -r library; do
	case ${library##*/} in
	libnvpair* | libuutil* | libzfs* | libtirpc* | libgssapi* | libk5crypto* | libkrb5* | libkeyutils*) cp -L "$library" /out/usr/lib/zfs/ ;;
	esac
done
END

mmdebstrap --variant=apt --format=null \
	--keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
	--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt=force-unsafe-io \
	--include="linux-headers-$version,build-essential,kmod,libblkid1,libuuid1,libudev1,$libraries" \
	--customize-hook="cp '$work/inside' \"\$1/var/tmp/inside\"" \
	--customize-hook="chroot \"\$1\" sh /var/tmp/inside $version" \
	--customize-hook="cp -r \"\$1/out/usr\" '$to/tree/'" \
	"$suite" /dev/null \
	"deb $mirror $suite main contrib" "deb $mirror $suite-updates main contrib"
printf '/usr/lib/zfs\n' >"$to/ld.so.conf"
rm -r "$work"
