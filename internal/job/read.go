package job

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"stillpoint/internal/problem"
)

// List returns all jobs, those that started last first, by the clock of the
// host at the time. Summaries and an error may come together: what can be read
// is shown.
func List(dir string) ([]Summary, error) {
	ids, err := names(dir)
	if err != nil {
		return nil, err
	}
	var (
		jobs []Summary
		errs []error
	)
	for _, id := range ids {
		s, running, err := open(filepath.Join(dir, id+suffix), &scanner{id: id})
		switch {
		case errors.Is(err, fs.ErrNotExist): // pruned meanwhile
		case err != nil:
			errs = append(errs, err)
		case s != nil:
			sum := s.summary(running)
			if sum.Status != Died {
				sum.OpenIntents = nil // of a running job they are its own matter
			}
			jobs = append(jobs, sum)
		}
	}
	slices.SortStableFunc(jobs, func(a, b Summary) int {
		if c := b.Started.Compare(a.Started); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return jobs, errors.Join(errs...)
}

// Load returns the job with this id, or the one whose id begins with it.
func Load(dir, idOrPrefix string) (Job, error) {
	return Excerpt(dir, idOrPrefix, nil)
}

// Excerpt is Load with only those events that show wants: a log may have a
// million.
func Excerpt(dir, idOrPrefix string, show func(Event) bool) (Job, error) {
	id, err := find(dir, idOrPrefix)
	if err != nil {
		return Job{}, err
	}
	s, running, err := open(filepath.Join(dir, id+suffix), &scanner{id: id, keep: true, show: show})
	if errors.Is(err, fs.ErrNotExist) || err == nil && s == nil {
		return Job{}, problem.Newf(problem.NoSuchJob, idOrPrefix, "no job with this id")
	}
	if err != nil {
		return Job{}, err
	}
	return Job{
		Summary: s.summary(running), TornLines: s.torn, Report: s.report,
		Events: append([]Event{}, s.events...), // in JSON a list, even when empty
	}, nil
}

func find(dir, idOrPrefix string) (string, error) {
	ids, err := names(dir)
	if err != nil {
		return "", err
	}
	wanted := strings.ToLower(idOrPrefix)
	var fit []string
	for _, id := range ids {
		if wanted != "" && strings.HasPrefix(id, wanted) {
			fit = append(fit, id)
		}
	}
	switch len(fit) {
	case 0:
		return "", problem.Newf(problem.NoSuchJob, idOrPrefix, "no job with this id")
	case 1:
		return fit[0], nil
	}
	return "", problem.Newf(problem.JobAmbiguous, idOrPrefix, "fits %d jobs: %s", len(fit), strings.Join(fit, ", "))
}

var idForm = regexp.MustCompile(`^[a-z2-7]{10}$`)

// names returns the ids of all logs in dir. A folder that does not exist has
// none.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, lost(dir, "list", err)
	}
	var ids []string
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if ok && e.Type().IsRegular() && idForm.MatchString(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
