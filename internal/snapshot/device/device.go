package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/blockdev"
	"stillpoint/internal/sys/mount"
)

// patience is how long a device may take to be mounted, with a journal to be
// replayed.
const patience = 2 * time.Minute

// A Device is a node of /dev and the number that it must have, "MAJOR:MINOR".
type Device struct{ Node, Number string }

// A Source is a device that holds a file system as it was at one instant.
type Source struct {
	Device
	FSType string                                       // as in mountinfo
	Frozen bool                                         // writes were suspended at the instant, by a freeze that waited for all of them
	Layer  func(context.Context, Device) (Layer, error) // makes one; nil where that cannot be
}

// A Layer shows a device and can be written. What is written to it stays in it.
type Layer interface {
	Device() Device

	// Close throws it away. Nothing of it is mounted by us any more.
	Close() error
}

// Shown is a device that is shown.
type Shown struct {
	layer Layer
	space *mount.Space
	tree  *os.File // the mount, which the Space needs until it is closed
	root  *os.File
}

// Show shows a device. When it fails, nothing is left mounted; a device that does
// not answer is left to itself, and what comes of it is undone.
func Show(ctx context.Context, src Source) (*Shown, error) {
	k, err := kindOf(src.FSType)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	type result struct {
		s   *Shown
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer cancel()
		s, err := show(ctx, k, src)
		if err == nil && ctx.Err() != nil {
			s, err = nil, errors.Join(ctx.Err(), s.Close())
		}
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		return r.s, r.err
	case <-ctx.Done():
	}
	select { // it may have been just in time
	case r := <-done:
		return r.s, r.err
	case <-time.After(time.Second):
		return nil, fmt.Errorf("mount %s: no answer: %w", src.Node, ctx.Err())
	}
}

func show(ctx context.Context, k kind, src Source) (s *Shown, err error) {
	replay, err := look(k, src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src.Node, err)
	}
	s = &Shown{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	what, options := src.Device, append(k.always[:len(k.always):len(k.always)], k.as...)
	if replay {
		if src.Layer == nil {
			return s, problem.Newf(problem.SnapshotFailed, src.Node, "its journal has to be replayed, and there is no way to do that without writing to it")
		}
		if s.layer, err = src.Layer(ctx, src.Device); err != nil {
			return s, fmt.Errorf("a throw-away layer of %s, to replay its journal: %w", src.Node, err)
		}
		what, options = s.layer.Device(), k.always
	}
	if s.space, err = mount.NewSpace(); err != nil {
		return s, err
	}
	return s, s.mount(k.driver, what, options)
}

// look reads whether the journal has to be replayed, and makes sure that nothing
// can write to the device.
func look(k kind, src Source) (replay bool, err error) {
	f, err := blockdev.Open(src.Node, src.Number)
	if err != nil {
		return false, err
	}
	defer f.Close()
	switch fixed, err := blockdev.ReadOnly(f); {
	case err != nil:
		return false, err
	case !fixed:
		return false, errors.New("the device can be written, so it is not shown")
	}
	return k.replays(f, src.Frozen)
}

// mount mounts a device in the Space.
func (s *Shown) mount(driver string, d Device, options []mount.Option) (err error) {
	options = append([]mount.Option{{Key: "source", Value: d.Node}}, options...)
	if s.tree, err = mount.Open(driver, options, restricted); err != nil {
		return err
	}
	if s.root, err = mount.OpenBelow(s.tree, "."); err != nil {
		return err
	}
	// The node may have become another device's meanwhile.
	if same, err := blockdev.Carries(d.Number, s.root); err != nil || !same {
		return errors.Join(fmt.Errorf("%s is not the device %s any more", d.Node, d.Number), err)
	}
	return s.space.Attach(s.tree, s.space.Root())
}

// restricted is how all is mounted: everything can be read, and nothing else be
// done.
const restricted = mount.ReadOnly | mount.NoDevices | mount.NoSetUID | mount.NoExecute | mount.NoAtime

// Root is the path of the directory that shows the device, while this process
// lives. Every process of root can use it.
func (s *Shown) Root() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.root.Fd()) }

// Dir is the same directory, for who looks at it in this process. It must not be
// closed.
func (s *Shown) Dir() *os.File { return s.root }

// Close ends the showing. The device stays in use until the last file that was
// opened in it is closed. It may be called twice.
func (s *Shown) Close() error {
	var errs []error
	if s.space != nil {
		errs = append(errs, s.space.Close())
		s.space = nil
	}
	for _, f := range []**os.File{&s.root, &s.tree} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	if s.layer != nil {
		errs = append(errs, s.layer.Close())
		s.layer = nil
	}
	return errors.Join(errs...)
}
