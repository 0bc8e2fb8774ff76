package volume

import "strings"

// kindOf tells a file system's kind by its type. anonymous says that it has no
// block device of its own (major number 0).
func kindOf(fsType, source string, anonymous bool) Kind {
	if k, ok := kinds[fsType]; ok {
		return k
	}
	switch {
	case !anonymous:
		return Local
	case strings.HasPrefix(fsType, "nfs"):
		return Network
	case looksRemote(source):
		return Network
	case isFUSE(fsType):
		return Stacked
	}
	return Virtual
}

// isFUSE reports whether a program serves the file system. It may stop to
// answer.
func isFUSE(fsType string) bool {
	return fsType == "fuse" || fsType == "fuseblk" || strings.HasPrefix(fsType, "fuse.")
}

// looksRemote recognises "server:/path", "//server/share", "https://…" and
// "user@server:path", for types that are not in the table.
func looksRemote(source string) bool {
	if strings.HasPrefix(source, "//") || strings.Contains(source, "://") {
		return true
	}
	server, _, ok := strings.Cut(source, ":")
	if !ok || server == "" || strings.Contains(server, "/") { // mergerfs: "/disk1:/disk2"
		return false
	}
	return strings.Contains(server, "@") || strings.Contains(source, ":/")
}

// kinds holds the types whose kind does not follow from their device. Shared
// disk file systems count as network: another host may write at any time, so
// that no snapshot made here can be of one moment.
var kinds = map[string]Kind{
	"bcachefs": Local, "btrfs": Local, "jffs2": Local, "ubifs": Local, "zfs": Local,

	"ramfs": Memory, "rootfs": Memory, "tmpfs": Memory,

	"9p": Network, "afs": Network, "beegfs": Network, "ceph": Network, "cifs": Network, "coda": Network,
	"davfs": Network, "gfs": Network, "gfs2": Network, "glusterfs": Network, "gpfs": Network,
	"lustre": Network, "ncpfs": Network, "ocfs2": Network, "orangefs": Network, "panfs": Network,
	"prl_fs": Network, "pvfs2": Network, "smb3": Network, "smbfs": Network, "vboxsf": Network,
	"virtiofs": Network, "vmhgfs": Network, "wekafs": Network,
	"fuse.blobfuse": Network, "fuse.blobfuse2": Network, "fuse.ceph": Network, "fuse.ceph-fuse": Network,
	"fuse.curlftpfs": Network, "fuse.davfs": Network, "fuse.gcsfuse": Network, "fuse.glusterfs": Network,
	"fuse.goofys": Network, "fuse.gvfs-fuse-daemon": Network, "fuse.gvfsd-fuse": Network, "fuse.juicefs": Network, "fuse.mfs": Network,
	"fuse.moosefs": Network, "fuse.mount-s3": Network, "fuse.mountpoint-s3": Network, "fuse.rclone": Network,
	"fuse.s3fs": Network, "fuse.seaweedfs": Network, "fuse.smbnetfs": Network, "fuse.sshfs": Network,
	"fuse.vmhgfs-fuse": Network,

	"aufs": Stacked, "ecryptfs": Stacked, "overlay": Stacked, "overlayfs": Stacked, "shiftfs": Stacked,
	"unionfs": Stacked, "wrapfs": Stacked, "fuse.mergerfs": Stacked,

	"autofs": Virtual, "bdev": Virtual, "binder": Virtual, "binfmt_misc": Virtual, "bpf": Virtual,
	"cgroup": Virtual, "cgroup2": Virtual, "configfs": Virtual, "cpuset": Virtual, "debugfs": Virtual,
	"devpts": Virtual, "devtmpfs": Virtual, "efivarfs": Virtual, "functionfs": Virtual, "fusectl": Virtual,
	"hugetlbfs": Virtual, "mqueue": Virtual, "nfsd": Virtual, "nsfs": Virtual, "pipefs": Virtual,
	"proc": Virtual, "pstore": Virtual, "resctrl": Virtual, "rpc_pipefs": Virtual, "securityfs": Virtual,
	"selinuxfs": Virtual, "smackfs": Virtual, "sockfs": Virtual, "sysfs": Virtual, "tracefs": Virtual,
	"fuse.lxcfs": Virtual, "fuse.portal": Virtual, "fuse.vmware-vmblock": Virtual,
}
