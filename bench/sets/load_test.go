//go:build bench

package sets_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite"
)

// childVariable is set in the process that writes: who answers and who waits are
// two in reality, too.
const childVariable = "STILLPOINT_BENCH_CHILD"

// What is written in a second to all volumes together, in pieces, in turn.
const (
	pace  = 100_000_000
	piece = 1_000_000
	large = 64 * piece // of the file on each volume, which is written again and again
)

// load starts the process that writes to all volumes, and changes a database on
// the first one, until end, which returns how many MB it wrote in a second.
func (r *rig) load() (end func() float64) {
	r.Helper()
	c := exec.CommandContext(r.Context(), os.Args[0], r.dirs...)
	c.Env = append(os.Environ(), childVariable+"=1")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	r.must(err)
	out, err := c.StdoutPipe()
	r.must(err)
	r.must(c.Start())
	r.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	var word string
	_, err = fmt.Fscan(out, &word)
	r.must(err)
	return func() (rate float64) {
		r.Helper()
		r.must(in.Close())
		_, err := fmt.Fscan(out, &rate)
		r.must(err)
		return rate
	}
}

// child writes until standard input ends.
func child(dirs []string) {
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	changed := make(chan error, 1)
	go func() { changed <- change(filepath.Join(dirs[0], "app.db"), over) }()
	rate, err := write(dirs, over)
	if err := errors.Join(err, <-changed); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(rate)
	os.Exit(0)
}

// write writes at the pace. Time in which it had to wait is made up for, as far
// as a second.
func write(dirs []string, over <-chan struct{}) (rate float64, err error) {
	var files []*os.File
	for _, dir := range dirs {
		f, err := os.OpenFile(filepath.Join(dir, "large"), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		files = append(files, f)
	}
	b := []byte(strings.Repeat("stillpoint", piece/10))
	began := time.Now()
	due := began
	for n := 0; ; n++ {
		f := files[n%len(files)]
		if _, err := f.WriteAt(b, int64(n/len(files)*piece%large)); err != nil {
			return 0, err
		}
		if n == 0 {
			fmt.Println("writes")
		}
		due = due.Add(time.Second * piece / pace)
		if late := time.Since(due); late > time.Second {
			due = due.Add(late - time.Second)
		}
		select {
		case <-over:
			return float64(n+1) * piece / 1e6 / time.Since(began).Seconds(), nil
		case <-time.After(time.Until(due)):
		}
	}
}

// change makes a small transaction every 10 ms.
func change(path string, over <-chan struct{}) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(30000)&_pragma=synchronous(off)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE counter (n INTEGER); INSERT INTO counter VALUES (0)"); err != nil {
		return err
	}
	for {
		if _, err := db.Exec("UPDATE counter SET n = n + 1"); err != nil {
			return err
		}
		select {
		case <-over:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}
