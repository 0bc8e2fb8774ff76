#!/bin/sh
# Makes an archive, in the folder given, of udisks and multipath-tools with all that they
# need, for a virtual machine that has the Debian of build.sh. Run by layer.go, which knows
# when.
set -eu
to=$1
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
mmdebstrap --variant=extract --format=tar --include=udisks2,multipath-tools,dbus \
	--keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
	--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	trixie "$to/scans.tar" \
	"deb $mirror trixie main" "deb $mirror trixie-updates main"
