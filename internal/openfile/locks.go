package openfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/opened"
	"stillpoint/internal/writer/aide"
)

// A lease is what keeps a file from being opened for writing. Who opens it waits
// until the lease is given back, which a process that was stopped does not do: the
// kernel would let everybody wait for 45 s (fcntl(2), lease-break-time). So leases
// are held by a helper process, in a session of its own, that does nothing else: it
// gives each back at once when somebody wants the file.

const program = "stillpoint-leases"

// Main turns this process into the one that holds leases, if it is to be that, and
// then never returns. It stands at the beginning of main.
func Main() { aide.Main(program, &lender{lent: map[int64]*lent{}}) }

// locks is our end of it.
type locks struct{ aide *aide.Aide }

func newLocks(ctx context.Context) (*locks, error) {
	a, err := aide.Start(ctx, program)
	if err != nil {
		return nil, err
	}
	return &locks{a}, nil
}

func (l *locks) close() { l.aide.Close() }

var errWritten = errors.New("the file is open for writing")

// A Loan is what a call of Take answers.
type Loan struct {
	Number  int64
	Written bool // none: the file is open for writing
}

// answered is the longest that is waited for the helper process.
const answered = 10 * time.Second

func (l *locks) take(ctx context.Context, fd int) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, answered)
	defer cancel()
	var got Loan
	if err := l.aide.Call(ctx, "Take", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), &got); err != nil {
		return 0, err
	}
	if got.Written {
		return 0, errWritten
	}
	return got.Number, nil
}

func (l *locks) give(ctx context.Context, number int64) (wanted bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answered)
	defer cancel()
	err = l.aide.Call(ctx, "Give", number, &wanted)
	return wanted, err
}

// A lender is what the helper process does.
type lender struct {
	mu   sync.Mutex
	next int64
	lent map[int64]*lent
}

type lent struct {
	file   *os.File
	wanted bool // and given back
}

// Ready is called first.
func (l *lender) Ready(bool, *bool) error {
	wanted := make(chan os.Signal, 1)
	signal.Notify(wanted, syscall.SIGIO)
	go func() {
		// One signal may stand for several, and none is queued while one is there.
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-wanted:
			case <-tick.C:
			}
			l.giveWanted()
		}
	}()
	return nil
}

func (l *lender) giveWanted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.lent {
		if !f.wanted && opened.Wanted(int(f.file.Fd())) {
			f.wanted = true
			_ = opened.GiveBack(int(f.file.Fd())) // or it is gone already
		}
	}
}

// Take takes a lease on a file that somebody has open.
func (l *lender) Take(path string, loan *Loan) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return aide.Failed(problem.New(problem.FileUnreadable, "", err))
	}
	l.mu.Lock() // so that no lease is there that giveWanted does not know
	defer l.mu.Unlock()
	err = opened.Lend(int(f.Fd()))
	if err != nil {
		f.Close()
	}
	switch {
	case errors.Is(err, syscall.EAGAIN):
		loan.Written = true
		return nil
	case err != nil:
		return aide.Failed(problem.New(problem.FileUnreadable, "", err))
	}
	l.next++
	l.lent[l.next], loan.Number = &lent{file: f}, l.next
	return nil
}

// Give gives a lease back, and tells whether somebody wanted the file before.
func (l *lender) Give(number int64, wanted *bool) error {
	l.giveWanted()
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.lent[number]
	if f == nil {
		*wanted = true
		return nil
	}
	delete(l.lent, number)
	*wanted = f.wanted
	return aide.Failed(f.file.Close()) // and with it the lease
}

// End ends the process, and with it all leases.
func (l *lender) End() { os.Exit(0) }
