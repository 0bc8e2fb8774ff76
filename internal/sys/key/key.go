// Package key asks for keys in the kernel's keyrings (keyrings(7)). It reads none.
package key

import "golang.org/x/sys/unix"

// Reachable tells whether a key can be found from the keyrings of this process, as
// the kernel would find it for a call that this process makes.
func Reachable(kind, description string) bool {
	_, err := unix.RequestKey(kind, description, "", 0)
	return err == nil
}
