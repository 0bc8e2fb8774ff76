package problem

import "slices"

// A Group is the codes that are about the same thing.
type Group struct {
	Name  string // "Snapshots"
	Codes []Code
}

// Groups returns all codes, the more common of each group first.
func Groups() []Group {
	groups := []Group{
		{"Runs of the program", []Code{Usage, Busy, Cancelled, NotAllowed, ConfigWrong, JobDied, StateLost, OutputLost, ExceptionsRefused, NotifyFailed, NoSuchJob, JobAmbiguous, Uncatalogued}},
		{"Paths and their volumes", []Code{PathMissing, VolumeMemory, VolumeNetwork, VolumeEFI, VolumeLost}},
		{"Snapshots", []Code{
			NoProvider, SnapshotFailed, SnapshotFull, SnapshotLost, NotOneInstant, NoQuietTime, FreezeBlocked, DeviceSuspended, UnshieldedFiles,
			VolumeReadOnly, VolumeLate, SwapActive, ReleaseFailed, LeftoverForeign, LVMStuck, NoAgent, NoSuchSnapshot,
		}},
		{"Cache files of snapshots", []Code{CacheNowhere, CacheFull, CacheLost}},
		{"What doctor finds", []Code{
			KernelOld, OtherSnapshots, ScannerActive, SnapshotHeld, LeftBehind, PoolFull, CacheSmall, MemoryShort, HostBusy, Fragmented, SwapSelected,
			BackupInside, ClockWrong, FolderWrong, LookFailed,
		}},
		{"Applications", []Code{
			WriterTimeout, WriterResources, WriterRetryable, WriterFailed, WriterBusy, WriterGone, WriterPassword, WriterRights, WindowClosed, NotApplication,
		}},
		{"Single files of a backup", []Code{FileUnreadable, FileChanged, FileVanished, FileTorn, FileGone, FileOpen, FileOpenRead, AttributeUnread}},
		{"Repositories", []Code{
			NotARepository, RepositoryExists, RepositoryFull, RepositoryLost, RepositoryDamaged, PasswordWrong, PasswordMissing, NoSuchBackup, BackupAmbiguous, NotInBackup,
		}},
		{"Restores", []Code{TargetExists, TargetFull, TargetLost, TargetRefused, TargetUnsafe, AttributeUnset}},
	}
	var rest []Code
	for _, p := range Pages() {
		if !slices.ContainsFunc(groups, func(g Group) bool { return slices.Contains(g.Codes, p.Code) }) {
			rest = append(rest, p.Code)
		}
	}
	if rest != nil {
		groups = append(groups, Group{"Others", rest})
	}
	return groups
}
