package backup

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// What a restore finds in its way, by name; path is what the backup has there,
// and it is still as in the backup.
var obstacles = map[string]func(r *rig, path string){
	"nothing": func(r *rig, path string) { r.must(os.RemoveAll(path)) },
	"same":    func(*rig, string) {},
	"older":   func(r *rig, path string) { r.instead(path, "another, and longer", time.Unix(1e9, 0)) },
	"newer":   func(r *rig, path string) { r.instead(path, "another, and longer", time.Now().Add(time.Hour)) },
	"fifo": func(r *rig, path string) {
		r.must(os.RemoveAll(path))
		r.must(syscall.Mkfifo(path, 0o600))
	},
	"socket": func(r *rig, path string) {
		r.must(os.RemoveAll(path))
		r.must(syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0))
	},
	"link-to-nothing": func(r *rig, path string) {
		r.must(os.RemoveAll(path))
		r.must(os.Symlink("nowhere", path))
	},
	"link-to-dir": func(r *rig, path string) {
		r.must(os.RemoveAll(path))
		r.must(os.MkdirAll(r.path("elsewhere/in"), 0o755))
		r.must(os.Symlink(r.path("elsewhere"), path))
	},
	"empty-dir": func(r *rig, path string) {
		r.must(os.RemoveAll(path))
		r.must(os.Mkdir(path, 0o755))
	},
	"full-dir": func(r *rig, path string) {
		r.must(os.RemoveAll(path))
		r.must(os.MkdirAll(path+"/in", 0o755))
	},
	"owner": func(r *rig, path string) { r.must(os.Lchown(path, 12, 34)) },
	"mode": func(r *rig, path string) {
		if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() != fs.ModeSymlink {
			r.must(syscall.Chmod(path, 0o711))
		}
	},
	"marked": func(r *rig, path string) { r.mark(path, 0o711) },
	"only-made": func(r *rig, path string) { // and not even marked
		r.must(os.RemoveAll(path))
		r.must(os.Mkdir(path, 0o700))
	},
	"linked": func(r *rig, path string) { // has a name more than the backup knows
		if fi, err := os.Lstat(path); err == nil && !fi.IsDir() {
			r.must(os.Link(path, r.path("more"+strings.ReplaceAll(path, "/", "-"))))
		}
	},
}

// kinds are what is in the backup, each once for every obstacle.
var kinds = map[string]func(r *rig, path string){
	"file":  func(r *rig, path string) { r.must(os.WriteFile(path, []byte("content"), 0o644)) },
	"empty": func(r *rig, path string) { r.must(os.WriteFile(path, nil, 0o644)) },
	"link":  func(r *rig, path string) { r.must(os.Symlink("somewhere", path)) },
	"fifo":  func(r *rig, path string) { r.must(syscall.Mkfifo(path, 0o644)) },
	"null":  func(r *rig, path string) { r.must(syscall.Mknod(path, syscall.S_IFCHR|0o644, 1<<8|3)) },
	"dir": func(r *rig, path string) {
		r.must(os.MkdirAll(path+"/in/deep", 0o755))
		r.must(os.WriteFile(path+"/in/file", []byte("content"), 0o644))
		r.must(os.Symlink("/", path+"/root"))
	},
	"first-name": func(r *rig, path string) {
		r.must(os.WriteFile(path, []byte("content"), 0o644))
		r.must(os.Link(path, path+"-z")) // restored after it
	},
	"second-name": func(r *rig, path string) {
		r.must(os.WriteFile(path+"-a", []byte("content"), 0o644)) // restored before it
		r.must(os.Link(path+"-a", path))
	},
}

// instead puts another file in the place of path.
func (r *rig) instead(path, content string, modified time.Time) {
	r.Helper()
	r.must(os.RemoveAll(path))
	r.must(os.WriteFile(path, []byte(content), 0o644))
	r.must(os.Chtimes(path, modified, modified))
}

// mark makes a directory look as one that a killed restore left.
func (r *rig) mark(path string, mode uint32) {
	r.Helper()
	if fi, err := os.Lstat(path); err == nil && fi.IsDir() {
		r.must(syscall.Chmod(path, mode))
		r.must(syscall.Setxattr(path, "trusted.stillpoint.restoring", []byte("x"), 0))
	}
}

// A rehearsal says, name for name, what the restore then does; and it does
// nothing: every obstacle in the way of every kind of entry, in every way to
// overwrite.
func TestRehearsedIsDone(t *testing.T) {
	notShort(t)
	r := newRig(t)
	for kind, build := range kinds {
		for obstacle := range obstacles {
			r.must(os.MkdirAll(r.path("src/"+kind), 0o755))
			build(r, r.path("src/"+kind+"/"+obstacle))
		}
	}
	r.backup(Options{})
	for o, name := range map[tree.Overwrite]string{tree.Never: "never", tree.Newer: "newer", tree.Always: "always"} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.T = t
			to := r.path("to-" + name)
			at := to + r.path("src")
			r.must(os.MkdirAll(filepath.Dir(at), 0o755))
			command(t, "cp", "-a", r.path("src"), at)
			for kind := range kinds {
				for obstacle, put := range obstacles {
					put(&r, filepath.Join(at, kind, obstacle))
				}
			}
			said := r.rehearse("latest", to, o)
			done := r.done("latest", to, o)
			for _, path := range slices.Sorted(maps.Keys(both(said, done))) {
				if said[path] != done[path] {
					t.Errorf("%s: said %q, did %q", strings.TrimPrefix(path, at), said[path], done[path])
				}
			}
			if len(done) < 30 {
				t.Errorf("only %d names were of note", len(done))
			}
			if again := r.rehearse("latest", to, o); o == tree.Newer {
				for path, what := range again {
					if what == "make" || what == "replace" {
						t.Errorf("%s: %s, after it was restored", path, what)
					}
				}
			}
		})
	}
}

func both(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// rehearse returns what is said of each path, which must change nothing.
func (r *rig) rehearse(spec, to string, o tree.Overwrite) map[string]string {
	r.Helper()
	before := r.state(r.dir)
	said := map[string]string{}
	exceptions := 0
	n, err := r.Rehearse(r.Context(), r.open, RestoreOptions{Choose: r.choose(spec), To: to, Overwrite: o}, func(path, what string, err error) {
		if err != nil {
			what = string(problem.CodeOf(err))
			exceptions++
		}
		if said[path] != "" {
			r.Errorf("%s: said twice: %s, %s", path, said[path], what)
		}
		said[path] = what
	})
	if err != nil {
		said["error"] = string(problem.CodeOf(err))
	}
	if n != exceptions {
		r.Errorf("%d exceptions counted, %d said", n, exceptions)
	}
	if !maps.Equal(before, r.state(r.dir)) {
		r.Error("the rehearsal changed something")
	}
	return said
}

// done restores, and returns what became of each path.
func (r *rig) done(spec, to string, o tree.Overwrite) map[string]string {
	r.Helper()
	before := r.state(to)
	rep, err := r.Restore(r.Context(), r.open, RestoreOptions{Choose: r.choose(spec), To: to, Overwrite: o, Progress: &RestoreProgress{}})
	done := map[string]string{}
	if err != nil {
		done["error"] = string(problem.CodeOf(err))
	}
	after := r.state(to)
	for path, is := range after {
		if was := before[path]; was == "" {
			done[path] = "make"
		} else if was != is {
			done[path] = "replace"
		}
	}
	j, err := job.Load(r.JobDir, rep.Job)
	r.must(err)
	for _, e := range j.Events {
		switch {
		case e.Path == "":
		case e.Code != "":
			done[e.Path] = string(e.Code)
		case strings.HasPrefix(e.Text, "left out"):
			done[e.Path] = "keep"
		}
	}
	return done
}

// state is which file has each name below dir: by inode and type.
func (r *rig) state(dir string) map[string]string {
	r.Helper()
	all := map[string]string{}
	root := dir
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		root = real
	}
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == r.repo || path == r.JobDir {
			return filepath.SkipDir
		}
		fi, err := d.Info()
		if err == nil {
			all[dir+strings.TrimPrefix(path, root)] = fmt.Sprint(inode(fi), fi.Mode().Type())
		}
		return err
	})
	return all
}

// The same of what leads to the selected places, and of the target itself.
func TestRehearsedOnTheWay(t *testing.T) {
	notShort(t)
	r := newRig(t)
	r.write("src/a/b/file", "x")
	r.write("src/a/c/file", "x")
	r.must(os.Chmod(r.path("src/a"), 0o750))
	r.backup(Options{Paths: []string{r.path("src/a/b"), r.path("src/a/c")}})
	r.must(os.Mkdir(r.path("elsewhere"), 0o755))
	for name, put := range map[string]func(to string){
		"nothing":        func(to string) {},
		"target":         func(to string) { r.must(os.Mkdir(to, 0o755)) },
		"link to target": func(to string) { r.must(os.Symlink(r.path("elsewhere"), to)) },
		"file":           func(to string) { r.must(os.WriteFile(to, nil, 0o644)) },
		"below a file":   func(to string) { r.must(os.WriteFile(filepath.Dir(to), nil, 0o644)) },
		"half the way":   func(to string) { r.must(os.MkdirAll(to+r.path("src"), 0o711)) },
		"link on the way": func(to string) {
			r.must(os.MkdirAll(to+r.dir, 0o755))
			r.must(os.Symlink(r.path("elsewhere"), to+r.path("src")))
		},
		"file on the way": func(to string) {
			r.must(os.MkdirAll(to+r.path("src"), 0o755))
			r.must(os.WriteFile(to+r.path("src/a"), nil, 0o644))
		},
		"file in the place": func(to string) {
			r.must(os.MkdirAll(to+r.path("src/a"), 0o755))
			r.must(os.WriteFile(to+r.path("src/a/b"), nil, 0o644))
		},
	} {
		to := r.path("to-" + strings.ReplaceAll(name, " ", "-"))
		if name == "below a file" {
			to += "/to"
		}
		put(to)
		said := r.rehearse("latest", to, tree.Never)
		done := r.done("latest", to, tree.Never)
		if !maps.Equal(said, done) || len(done) == 0 {
			t.Errorf("%s: said\n%q, did\n%q", name, said, done)
		}
	}
	if es, err := os.ReadDir(r.path("elsewhere")); err != nil || len(es) != 1 { // of "link to target"
		t.Errorf("elsewhere holds %v, %v", es, err)
	}
	said := r.rehearse("latest", r.repo+"/q", tree.Never)
	if done := r.done("latest", r.repo+"/q", tree.Never); !maps.Equal(said, done) {
		t.Errorf("in the repository: said\n%q, did\n%q", said, done)
	}
}
