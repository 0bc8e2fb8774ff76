#!/bin/sh
# Unpacks the tar archive on standard input onto the file system in the file given. The
# mount lies in a namespace of its own, and so goes with this process, the loop device with it.
set -eu
# shellcheck disable=SC2016 # the other shell's variables
exec unshare --mount sh -euc '
mount -o loop "$1" /mnt
tar -x -C /mnt --numeric-owner --xattrs --xattrs-include="*" -f -
umount /mnt
' unpack "$1"
