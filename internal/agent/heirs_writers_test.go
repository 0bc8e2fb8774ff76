package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Writers are eight threads that change files all the time, in four ways, each
// file opened anew, so that each change makes events while the filter is armed.
type writers struct {
	r    *rig
	quit chan struct{}
	wait sync.WaitGroup

	steps   atomic.Int64
	longest atomic.Int64 // time of a step, in ns
	late    atomic.Int64 // the most by which a thread that only sleeps came too late
}

func (r *rig) write() *writers {
	w := &writers{r: r, quit: make(chan struct{})}
	for i, change := range []func(*os.File) error{plain, unbuffered, appending, mapped, plain, unbuffered, appending, mapped} {
		w.wait.Go(func() { w.run(fmt.Sprintf("%s/w%d-", r.dir, i), change) })
	}
	w.wait.Go(w.sleep)
	r.Cleanup(func() { w.end() })
	soon(r.T, "the writers write", func() bool { return w.steps.Load() > 100 })
	w.longest.Store(0)
	w.late.Store(0)
	return w
}

// turns is how many files each of the writers has at a time.
const turns = 4

func (w *writers) run(prefix string, change func(*os.File) error) {
	for n := 0; ; n++ {
		select {
		case <-w.quit:
			return
		default:
		}
		began := time.Now()
		if err := w.step(prefix, n, change); err != nil {
			w.r.Errorf("a live access failed: %v", err)
			return
		}
		took := int64(time.Since(began))
		for was := w.longest.Load(); took > was && !w.longest.CompareAndSwap(was, took); was = w.longest.Load() {
		}
		w.steps.Add(1)
	}
}

// sleep measures for how long the machine does not let somebody run who could.
func (w *writers) sleep() {
	const nap = 5 * time.Millisecond
	for {
		select {
		case <-w.quit:
			return
		default:
		}
		began := time.Now()
		time.Sleep(nap)
		w.late.Store(max(w.late.Load(), int64(time.Since(began)-nap)))
	}
}

func (w *writers) step(prefix string, n int, change func(*os.File) error) error {
	name := prefix + fmt.Sprint(n)
	if err := os.WriteFile(name, make([]byte, 4096), 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(change(f), f.Close())
	}
	if n >= turns {
		err = errors.Join(err, os.Remove(prefix+fmt.Sprint(n-turns)))
	}
	return err
}

// goOn waits until each of the writers must have gone round.
func (w *writers) goOn() {
	w.r.Helper()
	from := w.steps.Load()
	soon(w.r.T, "the writers go on", func() bool { return w.r.Failed() || w.steps.Load() > from+200 })
}

// hands is how many processes have to run, one after the other, until one goes
// on who waits: each of them may be as late as we.
const hands = 4

// within ends the writers and tells whether one step took longer.
func (w *writers) within(limit time.Duration) {
	w.r.Helper()
	w.goOn()
	w.end()
	longest, late := time.Duration(w.longest.Load()), time.Duration(w.late.Load())
	w.r.Logf("%d steps, the longest took %v; one who only sleeps was late by up to %v", w.steps.Load(), longest, late)
	if longest-hands*late > limit {
		w.r.Errorf("somebody waited for %v", longest)
	}
}

func (w *writers) end() {
	select {
	case <-w.quit:
	default:
		close(w.quit)
	}
	w.wait.Wait()
}

func plain(f *os.File) error {
	_, err := f.WriteAt([]byte("x"), 100)
	return err
}

func unbuffered(f *os.File) error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	g, err := os.OpenFile(f.Name(), os.O_RDWR|unix.O_DIRECT, 0)
	if err == nil {
		_, err = g.WriteAt(b, 0)
		err = errors.Join(err, g.Close())
	}
	return err
}

func appending(f *os.File) error {
	g, err := os.OpenFile(f.Name(), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = g.WriteString("more")
		err = errors.Join(err, g.Close())
	}
	return err
}

func mapped(f *os.File) error {
	b, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(b, "stored")
	return unix.Munmap(b)
}
