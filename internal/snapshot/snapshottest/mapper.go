package snapshottest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"stillpoint/internal/tool"
)

// A mapper stores to a mapping in a process of its own. A store that waits for a thaw
// is in no system call: Go can neither stop that thread nor begin a garbage collection
// without it, so that all goroutines beside it wait, too, the one that is about to thaw
// among them. And on kernels that fault under mmap_lock all of the process waits there.
type mapper struct {
	*tool.Process
	orders  *os.File
	answers *bufio.Reader
	out     *os.File
}

const mapperVariable = "STILLPOINT_SNAPSHOTTEST_MAPS"

// Each test binary can be that process, whatever its tests do before they call Run.
func init() {
	if path := os.Getenv(mapperVariable); path != "" {
		if err := storeAsTold(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// storeAsTold maps a file, and fills the slots of steps whose numbers it reads.
func storeAsTold(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	mapping, err := syscall.Mmap(int(f.Fd()), 0, slots*slotSize, readWrite, syscall.MAP_SHARED)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for n := int64(0); ; {
		fmt.Println("stored", n)
		if err := binary.Read(os.Stdin, binary.LittleEndian, &n); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		numbered(mapping[slotOf(int(n))*slotSize:][:slotSize], int(n))
	}
}

// startMapper starts one, and waits until it has the file mapped.
func startMapper(ctx context.Context, path string) (_ *mapper, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, lines, err := os.Pipe()
	if err != nil {
		orders.Close()
		return nil, err
	}
	defer lines.Close()
	m := &mapper{orders: orders, out: out, answers: bufio.NewReader(out)}
	cmd := tool.Command{Name: program, Stdin: in, Env: []string{mapperVariable + "=" + path}}
	if m.Process, err = cmd.Start(context.WithoutCancel(ctx), lines); err != nil {
		return nil, errors.Join(err, orders.Close(), out.Close())
	}
	if err := m.wait(0); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// store fills the slot of a step.
func (m *mapper) store(n int) error {
	if err := binary.Write(m.orders, binary.LittleEndian, int64(n)); err != nil {
		return err
	}
	return m.wait(n)
}

// wait waits until the slot of a step is filled.
func (m *mapper) wait(n int) error {
	said, err := m.answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the process with the mapping ended: %w", err)
	}
	if said != fmt.Sprintf("stored %d\n", n) {
		return errors.New("the process with the mapping said: " + said)
	}
	return nil
}

// close ends it, and its mapping.
func (m *mapper) close() error {
	return errors.Join(m.orders.Close(), m.Wait(), m.out.Close())
}

// end ends it wherever it is, for a test that has failed; else close did that.
func (m *mapper) end() {
	m.Kill()
	_ = m.Wait()
	_ = m.orders.Close()
	_ = m.out.Close()
}
