package backup

import (
	"context"
	"fmt"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
)

// VerifyOptions say what is verified.
type VerifyOptions struct {
	Choose   func(ctx context.Context, r *repository.Repository) ([]repository.Backup, error)
	ReadData bool
	Progress *repository.VerifyProgress
	Expect   func(files, bytes int64) // told how much there is; may be nil
}

// Verify checks backups. Damage fails the job, with every path that cannot be
// restored in its log.
func (e *Engine) Verify(ctx context.Context, open Open, o VerifyOptions) (*job.Report, error) {
	return e.run(ctx, job.Verify, func(ctx context.Context, r *run) error {
		repo, err := open(ctx)
		if err != nil {
			return err
		}
		defer repo.Close(context.WithoutCancel(ctx))
		bs, err := o.Choose(ctx, repo)
		if err != nil {
			return err
		}
		var files, bytes int64
		for _, b := range bs {
			files, bytes = files+b.Files, bytes+b.Bytes
		}
		if o.Expect != nil {
			o.Expect(files, bytes)
		}
		damaged := 0
		err = repo.Verify(ctx, bs, repository.VerifyOptions{
			ReadData: o.ReadData,
			Progress: o.Progress,
			Damage: func(path string, err error) {
				damaged++
				r.exception(job.StepVerify, path, err)
			},
		})
		r.report.Backups = o.Progress.Backups.Load()
		r.report.Total = job.Counts{
			Files: o.Progress.Files.Load(), Directories: o.Progress.Dirs.Load(), Others: o.Progress.Others.Load(),
			Bytes: o.Progress.Bytes.Load(), BytesRead: o.Progress.Read.Load(),
		}
		if err == nil && damaged > 0 {
			err = problem.New(problem.RepositoryDamaged, repo.Path(), fmt.Errorf("%d of the names in %d backups cannot be restored; the job log names them", damaged, len(bs)))
		}
		return err
	})
}
