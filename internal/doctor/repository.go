package doctor

import (
	"context"

	"stillpoint/internal/problem"
)

// Repository looks whether there is a repository in a folder, as there is none where
// its disk is not mounted. exists needs no password. An empty folder stands for none
// that is known.
func Repository(s Subject, folder string, exists func(folder string) error) Check {
	return Check{Name: "repository", Look: func(context.Context) ([]Finding, error) {
		if folder == "" {
			return none("STILLPOINT_REPO names no repository"), nil
		}
		err := exists(folder)
		if err == nil {
			f := fine("is a repository")
			f.Subject = folder
			return []Finding{f}, nil
		}
		f := failed(folder, err).so("a backup to it fails", "see `stillpoint explain "+string(problem.CodeOf(err))+"`")
		if problem.Is(err, problem.NotARepository) {
			f = f.so("a backup to it fails until there is one", "mount the disk that it is on; or make one: stillpoint init")
		}
		// It may be made, or mounted, before; and nobody said that there is to be a backup.
		if problem.Is(err, problem.NotARepository) || s.whole() {
			f.Result = Warning
		}
		return []Finding{f}, nil
	}}
}
