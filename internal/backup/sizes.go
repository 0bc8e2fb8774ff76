package backup

import (
	"container/heap"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
)

// The sizes by directory that a job's log has are for people: what is large is
// told to some depth, and no backup takes noticeably longer for it.
const (
	sizesTold = 80
	sizesDeep = 4               // below the path that was selected
	sizesOf   = 1000            // subdirectories of one directory that are looked at
	sizesTime = 5 * time.Second // in which all is read
)

// sizes tells in the log how much the backup holds by directory: always the
// largest directory that is left is looked into next.
func (b *backing) sizes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sizesTime)
	defer cancel()
	var (
		told []job.Directory
		left sized
	)
	for _, t := range b.rec.Trees {
		if t.Root.Type == tree.Directory && t.Root.Summary != nil {
			heap.Push(&left, &sizedDir{path: t.Path, record: t.Root})
		}
	}
	for left.Len() > 0 && len(told) < sizesTold {
		d := heap.Pop(&left).(*sizedDir)
		told = append(told, job.Directory{Path: d.path, Files: d.record.Summary.TotalFileCount, Bytes: d.record.Summary.TotalFileSize})
		if d.depth == sizesDeep {
			continue
		}
		below, err := b.directories(ctx, &d.record)
		if ctx.Err() != nil {
			break // what is told is true, too
		}
		if err != nil {
			// What was stored cannot be read: a verification would say so, and
			// the backup is recorded.
			b.event(job.Event{Severity: job.Warning, Step: job.StepRecord, Path: d.path, Code: problem.CodeOf(err), Text: "sizes by directory: " + problem.Text(err)})
			break
		}
		for _, r := range below {
			heap.Push(&left, &sizedDir{path: path.Join(d.path, r.Name), record: r, depth: d.depth + 1})
		}
	}
	slices.SortFunc(told, func(x, y job.Directory) int { return strings.Compare(x.Path, y.Path) })
	b.event(job.DirectoriesEvent(told))
}

// directories are the subdirectories of one, without the empty ones.
func (b *backing) directories(ctx context.Context, r *repository.Record) (all []repository.Record, err error) {
	l, err := b.repo.Listing(ctx, r)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	for range sizesOf {
		e, err := l.Next()
		if errors.Is(err, io.EOF) || err == nil && e.Type != tree.Directory { // which come first
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if e.Summary != nil && e.Summary.TotalFileSize > 0 {
			all = append(all, e)
		}
	}
	return all, nil
}

// A sizedDir is a directory whose size is known.
type sizedDir struct {
	path   string
	depth  int
	record repository.Record
}

// sized are directories, the largest on top.
type sized []*sizedDir

func (s sized) Len() int { return len(s) }
func (s sized) Less(i, j int) bool {
	return s[i].record.Summary.TotalFileSize > s[j].record.Summary.TotalFileSize
}
func (s sized) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *sized) Push(x any)   { *s = append(*s, x.(*sizedDir)) }
func (s *sized) Pop() any {
	old := *s
	last := old[len(old)-1]
	*s = old[:len(old)-1]
	return last
}
