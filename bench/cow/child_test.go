//go:build bench

package cow_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// childVariable is set in the processes that use the volume, for who answers and who
// waits are two in reality, too.
const childVariable = "STILLPOINT_BENCH_CHILD"

const page = 4096

// child does what its arguments say and ends.
func child(args []string) {
	runtime.LockOSThread()
	f, err := os.OpenFile(args[1], os.O_RDWR, 0)
	if err == nil {
		switch args[0] {
		case "read":
			err = access(f, f.ReadAt, args[2])
		case "write":
			err = access(f, f.WriteAt, args[2])
		case "longest":
			err = longest(f)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// command is a process that does this to a file.
func (r *rig) command(args ...string) *exec.Cmd {
	c := exec.CommandContext(r.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), childVariable+"=1")
	c.Stderr = os.Stderr
	return c
}

// access makes so many accesses to random pages, and prints how many nanoseconds one takes.
func access(f *os.File, do func([]byte, int64) (int, error), times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	at, b := rand.Perm(int(st.Size()/page)), randomBytes(page)
	began := time.Now()
	for i := range n {
		if _, err := do(b, int64(at[i%len(at)])*page); err != nil {
			return err
		}
	}
	fmt.Println(float64(time.Since(began).Nanoseconds()) / float64(n))
	return nil
}

// access is how many nanoseconds each of so many accesses of another process takes.
func (r *rig) access(kind, path string, n int) float64 {
	r.Helper()
	out, err := r.command(kind, path, strconv.Itoa(n)).Output()
	r.must(err)
	ns, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	r.must(err)
	return ns
}

// longest writes a page each millisecond until standard input ends, and prints
// for how many nanoseconds the slowest write waited.
func longest(f *os.File) error {
	over := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		over <- err
	}()
	b := randomBytes(page)
	var most time.Duration
	for i := int64(0); ; i++ {
		began := time.Now()
		if _, err := f.WriteAt(b, i%writerPages*page); err != nil {
			return err
		}
		most = max(most, time.Since(began))
		if i == 0 {
			fmt.Println("writes")
		}
		select {
		case err := <-over:
			fmt.Println(most.Nanoseconds())
			return err
		case <-time.After(time.Millisecond):
		}
	}
}

// writerPages is how large the file of a writer is.
const writerPages = 1024

// longestWait is for how many milliseconds another process, which writes to the
// file all the time, waits at most while do is done.
func (r *rig) longestWait(path string, do func()) float64 {
	r.Helper()
	c := r.command("longest", path)
	in, err := c.StdinPipe()
	r.must(err)
	out, err := c.StdoutPipe()
	r.must(err)
	r.must(c.Start())
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }() // when something fails
	var said string
	_, err = fmt.Fscan(out, &said)
	r.must(err)
	do()
	r.must(in.Close())
	var ns float64
	_, err = fmt.Fscan(out, &ns)
	r.must(err)
	return ns / 1e6
}
