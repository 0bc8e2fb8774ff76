// Package key asks for keys in the kernel's keyrings (keyrings(7)). It reads none.
package key

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reachable tells whether a key can be found from the keyrings of this process, as
// the kernel would find it for a call that this process makes. It makes nobody make
// one: with a text for that, be it an empty one, request_key(2) starts the program
// /sbin/request-key, so it gets none.
func Reachable(kind, description string) bool {
	k, err := unix.BytePtrFromString(kind)
	if err != nil {
		return false
	}
	d, err := unix.BytePtrFromString(description)
	if err != nil {
		return false
	}
	_, _, errno := unix.Syscall6(unix.SYS_REQUEST_KEY, uintptr(unsafe.Pointer(k)), uintptr(unsafe.Pointer(d)), 0, 0, 0, 0)
	return errno == 0
}
