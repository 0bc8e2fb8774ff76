package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/object"

	"stillpoint/internal/problem"
	"stillpoint/internal/sys/memfile"
)

// What new repositories are made of; doc/design/003-repository.md says why.
const (
	hashAlgorithm = "BLAKE3-256-128"
	encryption    = "AES256-GCM-HMAC-SHA256"
	splitter      = "DYNAMIC-1M-BUZHASH"
)

// largestContent is where that splitter cuts at the latest.
const largestContent = 2 << 20

// formatFile is the one file that makes a folder a repository.
const formatFile = string(format.KopiaRepositoryBlobID) + ".f"

// Identity is who makes backups: it becomes user@host of every source.
type Identity struct {
	Host string
	User string
}

// A Repository is open for reading and writing. Its methods may be called from
// several goroutines.
type Repository struct {
	path   string
	id     Identity
	kopia  repo.DirectRepository
	config *os.File
	clock  *clock
	local  *local

	writers    atomic.Int64 // open
	unwritable error        // why nothing can be written
}

// Options are for Open and Create; the zero value will do for reading.
type Options struct {
	Identity Identity
	Now      func() time.Time // time.Now where nil
}

// Create makes a repository in the folder path, which must be empty or not
// exist. It fails with repository-exists where there is one, and changes
// nothing then.
func Create(ctx context.Context, path, password string, o Options) error {
	if password == "" {
		return problem.Newf(problem.PasswordMissing, path, "a repository needs a password")
	}
	if err := emptyFolder(path); err != nil {
		return err
	}
	register()
	st, err := newLocal(path, true)
	if err != nil {
		return understand(path, err)
	}
	defer st.Close(ctx)
	err = repo.Initialize(ctx, st, &repo.NewRepositoryOptions{
		BlockFormat: format.ContentFormat{
			Hash:       hashAlgorithm,
			Encryption: encryption,
			MutableParameters: format.MutableParameters{
				Version: format.FormatVersion3,
			},
			EnablePasswordChange: true,
		},
		ObjectFormat: format.ObjectFormat{Splitter: splitter},
	}, password)
	if err != nil {
		return understand(path, err)
	}
	return setMaintenanceOwner(ctx, path, password, o)
}

// setMaintenanceOwner lets the stock program run maintenance as who created
// the repository; without an owner it refuses.
func setMaintenanceOwner(ctx context.Context, path, password string, o Options) error {
	r, err := Open(ctx, path, password, o)
	if err != nil {
		return err
	}
	defer r.Close(ctx)
	err = repo.WriteSession(ctx, r.kopia, repo.WriteSessionOptions{Purpose: "create"},
		func(ctx context.Context, w repo.RepositoryWriter) error {
			p := maintenance.DefaultParams()
			p.Owner = r.kopia.ClientOptions().UsernameAtHost()
			return maintenance.SetParams(ctx, w, &p)
		})
	return understand(path, err)
}

func emptyFolder(path string) error {
	es, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(path, 0o700); err != nil {
			return problem.New(problem.RepositoryLost, path, said(path, err))
		}
		return nil
	case err != nil:
		return problem.New(problem.RepositoryLost, path, said(path, err))
	}
	for _, e := range es {
		if e.Name() == formatFile {
			return problem.Newf(problem.RepositoryExists, path, "there is a repository already")
		}
	}
	if len(es) > 0 {
		return problem.Newf(problem.RepositoryExists, path, "the folder is not empty")
	}
	return nil
}

// Open opens the repository in the folder path. A folder without one is
// not-a-repository and stays as it is.
func Open(ctx context.Context, path, password string, o Options) (*Repository, error) {
	register()
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, problem.New(problem.NotARepository, path, err)
	}
	if err := Exists(path); err != nil {
		return nil, err
	}
	if password == "" {
		return nil, problem.Newf(problem.PasswordMissing, path, "the repository needs its password")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r, err := connect(ctx, path, password, o, false)
	if err != nil {
		return nil, err
	}
	// Who first asks for the records makes kopia join them, when there are
	// many. Where that cannot be written, nobody must be kept from reading.
	_, err = r.kopia.FindManifests(ctx, snapshots)
	if c := problem.CodeOf(err); c != problem.RepositoryFull && c != problem.RepositoryLost {
		return r, nil // whoever needs the records gets the error, if it is one
	}
	unwritable := understand(path, err)
	if err := r.Close(ctx); err != nil {
		return nil, err
	}
	if r, err = connect(ctx, path, password, o, true); err != nil {
		return nil, err
	}
	r.unwritable = unwritable
	return r, nil
}

func connect(ctx context.Context, path, password string, o Options, readOnly bool) (*Repository, error) {
	// kopia reads the way to the repository from a file. It holds no
	// secret, but a file on disk would be left by a kill -9.
	config, err := connection(path, o.Identity, readOnly)
	if err != nil {
		return nil, err
	}
	var fatal error
	clock := &clock{now: o.Now}
	var st *local
	k, err := repo.Open(withLocal(ctx, &st), memfile.Path(config), password, &repo.Options{
		TimeNowFunc:         clock.read,
		DisableInternalLog:  true,
		DoNotWaitForUpgrade: true,
		OnFatalError:        func(err error) { fatal = err },
	})
	if err != nil {
		config.Close()
		return nil, understand(path, both(err, fatal))
	}
	d, ok := k.(repo.DirectRepository)
	if !ok || st == nil {
		config.Close()
		return nil, problem.Newf(problem.NotARepository, path, "not a repository in a folder")
	}
	return &Repository{path: path, id: o.Identity, kopia: d, config: config, clock: clock, local: st}, nil
}

func connection(path string, id Identity, readOnly bool) (*os.File, error) {
	b, err := json.Marshal(repo.LocalConfig{
		Storage:       &blob.ConnectionInfo{Type: storageType, Config: &localOptions{Path: path}},
		Caching:       &content.CachingOptions{},
		ClientOptions: repo.ClientOptions{Hostname: id.Host, Username: id.User, ReadOnly: readOnly},
	})
	if err != nil {
		return nil, err
	}
	return memfile.New("stillpoint-connection", b)
}

// Close releases what Open took. Writers are closed before.
func (r *Repository) Close(ctx context.Context) error {
	err := r.kopia.Close(ctx)
	return understand(r.path, both(err, r.config.Close()))
}

// Path is the folder of the repository.
func (r *Repository) Path() string { return r.path }

// understand gives kopia's errors their code. What has one keeps it.
func understand(subject string, err error) error {
	if err == nil {
		return nil
	}
	code := problem.RepositoryDamaged
	switch {
	case problem.CodeOf(err) != problem.Uncatalogued:
		// What kopia says around an error of the storage helps nobody.
		if p := (*problem.Problem)(nil); errors.As(err, &p) && p.Subject == "" {
			err = p
		}
		return fmt.Errorf("repository %s: %w", subject, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		code = problem.Cancelled
	case errors.Is(err, repo.ErrInvalidPassword):
		return problem.Newf(problem.PasswordWrong, subject, "the password does not open the repository")
	case errors.Is(err, repo.ErrAlreadyInitialized):
		code = problem.RepositoryExists
	case errors.Is(err, repo.ErrRepositoryNotInitialized):
		code = problem.NotARepository
	case errors.Is(err, repo.ErrRepositoryUnavailableDueToUpgradeInProgress):
		code = problem.Busy
	case errors.Is(err, fs.ErrPermission):
		code = problem.RepositoryLost
	case errors.Is(err, blob.ErrBlobNotFound), errors.Is(err, content.ErrContentNotFound), errors.Is(err, object.ErrObjectNotFound):
		code = problem.RepositoryDamaged
	}
	return problem.New(code, subject, err)
}

// both is errors.Join for a line of a log.
func both(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return fmt.Errorf("%w; %w", a, b)
}

// said is an error that is about the path itself, without the path.
func said(path string, err error) error {
	if p, ok := err.(*fs.PathError); ok && p.Path == path {
		return os.NewSyscallError(p.Op, p.Err)
	}
	return err
}

// Exists is nil where the folder holds a repository. It needs no password.
func Exists(path string) error {
	_, err := os.Stat(filepath.Join(path, formatFile))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) && remains(path):
		return problem.Newf(problem.RepositoryDamaged, path, "a repository without its file %s, which holds the key: put it back from a copy", formatFile)
	case errors.Is(err, fs.ErrNotExist):
		return problem.Newf(problem.NotARepository, path, "there is no repository in this folder")
	}
	return problem.New(problem.RepositoryLost, path, said(filepath.Join(path, formatFile), err))
}

// remains tells whether there once was a repository.
func remains(path string) bool {
	_, err := os.Stat(filepath.Join(path, string(format.KopiaBlobCfgBlobID)+".f"))
	return err == nil
}
