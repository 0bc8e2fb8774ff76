package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/repository"
	"stillpoint/internal/tree"
)

type lsFlags struct {
	repo      repoFlags
	host      string
	long      bool
	recursive bool
}

func newLs(e *env) *cobra.Command {
	var f lsFlags
	c := &cobra.Command{
		Use:   "ls BACKUP[:PATH]",
		Short: "list what is in a backup",
		Long: `Lists a directory, or shows one file, of a backup. BACKUP is "latest" (of this
host; --host names another), an id or a unique prefix of one; PATH is a live
path. Without a path the paths of the backup are listed.`,
		Example: `  stillpoint ls latest:/srv
  stillpoint ls latest:/srv/mail -l -R
  stillpoint ls 3f9k:/etc/passwd --json`,
		Args: between(1, 1, "a backup"),
		RunE: func(c *cobra.Command, args []string) error { return runLs(c.Context(), e, &f, args[0]) },
	}
	f.repo.add(c)
	c.Flags().StringVar(&f.host, "host", "", "whose latest backup; \"all\" for any (default this host)")
	c.Flags().BoolVarP(&f.long, "long", "l", false, "show type, mode, owner, size and time")
	c.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "go into directories")
	jsonFlag(c, e)
	return c
}

// choose opens what BACKUP[:PATH] names.
func choose(ctx context.Context, r *repository.Repository, host, spec string) (repository.Backup, []repository.Selected, error) {
	name, path, err := repository.ParseSpec(spec)
	if err != nil {
		return repository.Backup{}, nil, err
	}
	all, err := r.Backups(ctx)
	if err != nil {
		return repository.Backup{}, nil, err
	}
	switch host {
	case "":
		host = identity().Host
	case "all":
		host = ""
	}
	b, sel, err := selectFrom(ctx, r, all, host, name, path)
	if live := livePath(path); path != "" && live != path && (problem.Is(err, problem.NoSuchBackup) || problem.Is(err, problem.NotInBackup)) {
		// The path leads over a symbolic link; a backup keeps where it led.
		if b2, sel2, err2 := selectFrom(ctx, r, all, host, name, live); err2 == nil {
			return b2, sel2, nil
		}
	}
	return b, sel, err
}

func selectFrom(ctx context.Context, r *repository.Repository, all []repository.Backup, host, name, path string) (repository.Backup, []repository.Selected, error) {
	b, err := repository.Choose(all, host, name, path)
	if err != nil {
		return b, nil, err
	}
	sel, err := r.Select(ctx, &b, path)
	return b, sel, err
}

func runLs(ctx context.Context, e *env, f *lsFlags, spec string) error {
	r, err := f.repo.open(ctx, e)
	if err != nil {
		return err
	}
	defer r.Close(context.WithoutCancel(ctx))
	_, sel, err := choose(ctx, r, f.host, spec)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(e.stdout)
	l := &lister{ctx: ctx, r: r, f: f, out: out, json: e.json}
	if err := l.all(sel, !strings.Contains(spec, ":")); err != nil {
		out.Flush()
		return err
	}
	return out.Flush()
}

type lister struct {
	ctx  context.Context
	r    *repository.Repository
	f    *lsFlags
	out  *bufio.Writer
	json bool
	n    int
}

// all lists what is selected; roots says that the backup itself was named.
func (l *lister) all(sel []repository.Selected, roots bool) error {
	if l.json {
		l.out.WriteString("[")
	}
	for i := range sel {
		s := &sel[i]
		var err error
		switch {
		case s.Record.Type != tree.Directory, roots && !l.f.recursive:
			err = l.entry(s.Path, s.Path, &s.Record)
		default:
			if roots {
				err = l.entry(s.Path, s.Path, &s.Record)
			}
			if err == nil {
				err = l.dir(s.Path, &s.Record)
			}
		}
		if err != nil {
			return err
		}
	}
	if l.json {
		l.out.WriteString("\n]\n")
	}
	return nil
}

func (l *lister) dir(path string, rec *repository.Record) error {
	d, err := l.r.Listing(l.ctx, rec)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		r, err := d.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		full := filepath.Join(path, r.Name)
		shown := r.Name
		if l.f.recursive {
			shown = full
		}
		if err := l.entry(full, shown, &r); err != nil {
			return err
		}
		if l.f.recursive && r.Type == tree.Directory {
			if err := l.dir(full, &r); err != nil {
				return err
			}
		}
	}
}

// entryInfo is one name in `ls --json`.
type entryInfo struct {
	Path        string      `json:"path"`
	PathBytes   []byte      `json:"path_bytes,omitempty"`
	Type        tree.Type   `json:"type"`
	Mode        string      `json:"mode"` // octal
	UID         uint32      `json:"uid"`
	GID         uint32      `json:"gid"`
	Size        int64       `json:"size"`
	Modified    time.Time   `json:"modified"`
	Target      string      `json:"target,omitempty"`
	TargetBytes []byte      `json:"target_bytes,omitempty"`
	Links       uint64      `json:"links,omitempty"`
	XAttrs      []xattrInfo `json:"xattrs,omitempty"`
	Object      string      `json:"object"`
}

type xattrInfo struct {
	Name      string `json:"name"`
	NameBytes []byte `json:"name_bytes,omitempty"`
	Value     []byte `json:"value"`
}

func (l *lister) entry(path, shown string, r *repository.Record) error {
	l.n++
	if l.json {
		if l.n > 1 {
			l.out.WriteString(",")
		}
		b, err := json.Marshal(entryOf(path, r))
		if err != nil {
			return err
		}
		l.out.WriteString("\n  ")
		_, err = l.out.Write(b)
		return err
	}
	if !l.f.long {
		suffix := ""
		if r.Type == tree.Directory {
			suffix = "/"
		}
		_, err := fmt.Fprintf(l.out, "%s%s\n", quote(shown), suffix)
		return err
	}
	target := ""
	if r.Type == tree.Symlink {
		target = " -> " + quote(r.Target)
	}
	_, err := fmt.Fprintf(l.out, "%s %3d %8d %8d %12d %s %s%s\n", modeText(r.Type, r.Mode), r.Links, r.UID, r.GID, r.Size,
		r.Modified.Local().Format(time.DateTime), quote(shown), target)
	return err
}

func entryOf(path string, r *repository.Record) entryInfo {
	i := entryInfo{
		Path: path, PathBytes: job.NotText(path), Type: r.Type, Mode: fmt.Sprintf("%04o", r.Mode), UID: r.UID, GID: r.GID, Size: r.Size,
		Modified: r.Modified.UTC(), Target: r.Target, TargetBytes: job.NotText(r.Target), Object: r.Object,
	}
	if r.Links > 1 && r.Type != tree.Directory {
		i.Links = r.Links
	}
	for _, x := range r.XAttrs {
		i.XAttrs = append(i.XAttrs, xattrInfo{x.Name, job.NotText(x.Name), x.Value})
	}
	return i
}

// quote shows a name so that it cannot do anything to a terminal.
func quote(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return strconv.Quote(s)
		}
	}
	return s
}

// modeText is the first column of ls -l.
func modeText(t tree.Type, mode uint32) string {
	b := []byte("?rwxrwxrwx")
	b[0] = map[tree.Type]byte{tree.File: '-', tree.Directory: 'd', tree.Symlink: 'l', tree.FIFO: 'p', tree.Char: 'c', tree.Block: 'b', tree.Socket: 's'}[t]
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			b[1+i] = '-'
		}
	}
	for i, c := range []byte("sst") {
		if mode&(0o4000>>i) != 0 {
			at := 3 * (i + 1)
			if b[at] == '-' {
				c -= 'a' - 'A'
			}
			b[at] = c
		}
	}
	return string(b)
}
