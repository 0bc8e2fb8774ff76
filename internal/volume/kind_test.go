package volume

import "testing"

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		fsType, source string
		anonymous      bool
		want           Kind
	}{
		{"ext4", "/dev/sda1", false, Local},
		{"vfat", "/dev/sda1", false, Local},
		{"fuseblk", "/dev/sdb1", false, Local},
		{"squashfs", "/dev/loop3", false, Local},
		{"somefs", "/dev/sdc1", false, Local},
		{"btrfs", "/dev/sda2", true, Local},
		{"zfs", "rpool/ROOT", true, Local},
		{"tmpfs", "tmpfs", true, Memory},
		{"tmpfs", "server:/x", true, Memory},
		{"ramfs", "none", true, Memory},
		{"nfs", "server:/export", true, Network},
		{"nfs4", "[fd00::1]:/export", true, Network},
		{"nfsd", "nfsd", true, Virtual},
		{"cifs", "//fs01/dept", true, Network},
		{"smb3", "//fs01/dept", true, Network},
		{"ceph", "10.0.0.1:6789:/", true, Network},
		{"9p", "hostshare", true, Network},
		{"virtiofs", "myfs", true, Network},
		{"glusterfs", "gl:/v", true, Network},
		{"lustre", "mgs@tcp:/scratch", true, Network},
		{"beegfs", "beegfs_nodev", true, Network},
		{"afs", "AFS", true, Network},
		{"ocfs2", "/dev/sdb", false, Network},
		{"gfs2", "/dev/mapper/cl-gfs", false, Network},
		{"fuse.sshfs", "me@host:/srv", true, Network},
		{"fuse.rclone", "remote:", true, Network},
		{"fuse.s3fs", "s3fs", true, Network},
		{"fuse.glusterfs", "gl:/v", true, Network},
		{"fuse", "https://dav.example.org/", true, Network}, // davfs2
		{"fuse.newfs", "me@host:", true, Network},
		{"fuse.newfs", "host:/x", true, Network},
		{"fuse.newfs", "newfs", true, Stacked},
		{"fuse.newfs", "/a:/b", true, Stacked},
		{"fuse.mergerfs", "a:b", true, Stacked},
		{"fuse", "/dev/fuse", true, Stacked},
		{"fuse.encfs", "encfs", true, Stacked},
		{"fuse.lxcfs", "lxcfs", true, Virtual},
		{"overlay", "overlay", true, Stacked},
		{"aufs", "none", true, Stacked},
		{"ecryptfs", "/home/.ecryptfs/a/.Private", true, Stacked},
		{"devtmpfs", "udev", true, Virtual},
		{"proc", "proc", true, Virtual},
		{"autofs", "systemd-1", true, Virtual},
		{"autofs", "host:/map", true, Virtual},
		{"nsfs", "nsfs", true, Virtual},
		{"newpseudo", "none", true, Virtual},
		{"newnetfs", "host:/x", true, Network},
	} {
		if got := kindOf(c.fsType, c.source, c.anonymous); got != c.want {
			t.Errorf("%s %q: got %s, want %s", c.fsType, c.source, got, c.want)
		}
	}
}
