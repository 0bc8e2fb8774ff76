package doctor

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/volume"
)

// readLimit is how long finding out what is mounted may take, and where the paths
// lead. A volume.Table has limits for each volume; this one is for all that is asked
// of the kernel besides, which waits while a mount or unmount hangs.
const readLimit = 20 * time.Second

// Read finds a subject within a time of its own. The error has the code look-failed
// where that was not enough; what does not come back is left behind.
func Read(ctx context.Context, find func(ctx context.Context) (Subject, error)) (Subject, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readLimit, problem.Newf(problem.LookFailed, "", "what is mounted could not be read within %s: a mount, an unmount or a device hangs", readLimit))
	defer cancel()
	type result struct {
		s   Subject
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := find(ctx)
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		if r.err != nil && errors.Is(r.err, context.DeadlineExceeded) && ctx.Err() != nil {
			r.err = context.Cause(ctx)
		}
		return r.s, r.err
	case <-ctx.Done():
		return Subject{}, context.Cause(ctx)
	}
}

// Volumes says what could not be learned of what is mounted: the error of Read, by
// which nothing is known of it, or what a single volume did not tell.
func Volumes(t *volume.Table, err error) Check {
	return Check{Name: "volumes", Look: func(context.Context) ([]Finding, error) {
		if err != nil {
			return nil, err
		}
		var found []Finding
		for _, w := range t.Warnings() {
			code := problem.CodeOf(w)
			if code == problem.Uncatalogued {
				code = problem.LookFailed
			}
			f := Finding{Result: Unknown, Code: code, Text: problem.Text(w)}.
				so("a volume that does not answer may hold up a backup of it, or make it fail", "look whether its device or server is there, and at the kernel's log")
			if errors.Is(w, fs.ErrPermission) {
				f = f.so("it is not known whether this would be in the way of a backup", "run it as root")
			}
			found = append(found, f)
		}
		if len(found) == 0 {
			found = append(found, fine("all that is mounted answers"))
		}
		return found, nil
	}}
}
