package dm

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A call that the kernel would begin anew after a signal, as it does with a
// suspension, is ended all the same, and others are as they were.
func TestWithin(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	read := func() error {
		_, err := unix.Read(pipe[0], make([]byte, 1))
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- Within(10*time.Millisecond, read) }()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrSlow) {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it has no end")
	}
	if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := Within(time.Minute, read); err != nil {
		t.Errorf("one that has nothing to wait for: %v", err)
	}
	if err := Within(time.Minute, func() error { return ErrNone }); !errors.Is(err, ErrNone) {
		t.Errorf("one that fails: %v", err)
	}
}

// One that no signal ends costs the user nothing of what all programs may have in their
// queues of signals.
func TestWithinNoQueue(t *testing.T) {
	queued := func() int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?m)^SigQ:\s*(\d+)/`).FindSubmatch(b)
		if found == nil {
			t.Fatalf("no queue in %s", b)
		}
		n, err := strconv.Atoi(string(found[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var deaf unix.Sigset_t
	deaf.Val[(ender-1)/64] = 1 << ((ender - 1) % 64)
	before := queued()
	var after int
	err := Within(10*time.Millisecond, func() error {
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &deaf, nil); err != nil {
			return err
		}
		time.Sleep(time.Second)
		after = queued()
		return errors.Join(unix.PthreadSigmask(unix.SIG_UNBLOCK, &deaf, nil), unix.EINTR)
	})
	if !errors.Is(err, ErrSlow) {
		t.Errorf("got %v", err)
	}
	if after > before+20 { // all of this user's; one is ours
		t.Errorf("%d signals are queued, and %d were", after, before)
	}
}
