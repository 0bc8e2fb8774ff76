// Command demo shows the whole way once: it makes a scratch btrfs volume on a
// loop device, starts programs that keep writing to it, backs it up while they
// write, restores it elsewhere, and shows that what came back is of one moment.
// It cleans up after itself, also when it fails or is interrupted.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo PATH-OF-STILLPOINT")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx, os.Args[1])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// A stage is the folder and the volume that the demo plays in.
type stage struct {
	dir     string // everything lies below it
	volume  string // the mounted scratch volume
	program string
	undo    []func()
}

func demo(ctx context.Context, program string) (err error) {
	s := &stage{}
	defer s.clear()
	if s.program, err = filepath.Abs(program); err != nil {
		return err
	}
	title("a scratch btrfs volume on a loop device")
	if err := s.build(ctx); err != nil {
		return err
	}
	title("programs that keep writing to it")
	w, err := startWriters(ctx, s.volume)
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() { w.stop() })
	time.Sleep(2 * time.Second) // let them get going
	fmt.Println(w.describe())

	title("the backup, while they write")
	if err := s.run(ctx, "init"); err != nil {
		return err
	}
	if err := s.run(ctx, "backup", s.volume); err != nil {
		return err
	}
	fmt.Println("and once more, with what changed since:")
	if err := s.run(ctx, "backup", s.volume); err != nil {
		return err
	}
	if err := w.stop(); err != nil {
		return err
	}
	fmt.Printf("the programs are stopped: %s\n", w.describe())

	title("what there is now")
	for _, args := range [][]string{{"backups"}, {"verify", "--read-data"}} {
		if err := s.run(ctx, args...); err != nil {
			return err
		}
	}
	title("the restore, elsewhere")
	out := filepath.Join(s.dir, "restored")
	if err := s.run(ctx, "restore", "latest:"+s.volume, "--to", out); err != nil {
		return err
	}
	title("is it of one moment?")
	if err := check(ctx, filepath.Join(out, s.volume), w); err != nil {
		return err
	}
	title("nothing is left on the volume")
	return s.nothingLeft(ctx)
}

func (s *stage) build(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "stillpoint-demo-")
	if err != nil {
		return err
	}
	s.dir, s.volume = dir, filepath.Join(dir, "srv")
	s.undo = append(s.undo, func() { os.RemoveAll(dir) })
	image := filepath.Join(dir, "volume.img")
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		return err
	}
	if err := os.Mkdir(s.volume, 0o755); err != nil {
		return err
	}
	if _, err := output(ctx, "mkfs.btrfs", "-q", image); err != nil {
		return err
	}
	loop, err := output(ctx, "losetup", "--find", "--show", image)
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() { _, _ = output(context.Background(), "losetup", "--detach", loop) })
	if _, err := output(ctx, "mount", loop, s.volume); err != nil {
		return err
	}
	s.undo = append(s.undo, func() { _, _ = output(context.Background(), "umount", "--lazy", s.volume) })
	fmt.Printf("%s on %s, 1 GiB\n", s.volume, loop)
	return nil
}

// clear undoes everything, last first.
func (s *stage) clear() {
	for i := len(s.undo) - 1; i >= 0; i-- {
		s.undo[i]()
	}
}

// run runs the program as a user would, and shows the command line.
func (s *stage) run(ctx context.Context, args ...string) error {
	fmt.Printf("$ stillpoint %s\n", strings.Join(args, " "))
	c := exec.CommandContext(ctx, s.program, args...)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.Env = append(os.Environ(),
		"STILLPOINT_REPO="+filepath.Join(s.dir, "repository"),
		"STILLPOINT_PASSWORD=only a demo",
		"STILLPOINT_STATE="+filepath.Join(s.dir, "state"))
	if err := c.Run(); err != nil {
		return fmt.Errorf("stillpoint %s: %w", args[0], err)
	}
	fmt.Println()
	return nil
}

func (s *stage) nothingLeft(ctx context.Context) error {
	list, err := output(ctx, "btrfs", "subvolume", "list", s.volume)
	if err != nil {
		return err
	}
	if list != "" {
		return fmt.Errorf("subvolumes are left:\n%s", list)
	}
	fmt.Println("no snapshot, no mount; the demo removes its own volume now")
	return nil
}

func title(text string) { fmt.Printf("\n== %s\n", text) }

// output runs a program of the system and returns what it prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
