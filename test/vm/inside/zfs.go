package main

import (
	"context"
	"fmt"
	"os"

	"stillpoint/test/vm"
)

func wantsZFS() bool { return os.Getenv("STILLPOINT_VM_ZFS") != "" }

// addZFS gives the machine ZFS, if that is wanted.
func addZFS(ctx context.Context, im *vm.Image, o *vm.Options) error {
	if !wantsZFS() {
		return nil
	}
	files, err := im.ZFS(ctx, o.Kernel)
	o.Files = append(o.Files, files...)
	return err
}

// startZFS loads it.
func startZFS(ctx context.Context, m *vm.Machine) error {
	if !wantsZFS() {
		return nil
	}
	res, err := m.Run(ctx, vm.StartZFS)
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("load ZFS: %s%s", res.Out, res.Err)
	}
	if err == nil {
		fmt.Print(res.Out)
	}
	return err
}
