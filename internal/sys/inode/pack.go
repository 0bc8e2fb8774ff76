package inode

// Pack puts a handle into a string, for another process.
func (h Handle) Pack() string { return string(append([]byte{h.kind}, h.data[:h.size]...)) }

// Unpack is the handle again; ok is false where it cannot have been one.
func Unpack(packed string) (h Handle, ok bool) {
	if packed == "" {
		return Handle{}, false
	}
	return New(int32(packed[0]), []byte(packed[1:]))
}
