package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
)

// A repository that is there, one that is not yet, or whose disk is not mounted, and
// one of which the most important file is gone.
func TestRepository(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "repo")
	some := Subject{Paths: []string{"/srv"}}
	check := func(s Subject) []Finding { return look(t, Repository(s, folder, repository.Exists)) }
	says(t, check(some), Warning, problem.NotARepository, folder, "no repository")
	must(t, repository.Create(t.Context(), folder, "a secret", repository.Options{}))
	healthy(t, check(some))
	healthy(t, check(Subject{}))
	must(t, os.Rename(folder+"/kopia.repository.f", folder+"/away"))
	says(t, check(some), Failure, problem.RepositoryDamaged, folder)
	says(t, check(Subject{}), Warning, problem.RepositoryDamaged, folder)
	must(t, os.Rename(folder+"/away", folder+"/kopia.repository.f"))
	healthy(t, check(some))

	folder = folder + "/kopia.repository.f/repo" // below a file
	says(t, check(some), Failure, problem.RepositoryLost, folder)
	folder = ""
	healthy(t, check(some))
}
