package tree

// A Source is one selected path and the places where it is read: the live path
// is what users see everywhere, Root is where a snapshot shows it.
type Source struct {
	Path   string  // the live path, absolute and clean
	Root   string  // the directory or file that is read in its place
	Direct *Direct // or, unless nil, the place in a snapshot
	Volume string  // identity of the volume at Root, for Dir.Volume
	Grafts []Graft // other volumes below Path

	// Leave decides whether a name is left out, and why; "" keeps it.
	// path is the live path. Nil keeps everything. It is called for every
	// name but the root itself, from several goroutines.
	// e holds Name and Type, and Inode where the directory tells it; volume
	// is the one that the entry lies in.
	Leave func(path string, e *Entry, volume string) string

	// Left is told what is left out: by Leave, with its reason, and what
	// turns out not to belong to the source, as an unexpected mount point.
	// Nil tells nobody. It is called from several goroutines.
	Left func(path, reason string)
}

// A Graft is a volume that shows at a live path below a source.
type Graft struct {
	Path   string  // live path
	Root   string  // directory or file that is read in its place
	Direct *Direct // or, unless nil, the place in a snapshot; without either the place is left as an empty directory
	Volume string
}
