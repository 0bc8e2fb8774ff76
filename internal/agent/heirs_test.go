package agent

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

// The longest that anybody waits.
const (
	killed      = time.Second
	stopped     = 1300 * time.Millisecond // a heart may stand still for 1 s
	bothStopped = 1500 * time.Millisecond
)

// open opens a file of the volume that holds "original", for writing.
func (r *rig) open(name string) *os.File {
	r.Helper()
	path := filepath.Join(r.dir, name)
	r.must(os.WriteFile(path, []byte("original"), 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	r.must(err)
	r.Cleanup(func() { f.Close() })
	return f
}

// unseen are the files of this process that make no events.
func (a *aged) unseen() []string {
	a.r.Helper()
	var all []string
	for _, v := range a.status().Volumes {
		for _, u := range v.Unseen {
			if u.PID == os.Getpid() {
				all = append(all, u.Paths...)
			}
		}
	}
	return all
}

// sees takes a snapshot, changes files that are open, and looks whether it
// shows what they held before.
func (a *aged) sees(files ...*os.File) {
	a.r.Helper()
	id := a.take()
	for _, f := range files {
		_, err := f.WriteAt([]byte("changed!"), 0)
		a.r.must(err)
	}
	pieces, err := a.Pieces(a.r.Context(), id)
	a.r.must(err)
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(pieces[0].Root, pieces[0].Rel, filepath.Base(f.Name())))
		if err != nil || string(b) != "original" {
			a.r.Errorf("%s is %q in the snapshot: %v", f.Name(), b, err)
		}
	}
	all, err := a.List(a.r.Context())
	if err != nil || len(all) != 1 || all[0].Lost() || len(all[0].Volumes[0].Gaps) > 0 {
		a.r.Errorf("the snapshot: %+v, %v", all, err)
	}
	a.r.must(a.Delete(a.r.Context(), id))
}

// outlives lets an agent end in some way while eight threads write and a
// snapshot is held, and sees that the next one goes on with its filter.
func (r *rig) outlives(end func(*aged), limit time.Duration) {
	r.Helper()
	old := r.open("old")
	first := r.start()
	before := r.open("before")
	first.take()
	w := r.write()
	end(first)
	first.waitEnd()
	gap := r.open("gap")
	w.within(limit)
	second := r.start()
	after := r.open("after")
	is, was := second.status(), first.since
	if len(is.Volumes) != 1 || !is.Volumes[0].Inherited || !is.Volumes[0].Since.Equal(was) {
		r.Errorf("the filter since %v is now %+v", was, is.Volumes)
	}
	r.gone(first.holder)
	if hot := second.unseen(); !slices.Equal(hot, []string{old.Name()}) {
		r.Errorf("no events of %q", hot)
	}
	if all, err := second.List(r.Context()); err != nil || len(all) > 0 {
		r.Errorf("snapshots of the first agent: %+v, %v", all, err)
	}
	second.sees(before, gap, after)
	second.stop()
}

// Killed, with eight who write.
func TestHeirKilled(t *testing.T) {
	onVolumes(t, func(r *rig) {
		r.outlives(func(a *aged) { r.must(a.cmd.Process.Kill()) }, killed)
	})
}

// Stopped: the holder ends it.
func TestHeirStopped(t *testing.T) {
	onVolumes(t, func(r *rig) {
		r.outlives(func(a *aged) { r.must(a.cmd.Process.Signal(syscall.SIGSTOP)) }, stopped)
	})
}

// Out of memory, of which nobody can say at what step.
func TestOutOfMemory(t *testing.T) {
	onVolumes(t, func(r *rig) {
		r.outlives(func(a *aged) {
			r.must(unix.Prlimit(a.cmd.Process.Pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}, nil))
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
				select {
				case <-a.ended:
					return
				default:
					if _, err := a.Create(r.Context(), []string{r.dir}); err != nil {
						time.Sleep(time.Millisecond)
					}
				}
			}
		}, stopped)
	})
}

// Asked to make room for the next one.
func TestHeirRestarted(t *testing.T) {
	onVolumes(t, func(r *rig) {
		r.outlives(func(a *aged) {
			r.must(a.cmd.Process.Signal(syscall.SIGUSR1))
			if s := a.waitEnd(); !s.Success() {
				r.Errorf("the agent ends with %v", s)
			}
		}, killed)
	})
}

// The agent and its holder are stopped while somebody waits: the guard ends
// both. Killed together they leave nothing either.
func TestHolderFails(t *testing.T) {
	for how, signal := range map[string]syscall.Signal{"stopped": syscall.SIGSTOP, "killed": syscall.SIGKILL} {
		t.Run(how, func(t *testing.T) {
			onVolumes(t, func(r *rig) {
				first := r.start()
				first.take()
				w := r.write()
				r.must(syscall.Kill(first.holder, signal))
				r.must(first.cmd.Process.Signal(signal))
				first.waitEnd()
				r.gone(first.holder)
				w.within(bothStopped)
				second := r.start()
				if s := second.status(); len(s.Volumes) != 1 || s.Volumes[0].Inherited {
					r.Errorf("the filter is %+v", s.Volumes)
				}
				second.sees(r.open("file"))
				second.stop()
			})
		})
	}
}

// The holder is killed alone: the agent has another one, the snapshot and who
// writes notice nothing, and the next agent goes on from there.
func TestHolderReplaced(t *testing.T) {
	onVolumes(t, func(r *rig) {
		r.outlives(func(a *aged) {
			was := a.holder
			r.must(syscall.Kill(was, syscall.SIGKILL))
			soon(r.T, "there is another holder", func() bool {
				h := a.status().Holder
				a.holder = h.PID
				return h.PID != 0 && h.PID != was
			})
			if all, err := a.List(r.Context()); err != nil || len(all) != 1 || all[0].Lost() {
				r.Errorf("the snapshot: %+v, %v", all, err)
			}
			r.must(a.cmd.Process.Kill())
		}, killed)
	})
}

// A holder that does not answer is ended by the next agent, which starts anew.
func TestHolderSilent(t *testing.T) {
	onVolumes(t, func(r *rig) {
		first := r.start()
		r.must(syscall.Kill(first.holder, syscall.SIGSTOP))
		r.must(first.cmd.Process.Kill())
		first.waitEnd()
		second := r.start()
		if s := second.status(); len(s.Volumes) != 1 || s.Volumes[0].Inherited {
			r.Errorf("the filter is %+v", s.Volumes)
		}
		if !second.log.has("nothing was taken over") {
			r.Error("it says nothing of that")
		}
		r.gone(first.holder)
		second.sees(r.open("file"))
		second.stop()
	})
}

// A holder that nobody takes anything from ends: after a while, or when told to.
func TestHolderAlone(t *testing.T) {
	onVolumes(t, func(r *rig) {
		for _, alone := range []string{"300ms", "1m"} {
			r.alone = alone
			a := r.start()
			a.take()
			r.must(a.cmd.Process.Kill())
			a.waitEnd()
			if alone == "1m" {
				soon(r.T, "SIGTERM ends it", func() bool {
					_ = syscall.Kill(a.holder, syscall.SIGTERM) // ignored until it is alone
					return !alive(a.holder)
				})
			}
			r.gone(a.holder)
		}
	})
}

// A volume that is unmounted while there is no agent is let go of by the next.
func TestHeirUnmounted(t *testing.T) {
	onVolumes(t, func(r *rig) {
		first := r.start()
		r.must(first.cmd.Process.Kill())
		first.waitEnd()
		r.must(unix.Unmount(r.dir, 0))
		was := r.dir
		r.dir = scratch.New(r.T, "ext4", 32*scratch.MiB).Dir
		second := r.start()
		if second.since.Equal(first.since) {
			r.Error("it watches what is not there")
		}
		second.stop()
		// It is in use no more, so it can be made anew.
		scratch.Run(r.T, "wipefs", "--all", r.volume.Devices[0])
		scratch.Run(r.T, "mkfs.ext4", "-q", "-F", r.volume.Devices[0])
		scratch.Run(r.T, "mount", r.volume.Devices[0], was)
	})
}
