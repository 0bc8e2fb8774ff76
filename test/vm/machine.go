package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"stillpoint/test/vm/wire"
)

// Kernels that an image has.
const (
	Bookworm  = "bookworm"  // that of Debian 12: 6.1
	Trixie    = "trixie"    // that of Debian 13: 6.12
	Backports = "backports" // that of Debian 13's backports: 6.14 or later
)

// Kernels are all of them, the oldest first.
var Kernels = []string{Bookworm, Trixie, Backports}

// Options say what machine it is to be.
type Options struct {
	Kernel string // one of Kernels
	FS     string // of its root: "ext4" or "xfs"
	Memory int    // MiB; 0 stands for 1024
	Disks  int    // empty ones besides the root: /dev/disk/by-id/virtio-scratch0 and so on
	DiskMB int    // how large they are in MiB; 0 stands for 4096
	Files  []File // put there before it is started
}

// A File is put into the machine, one of this machine or a symbolic link.
type File struct {
	Path string // there
	From string // here
	Link string // or where it leads
}

// A Machine is one virtual machine: its disks, and its power.
type Machine struct {
	image *Image
	o     Options
	dir   string // its disks, sockets and console

	qemu  *exec.Cmd
	ended chan struct{} // closed when it has no power any more
	guest *guest
}

// New makes a machine in the empty folder dir, without power.
func (im *Image) New(ctx context.Context, dir string, o Options) (*Machine, error) {
	if o.Memory == 0 {
		o.Memory = 1024
	}
	if o.DiskMB == 0 {
		o.DiskMB = 4096
	}
	if !slices.Contains(Kernels, o.Kernel) {
		return nil, fmt.Errorf("there is no kernel %q, only %s", o.Kernel, strings.Join(Kernels, ", "))
	}
	m := &Machine{image: im, o: o, dir: dir}
	err := combined(exec.CommandContext(ctx, "cp", "--sparse=always", filepath.Join(im.dir, o.FS+".raw"), m.disk(0)))
	for i := range o.Disks {
		if err == nil {
			err = empty(m.disk(i+1), int64(o.DiskMB)<<20)
		}
	}
	if err == nil {
		err = m.install(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("make a machine: %w", err)
	}
	return m, nil
}

func (m *Machine) disk(i int) string { return filepath.Join(m.dir, fmt.Sprintf("disk%d.raw", i)) }
func (m *Machine) console() string   { return filepath.Join(m.dir, "console") }

func empty(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// install puts the files onto the root.
func (m *Machine) install(ctx context.Context) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range m.o.Files {
		if err := add(w, f); err != nil {
			return fmt.Errorf("put %s there: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, filepath.Join(m.image.dir, "unpack.sh"), m.disk(0))
	c.Stdin = &archive
	return combined(c)
}

func add(w *tar.Writer, f File) error {
	h := &tar.Header{Name: strings.TrimPrefix(f.Path, "/")}
	if f.Link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return w.WriteHeader(h)
	}
	content, err := os.Open(f.From)
	if err != nil {
		return err
	}
	defer content.Close()
	fi, err := content.Stat()
	if err != nil {
		return err
	}
	h.Mode, h.Size, h.ModTime = int64(fi.Mode().Perm()), fi.Size(), fi.ModTime()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, content)
	return err
}

// Start gives it power and waits until it is up.
func (m *Machine) Start(ctx context.Context) error {
	socket := filepath.Join(m.dir, "port")
	console, err := os.OpenFile(m.console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	// The host's own work comes first.
	m.qemu = exec.Command("nice", slices.Concat([]string{"-n", "5"}, m.image.qemu(), m.arguments(socket))...)
	m.qemu.Stdout, m.qemu.Stderr = console, console
	m.qemu.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.qemu.Start(); err != nil {
		return err
	}
	m.ended = make(chan struct{})
	go func() { defer close(m.ended); _ = m.qemu.Wait() }()
	if m.guest, err = meet(ctx, socket, m.ended); err != nil {
		return m.failed("start", err)
	}
	return nil
}

// patience are settings for a host that is busy: the driver of our port comes first, what
// the machine has and nothing uses gets none, and a device may come late.
const patience = "modules_load=virtio_console modprobe.blacklist=ata_piix,powernow_k8,pcspkr,psmouse systemd.default_device_timeout_sec=600"

// arguments are those of QEMU. There is no acceleration: the same everywhere
// tells more than fast somewhere. What the guest has written to its disk is in
// this machine's page cache, where a cut of its power loses nothing of it.
func (m *Machine) arguments(socket string) []string {
	args := []string{
		"-name", "stillpoint-test-vm",
		"-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,la57=off,svm=off", "-smp", "2", "-m", strconv.Itoa(m.o.Memory),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none",
		"-device", "virtio-rng-pci",
		"-chardev", "socket,id=port,server=on,wait=off,path=" + socket,
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=" + wire.Port,
		"-kernel", filepath.Join(m.image.dir, "kernel-"+m.o.Kernel), "-initrd", filepath.Join(m.image.dir, "initrd-"+m.o.Kernel),
		"-append", "root=LABEL=root ro console=ttyS0 panic=-1 net.ifnames=0 " + patience,
	}
	for i := range m.o.Disks + 1 {
		serial := "root"
		if i > 0 {
			serial = fmt.Sprintf("scratch%d", i-1)
		}
		args = append(args, "-drive", fmt.Sprintf("id=disk%d,if=none,format=raw,discard=unmap,cache=unsafe,file=%s", i, m.disk(i)),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=%s", i, serial))
	}
	return args
}

// Cut takes its power away, at once.
func (m *Machine) Cut() {
	if m.qemu == nil {
		return
	}
	_ = m.qemu.Process.Kill()
	<-m.ended
	m.guest.close()
	m.qemu = nil
}

// Name says what machine it is.
func (m *Machine) Name() string { return "Debian 13 on " + m.o.FS }

// Stop shuts it down.
func (m *Machine) Stop(ctx context.Context) error {
	// The answer may not come any more.
	if _, err := m.Run(ctx, "systemctl poweroff --no-block"); err != nil && !errors.Is(err, ErrEnded) {
		return err
	}
	select {
	case <-m.ended:
		m.Cut()
		return nil
	case <-ctx.Done():
		return m.failed("shut down", ctx.Err())
	}
}

// failed is an error with what the console shows.
func (m *Machine) failed(what string, err error) error {
	return fmt.Errorf("%s: %w; the end of the console:\n%s", what, err, m.Console())
}

// Console is the end of what the console shows.
func (m *Machine) Console() string {
	b, err := os.ReadFile(m.console())
	if err != nil {
		return err.Error()
	}
	return tail(slices.DeleteFunc(b, func(c byte) bool { return c == '\r' }))
}
