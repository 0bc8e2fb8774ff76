package postgres

import (
	"context"
	"fmt"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// A backup is one of the server's, begun and not yet ended, of copies that are
// taken one after the other.
type backup struct {
	state state
}

// label is what the server's own views and the file backup_label call it.
const label = "stillpoint"

// begin begins a backup, and first keeps WAL from being removed, where that is
// allowed: without, it is seen at the end whether some is gone. A slot stays no
// longer than the connection, and that no longer than the server is told here:
// versions before 14 cannot be told, and get none.
func begin(ctx context.Context, c conn, s state, window time.Duration) (*backup, error) {
	b := &backup{state: s}
	if s.slot && s.version >= 140000 {
		idle := fmt.Sprintf("SET idle_session_timeout = %d", (window + slack).Milliseconds())
		if err := c.do(ctx, idle); err != nil {
			return nil, err
		}
		err := c.do(ctx, "SELECT pg_create_physical_replication_slot('stillpoint_' || pg_backend_pid(), true, true)")
		if err != nil && c.IsClosed() {
			return nil, err
		} // else all slots are in use
	}
	start := "SELECT pg_backup_start('" + label + "', true)"
	if s.version < 150000 {
		start = "SELECT pg_start_backup('" + label + "', true, false)"
	}
	return b, c.do(ctx, start)
}

// end ends the backup. All WAL that a restore needs is then in files, since the
// server begins a new one; that it is archived, too, is not waited for.
func (b *backup) end(ctx context.Context, c conn, data string) ([]writer.Note, error) {
	w, err := newNotes(data)
	if err != nil {
		return nil, err
	}
	if b.state.standby {
		// A backup of a standby ends where pg_control says that it is
		// consistent, so this must be younger than all copies. The stop comes
		// after it, so that the WAL up to there is among the notes.
		if err := w.control(); err != nil {
			return nil, err
		}
	}
	stop := "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)"
	if b.state.version < 150000 {
		stop = "SELECT lsn, labelfile, spcmapfile FROM pg_stop_backup(false, false)"
	}
	row, err := c.row(ctx, stop)
	if err != nil {
		return nil, b.stopFailed(ctx, err)
	}
	w.add("backup_label", []byte(row[1]))
	if row[2] != "" {
		w.add("tablespace_map", []byte(row[2]))
	}
	if err := w.wal(b.state.segment, row[1], row[0]); err != nil {
		return nil, err
	}
	return w.all, nil
}

// stopFailed understands why a backup that had begun could not be ended: a
// standby that became a primary meanwhile (object_not_in_prerequisite_state)
// does not the next time.
func (b *backup) stopFailed(ctx context.Context, err error) error {
	err = failure(ctx, err)
	if problem.CodeOf(err) == problem.WriterFailed {
		return problem.Newf(problem.WriterRetryable, "", "end the backup: %s", err.Error())
	}
	return fmt.Errorf("end the backup: %w", err)
}
