package redis

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/gomodule/redigo/redis"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// A session has two connections, because the pause must be renewed while the
// server is asked something else.
type session struct {
	*instance
	need  writer.Need
	keeps storage
	ask   *conn // Freeze's, after Prepare
	pause *pause

	once     sync.Once
	over     chan struct{} // closed when Thaw has been called
	returned chan struct{} // closed when Freeze has returned
	mu       sync.Mutex
	begun    bool // Freeze was called
	frozen   bool // and succeeded
}

// How often the server is asked how far it is.
const (
	poll     = 2 * time.Millisecond
	idlePoll = 50 * time.Millisecond
)

// idle waits until the server writes no file anew, which could take long. The
// files are good at every moment meanwhile; but one that begins to append, or
// saves already, has something to finish first.
func (s *session) idle(ctx context.Context) error {
	busy := false
	for {
		info, err := s.ask.info(ctx, "persistence")
		if end, limited := ctx.Deadline(); err != nil && busy && (ctx.Err() != nil || limited && !time.Now().Before(end)) {
			return s.busy()
		}
		if err != nil {
			return err
		}
		if info["rdb_bgsave_in_progress"] != "1" && info["aof_rewrite_in_progress"] != "1" && info["aof_rewrite_scheduled"] != "1" {
			return s.written(info)
		}
		if busy = true; !s.sleep(ctx, idlePoll) {
			return s.busy()
		}
	}
}

func (s *session) busy() error {
	return problem.Newf(problem.WriterBusy, s.ID(), "it is writing its files anew, and that takes long")
}

// written is nil unless the server fails to write what it has to.
func (s *session) written(info map[string]string) error {
	if s.keeps == appended && info["aof_last_write_status"] != "ok" {
		return problem.Newf(problem.WriterResources, s.ID(), "it cannot write its append-only file: see its log; is the disk full?")
	}
	return nil
}

// sleep returns false when there is no time left.
func (s *session) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
	case <-s.over:
	case <-time.After(d):
		return true
	}
	return false
}

// Freeze holds changes back, and waits until those made before are in the files.
func (s *session) Freeze(ctx context.Context) error {
	s.mu.Lock()
	s.begun = true
	s.mu.Unlock()
	defer close(s.returned)
	if ctx.Err() != nil {
		return s.understood("rest", context.Cause(ctx))
	}
	err := s.pause.begin(ctx, time.Now().Add(s.need.Window))
	if err == nil {
		err = s.settle(ctx)
	}
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-s.over:
			err = overtaken(s.instance)
		default:
			s.frozen = true
			return nil
		}
	}
	// It ends by itself within a second, if this does not end it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), length)
	defer cancel()
	_, _ = s.pause.finish(ctx)
	return err
}

// Thaw lets changes go on.
func (s *session) Thaw(ctx context.Context) ([]writer.Note, error) {
	s.once.Do(func() { close(s.over) })
	lasted, ended := s.pause.finish(ctx)
	s.mu.Lock()
	begun, frozen := s.begun, s.frozen
	s.mu.Unlock()
	if begun { // its connection is in use
		select {
		case <-s.returned:
		case <-ctx.Done():
		}
	}
	s.ask.close()
	if !frozen {
		return nil, nil // nothing is to be trusted, as Freeze has said
	}
	return nil, errors.Join(lasted, ended)
}

// settle waits until the files have all changes that were acknowledged.
func (s *session) settle(ctx context.Context) error {
	switch s.keeps {
	case appended:
		return s.flushed(ctx)
	case savedNowAndThen:
		return s.saved(ctx)
	}
	return nil
}

// flushed waits until the buffer of the append-only file is empty. It mostly
// is: it is written before clients get their answers, unless the disk is so
// slow that the last fsync is still under way (flushAppendOnlyFile). That
// the page cache has it is enough: who takes a snapshot takes that, too.
func (s *session) flushed(ctx context.Context) error {
	for {
		info, err := s.ask.info(ctx, "persistence")
		if err != nil {
			return err
		}
		if err := s.written(info); err != nil {
			return err
		}
		if info["aof_enabled"] != "1" || info["aof_rewrite_in_progress"] == "1" {
			return problem.Newf(problem.WriterBusy, s.ID(), "it has begun to write its append-only file anew")
		}
		if info["aof_buffer_length"] == "0" {
			return nil
		}
		if !s.sleep(ctx, poll) {
			return problem.Newf(problem.WriterTimeout, s.ID(), "its append-only file is not written in time")
		}
	}
}

// saved waits until the RDB file is of now.
func (s *session) saved(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.save)
	defer cancel()
	asked := false
	for {
		info, err := s.ask.info(ctx, "persistence")
		switch {
		case err != nil:
			return err
		case info["rdb_bgsave_in_progress"] == "1" || info["aof_rewrite_in_progress"] == "1":
		case info["rdb_changes_since_last_save"] == "0" && s.exists(ctx):
			return nil
		case asked && info["rdb_last_bgsave_status"] != "ok":
			return problem.Newf(problem.WriterResources, s.ID(), "it cannot write its RDB file: see its log; is the disk full, or memory short?")
		case asked:
			return problem.Newf(problem.WriterRetryable, s.ID(), "it has saved its data, and there are %s changes since", info["rdb_changes_since_last_save"])
		default:
			if err := s.room(ctx); err != nil {
				return err
			}
			_, err := s.ask.do(ctx, "BGSAVE")
			if err != nil && problem.CodeOf(err) != problem.WriterFailed {
				return err
			}
			asked = err == nil // else another child has just begun to write
		}
		if !s.sleep(ctx, poll) {
			return problem.Newf(problem.WriterTimeout, s.ID(), "its data is not saved within %s, while its clients wait", s.save)
		}
	}
}

// exists is false when the RDB file is known to be missing, which a server with
// nothing to save does not notice.
func (s *session) exists(ctx context.Context) bool {
	name, err := s.ask.config(ctx, "dbfilename")
	if err != nil || len(s.about.Paths) == 0 {
		return true
	}
	_, err = os.Stat(filepath.Join(s.about.Paths[0], name))
	return err == nil
}

// room is nil unless the disk has less free space than the file could need: a
// server whose save has failed refuses all changes until another one succeeds
// (stop-writes-on-bgsave-error), and we shall not be the reason.
func (s *session) room(ctx context.Context) error {
	info, err := s.ask.info(ctx, "memory")
	if err != nil {
		return err
	}
	used, err := redis.Uint64([]byte(info["used_memory_dataset"]), nil)
	if err != nil || len(s.about.Paths) == 0 {
		return nil // nobody can tell
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.about.Paths[0], &st); err != nil {
		return s.understood("look for room", &os.PathError{Op: "statfs", Path: s.about.Paths[0], Err: err})
	}
	if free := st.Bavail * uint64(st.Bsize); free < used {
		return problem.Newf(problem.WriterResources, s.ID(), "saving its data could need %s bytes in %s, where %d are free",
			strconv.FormatUint(used, 10), s.about.Paths[0], free)
	}
	return nil
}
