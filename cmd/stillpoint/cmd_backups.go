package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/repository"
	"stillpoint/internal/volume"
)

type backupsFlags struct {
	repo repoFlags
	host string
}

func newBackups(e *env) *cobra.Command {
	var f backupsFlags
	c := &cobra.Command{
		Use:   "backups [PATH]",
		Short: "list the backups in the repository, newest first",
		Long: `Lists the backups of all hosts in the repository, newest first; with a path,
those that hold it.`,
		Example: `  stillpoint backups
  stillpoint backups /srv/mail --json
  stillpoint backups --host web1`,
		Args: between(0, 1, ""),
		RunE: func(c *cobra.Command, args []string) error { return runBackups(c.Context(), e, &f, args) },
	}
	f.repo.add(c)
	c.Flags().StringVar(&f.host, "host", "", "only backups of this host")
	jsonFlag(c, e)
	return c
}

// backupInfo is one backup in `backups --json`.
type backupInfo struct {
	ID          string    `json:"id"`
	Host        string    `json:"host"`
	User        string    `json:"user"`
	Started     time.Time `json:"started"`
	Ended       time.Time `json:"ended"`
	Instant     time.Time `json:"instant"` // the earliest moment it shows
	SkewMS      float64   `json:"skew_ms"` // between the first and the last instant
	Paths       []string  `json:"paths"`
	PathsBytes  [][]byte  `json:"paths_bytes,omitempty"`
	Provider    string    `json:"provider"`
	Level       string    `json:"level"`
	Status      string    `json:"status"`
	Exceptions  int       `json:"exceptions"`
	Files       int64     `json:"files"`
	Bytes       int64     `json:"bytes"`
	BytesStored int64     `json:"bytes_stored"`
}

func infoOf(b *repository.Backup) backupInfo {
	return backupInfo{
		ID: b.ID, Host: b.Host, User: b.User,
		Started: b.Started.UTC(), Ended: b.Ended.UTC(), Instant: b.Instant.UTC(),
		SkewMS: float64(b.Skew.Microseconds()) / 1000,
		Paths:  b.Paths(), PathsBytes: job.NotTexts(b.Paths()), Provider: b.Provider, Level: b.Level, Status: b.Status,
		Exceptions: b.Exceptions, Files: b.Files, Bytes: b.Bytes, BytesStored: b.Stored,
	}
}

func runBackups(ctx context.Context, e *env, f *backupsFlags, args []string) error {
	r, err := f.repo.open(ctx, e)
	if err != nil {
		return err
	}
	defer r.Close(context.WithoutCancel(ctx))
	all, err := r.Backups(ctx)
	if err != nil {
		return err
	}
	path := ""
	if len(args) == 1 {
		path = livePath(args[0])
	}
	infos := []backupInfo{}
	for i := range all {
		if (f.host == "" || all[i].Host == f.host) && (path == "" || holds(&all[i], path)) {
			infos = append(infos, infoOf(&all[i]))
		}
	}
	if e.json {
		return e.print(infos)
	}
	return printBackups(e.stdout, infos)
}

// livePath is the path under which a backup keeps what the user names now;
// what is gone meanwhile is taken as it is written.
func livePath(arg string) string {
	if r, err := volume.Resolve(arg); err == nil {
		return r
	}
	if a, err := filepath.Abs(arg); err == nil {
		return a
	}
	return arg
}

func holds(b *repository.Backup, path string) bool {
	for i := range b.Trees {
		if b.Trees[i].Holds(path) {
			return true
		}
	}
	return false
}

func printBackups(out io.Writer, infos []backupInfo) error {
	if len(infos) == 0 {
		_, err := fmt.Fprintln(out, "no backups")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tINSTANT\tHOST\tPATHS\tPROVIDER\tLEVEL\tEXCEPTIONS\tFILES\tSIZE\tNEW")
	for _, b := range infos {
		paths := make([]string, len(b.Paths))
		for i, p := range b.Paths {
			paths[i] = quote(p)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", b.ID, b.Instant.Local().Format(time.DateTime), b.Host,
			strings.Join(paths, " "), b.Provider, b.Level, b.Exceptions, b.Files, bytesText(b.Bytes), bytesText(b.BytesStored))
	}
	return w.Flush()
}
