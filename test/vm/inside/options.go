package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"stillpoint/test/vm"
)

// options are those of the machine, from the environment.
func options() (vm.Options, error) {
	o := vm.Options{Kernel: cmp.Or(os.Getenv("STILLPOINT_VM_KERNEL"), vm.Trixie), FS: "ext4", Disks: 4}
	for name, to := range map[string]*int{"MEMORY": &o.Memory, "DISKS": &o.Disks, "DISK_MB": &o.DiskMB} {
		text := os.Getenv("STILLPOINT_VM_" + name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return o, fmt.Errorf("STILLPOINT_VM_%s is %q, and not a number", name, text)
		}
		*to = n
	}
	return o, nil
}

const (
	programPath = "/test/program"
	packagePath = "/test/package"
)

// files are what the machine gets: our guest, the tests, and the folder of their
// package, where go test runs them.
func files(ctx context.Context, dir, program string) ([]vm.File, error) {
	list, err := vm.BuildGuest(ctx, dir)
	if err != nil {
		return nil, err
	}
	list = append(list, vm.File{Path: programPath, From: program})
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		f := vm.File{Path: packagePath + "/" + name, From: name}
		switch {
		case err != nil:
			return err
		case d.Type() == fs.ModeSymlink:
			if f.Link, err = os.Readlink(name); err != nil {
				return err
			}
		case !d.Type().IsRegular():
			return nil
		}
		list = append(list, f)
		return nil
	})
	return list, err
}
