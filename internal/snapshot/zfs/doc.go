// Package zfs takes snapshots of mounted datasets of ZFS with ZFS's own. Snapshots are
// made, held and destroyed by ioctl; what exists is asked from the programs zfs and
// zpool, which every host with ZFS has.
//
// # What is taken
//
// The datasets of the targets, and those of the same pool that are mounted below the
// selected paths, wherever in the pool they lie: each once, and all of one pool by a
// single call, which ZFS makes in one transaction group: one instant. Several pools
// are several instants. A dataset that is mounted in another one shows in its snapshot
// at the same place.
//
// A dataset that would be mounted below a selected path and is not is a gap: without a
// code where its owner wants it so (canmount=noauto, or off where that leaves an
// empty directory), else volume-lost, with the reason, which is usually a key that is
// not loaded. Legacy mounts are like others. What is mounted there and is no dataset of
// the pool (another pool's, a file system on a zvol) is a volume of its own, for whoever
// plans the set. Snapshots that .zfs has mounted are nothing to be taken.
//
// # Where it is kept
//
// A snapshot is called DATASET@stillpoint-SET and is made together with the user
// property stillpoint:set, which has the id of the set and a random token. The record
// of the set is a file in a folder of ours, made and synced before: it has the token,
// and the guids of pool and dataset, and later that of the snapshot. Its process holds
// a lock on it, which tells the living from the dead. A snapshot is destroyed when
// property, guid of the dataset and, where it is known, guid of the snapshot are those
// on record: a copy that "zfs receive" made has the property, too, but lies in another
// dataset. A dataset may have been renamed meanwhile.
//
// Until it is released a snapshot is held (zfs hold), by a hold that ends with the
// process. It is mounted in a private mount namespace, by the mount call and not through
// .zfs, so that nobody else can keep it in use by a namespace of his own
// (openzfs/zfs#4514, #7849, #15766).
//
// # Writes that were not made durable
//
// Their order is kept: a transaction group has all changes that were made before it
// closed, and what was written later is not in it. Only what was written through a
// shared mapping is not in it before msync, or the kernel, hands it to ZFS.
//
// # When it is taken
//
// The instant is when the transaction group was closed, as the kernel remembers it
// (/proc/spl/kstat/zfs/POOL/txgs). The call comes back when the group is written, which
// on a busy pool is seconds later.
//
// # What it costs
//
// A snapshot keeps what is overwritten and deleted while it is read: none is taken in a
// pool that has too little left for its programs, and one that makes its pool or a
// quota short is given up (snapshot.Yielder). While it is there, its dataset cannot
// be rolled back or received into beyond it, nor can the pool be exported.
//
// # What it cannot do
//
// A snapshot cannot be destroyed while files of it are open (EBUSY, also for a deferred
// destruction): then Release fails. The check open-reader is a known deviation.
//
// A call that waits for a pool whose disks do not answer ends when they do (failmode=wait),
// and the process cannot end before. It is not waited for: zfs-stuck is said for it and
// for everything after it until it comes back.
//
// A Release or an Abort that failed may be called again, and is tried again anyway while
// the process lives: of a living process nothing is a leftover.
package zfs
