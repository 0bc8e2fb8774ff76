package problem

// The codes. Each has a page catalogue/CODE.md, and each is provoked by a test.
const (
	// Uncatalogued marks an error that reached the user without a code: a
	// fault of ours.
	Uncatalogued Code = "uncatalogued"

	// Of a whole run.

	Usage        Code = "usage"         // a wrong flag or argument
	Busy         Code = "busy"          // another process holds what this one needs
	Cancelled    Code = "cancelled"     // ended by SIGINT or SIGTERM
	NotAllowed   Code = "not-allowed"   // a right is missing, usually root
	JobDied      Code = "job-died"      // an earlier run ended without closing its log
	StateLost    Code = "state-lost"    // the folder of the job logs cannot be used
	ConfigWrong  Code = "config-wrong"  // the configuration file cannot be used
	OutputLost   Code = "output-lost"   // what a command prints cannot be written
	NotifyFailed Code = "notify-failed" // somebody who should be told how a job ended was not
	NoSuchJob    Code = "no-such-job"
	JobAmbiguous Code = "job-ambiguous"

	ExceptionsRefused Code = "exceptions-refused" // a job that was to have none has some

	// Of selected paths and their volumes.

	PathMissing   Code = "path-missing"
	VolumeMemory  Code = "volume-memory"  // tmpfs, ramfs and the kernel's own
	VolumeNetwork Code = "volume-network" // NFS, CIFS, sshfs …
	VolumeEFI     Code = "volume-efi"     // EFI system partition
	VolumeLost    Code = "volume-lost"    // unmounted or gone meanwhile

	// Of snapshots.

	NoProvider      Code = "no-provider"
	NotOneInstant   Code = "not-one-instant"
	NotApplication  Code = "not-application" // applications at rest were demanded, and cannot be had
	SnapshotFailed  Code = "snapshot-failed"
	SnapshotLost    Code = "snapshot-lost"
	SnapshotFull    Code = "snapshot-full"    // no space on the volume to make one
	VolumeReadOnly  Code = "volume-read-only" // no snapshot can be made there
	ReleaseFailed   Code = "release-failed"   // a snapshot could not be deleted
	LeftoverForeign Code = "leftover-foreign" // looks like ours, is not provably ours
	SwapActive      Code = "swap-active"      // a swap file in use keeps a btrfs subvolume from being taken
	ZFSStuck        Code = "zfs-stuck"        // ZFS does not answer: a pool is suspended, or a call or program hangs
	VolumeLate      Code = "volume-late"      // came into being while the snapshot was taken
	NoQuietTime     Code = "no-quiet-time"    // too much changed, and went on changing, to fix an instant
	UnshieldedFiles Code = "unshielded-files" // files in use whose changes nobody would see, too much of them to copy
	FreezeBlocked   Code = "freeze-blocked"   // somebody keeps the file system from being frozen
	DeviceSuspended Code = "device-suspended" // a device below a volume lets everybody wait
	NoAgent         Code = "no-agent"         // what needs the resident agent finds none that answers
	NoSuchSnapshot  Code = "no-such-snapshot"
	LVMStuck        Code = "lvm-stuck" // a command of LVM does not end

	// Of writers, which bring applications to rest.

	WriterTimeout Code = "writer-timeout" // it did not come to rest in time
	WriterFailed  Code = "writer-failed"  // it refused, and will the next time, too
	WindowClosed  Code = "window-closed"  // it was let go on before the snapshots were taken

	WriterResources Code = "writer-resources" // no room, memory or connection left
	WriterRetryable Code = "writer-retryable" // it refused, and may not the next time
	WriterGone      Code = "writer-gone"      // it ended, or was never there
	WriterBusy      Code = "writer-busy"      // somebody holds for long what has to be locked
	WriterPassword  Code = "writer-password"  // it does not let us in
	WriterRights    Code = "writer-rights"    // it lets us in, and not do what is needed

	// Of cache files, which keep the originals of what changes meanwhile.

	CacheNowhere Code = "cache-nowhere" // no volume can hold one
	CacheFull    Code = "cache-full"    // at its maximum, or its volume is full
	CacheLost    Code = "cache-lost"    // cannot be made, written or read

	// Of a host that is looked at before a backup.

	KernelOld      Code = "kernel-old"      // no snapshots of plain volumes
	CacheSmall     Code = "cache-small"     // there is little room for the cache file
	MemoryShort    Code = "memory-short"    // for what waits to be written to cache files
	HostBusy       Code = "host-busy"       // memory or devices are waited for much of the time
	Fragmented     Code = "fragmented"      // files or free space are in many small pieces
	OtherSnapshots Code = "other-snapshots" // another program takes snapshots, or reads or moves all files
	ScannerActive  Code = "scanner-active"  // another program is asked before files are accessed
	PoolFull       Code = "pool-full"       // a thin pool, a snapshot or a volume group of LVM, or a pool of ZFS, nearly is
	SwapSelected   Code = "swap-selected"   // a swap file in use is in the selection
	BackupInside   Code = "backup-inside"   // another backup is in the selection
	ClockWrong     Code = "clock-wrong"     // not synchronised, or set back
	LeftBehind     Code = "left-behind"     // by a killed run
	SnapshotHeld   Code = "snapshot-held"   // another mount namespace keeps a volume or snapshot in use
	FolderWrong    Code = "folder-wrong"    // a folder of ours is open to others
	LookFailed     Code = "look-failed"     // something could not be looked at

	// Of single files: exceptions of a backup.

	FileUnreadable  Code = "file-unreadable"
	FileChanged     Code = "file-changed" // changed while it was read, live
	FileVanished    Code = "file-vanished"
	FileOpen        Code = "file-open"      // open for writing, read without a snapshot, and left out
	FileOpenRead    Code = "file-open-read" // the same, and read as it is
	FileTorn        Code = "file-torn"      // changed behind the back of a snapshot
	FileGone        Code = "file-gone"      // deleted before it could be read from a snapshot
	AttributeUnread Code = "attribute-unread"

	// Of repositories.

	NotARepository    Code = "not-a-repository"
	RepositoryExists  Code = "repository-exists"
	RepositoryDamaged Code = "repository-damaged"
	RepositoryFull    Code = "repository-full"
	RepositoryLost    Code = "repository-lost" // cannot be reached, read or written
	PasswordWrong     Code = "password-wrong"
	PasswordMissing   Code = "password-missing"
	NoSuchBackup      Code = "no-such-backup"
	BackupAmbiguous   Code = "backup-ambiguous"
	NotInBackup       Code = "not-in-backup"

	// Of restores.

	TargetExists   Code = "target-exists" // a different file is already there
	TargetFull     Code = "target-full"
	TargetUnsafe   Code = "target-unsafe"  // a name or link that would lead outside
	TargetLost     Code = "target-lost"    // cannot be written
	TargetRefused  Code = "target-refused" // its file system cannot hold this entry
	AttributeUnset Code = "attribute-unset"
)
