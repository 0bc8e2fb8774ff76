// Package vm runs virtual machines for tests: a Debian with a kernel that is
// chosen, which may do to its root file system what no test may do to that of the
// machine it runs on, and whose power can be cut. It knows QEMU, how an image is
// made and kept, and how a program of ours in the machine is talked to; nothing
// of what is tested.
package vm
