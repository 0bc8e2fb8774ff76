// Command inside runs the tests of a package in a virtual machine of their own:
//
//	go build -o /tmp/inside ./test/vm/inside
//	CGO_ENABLED=0 go test -exec /tmp/inside ./internal/sys/mount
//
// The machine has the folder of the package and nothing else of the project, the
// kernel of Debian 13 or, with STILLPOINT_VM_KERNEL=new, that of its backports, and
// no network.
package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"stillpoint/test/vm"
)

// most is how long a package's tests may take, with all that the machine needs.
const most = 30 * time.Minute

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: inside TEST-PROGRAM [ARGUMENT...]; see go help test for -exec")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := inside(ctx, os.Args[1], os.Args[2:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		code = 1
	}
	os.Exit(code)
}

func inside(ctx context.Context, program string, args []string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
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
	guest, err := vm.BuildGuest(ctx, dir)
	if err != nil {
		return 0, err
	}
	files := append(guest, vm.File{Path: "/test/program", From: program})
	more, err := folder()
	if err != nil {
		return 0, err
	}
	o := vm.Options{Kernel: vm.Debian, FS: "ext4", Files: append(files, more...)}
	if kernel := os.Getenv("STILLPOINT_VM_KERNEL"); kernel != "" {
		o.Kernel = kernel
	}
	m, err := im.New(ctx, dir, o)
	if err != nil {
		return 0, err
	}
	defer m.Cut()
	if err := m.Start(ctx); err != nil {
		return 0, err
	}
	for i, arg := range args {
		args[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	res, err := m.Run(ctx, "cd /test/package && exec ../program "+strings.Join(args, " "))
	fmt.Print(res.Out)
	fmt.Fprint(os.Stderr, res.Err)
	return res.Code, err
}

// folder is the package's own, where go test runs.
func folder() (files []vm.File, err error) {
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, vm.File{Path: "/test/package/" + name, From: name})
		}
		return err
	})
	return files, err
}
