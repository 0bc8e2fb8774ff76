package index

// Inode returns what is known of an inode by now; nil if it is not indexed. It
// is valid until the next call of another method.
func (b *Builder) Inode(number uint64) *Inode {
	if in := b.table.get(number); in.indexed() {
		return in
	}
	return nil
}
