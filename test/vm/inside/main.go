// Command inside runs the tests of a package in a virtual machine of their own:
//
//	go build -o /tmp/inside ./test/vm/inside
//	CGO_ENABLED=0 go test -exec /tmp/inside ./internal/sys/mount
//
// The machine has the folder of the package and nothing else of the project, the
// tools for volumes, a TMPDIR with room, and no network. Its empty disks are
// /dev/disk/by-id/virtio-scratch0 and so on. What the tests print is seen while they
// run; profiles, coverage among them, come to where they were asked for. The
// environment's STILLPOINT_TEST_* are the tests', and these are the machine's:
//
//	STILLPOINT_VM_KERNEL   bookworm, trixie (unless said otherwise) or backports
//	STILLPOINT_VM_MEMORY   in MiB, 1024
//	STILLPOINT_VM_DISKS    how many empty ones, 4
//	STILLPOINT_VM_DISK_MB  how large each of them is, 4096 MiB; they take the room of what is written
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"stillpoint/test/vm"
)

func main() {
	began := time.Now()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: inside TEST-PROGRAM [ARGUMENT...]; see go help test for -exec")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := inside(ctx, began, os.Args[1], os.Args[2:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func inside(ctx context.Context, began time.Time, program string, args []string) (int, error) {
	o, err := options()
	if err != nil {
		return 0, err
	}
	c := newCall(args)
	ctx, cancel := context.WithDeadline(ctx, began.Add(c.most()))
	defer cancel()
	im, err := vm.OpenImage(ctx)
	if err != nil {
		return 0, err
	}
	defer im.Close()
	dir, err := os.MkdirTemp("", "stillpoint-test-vm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if o.Files, err = files(ctx, dir, program); err != nil {
		return 0, err
	}
	m, err := im.New(ctx, dir, o)
	if err != nil {
		return 0, err
	}
	defer m.Cut()
	if err := m.Start(ctx); err != nil {
		return 0, err
	}
	code, err := m.Stream(ctx, c.script(time.Since(began)), os.Stdout, os.Stderr)
	if err != nil {
		return code, fmt.Errorf("%w; the end of the console:\n%s", err, m.Console())
	}
	return code, c.fetch(ctx, m)
}
