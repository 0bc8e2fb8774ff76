package backup

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/scratch"
	"stillpoint/internal/snapshot/fake"
	"stillpoint/internal/writer"
)

// A database is a writer with one instance, whose only file says whether it was
// at rest when it was copied.
type database struct {
	dir    string
	check  error
	freeze func() error
	frozen int
}

func (d *database) Name() string { return "database" }
func (d *database) Discover(context.Context, writer.Scope) ([]writer.Instance, error) {
	return []writer.Instance{d}, nil
}
func (d *database) About() writer.About {
	return writer.About{ID: "database:1", Writer: "database", Version: "7.1", Paths: []string{d.dir}}
}
func (d *database) Check(context.Context) error                                  { return d.check }
func (d *database) Prepare(context.Context, writer.Need) (writer.Session, error) { return d, nil }

func (d *database) write(text string) error {
	return os.WriteFile(filepath.Join(d.dir, "data"), []byte(text), 0o600)
}

func (d *database) Freeze(context.Context) error {
	d.frozen++
	if d.freeze != nil {
		if err := d.freeze(); err != nil {
			return err
		}
	}
	return d.write("at rest")
}

func (d *database) Thaw(context.Context) ([]writer.Note, error) {
	return []writer.Note{{Path: filepath.Join(d.dir, "label"), Content: []byte("note"), Mode: 0o600}}, d.write("busy")
}

// withDatabase makes a rig whose source holds a database.
func withDatabase(t *testing.T) (*trial, *database) {
	tr := newTrial(t, fake.Options{})
	d := &database{dir: filepath.Join(tr.path("src"), "db")}
	tr.must(os.Mkdir(d.dir, 0o700))
	tr.must(d.write("busy"))
	tr.Applications = quiesce.Settings{Writers: []writer.Writer{d}, Retries: 2, Wait: time.Millisecond}
	return tr, d
}

// An application rests while the snapshot is taken and no longer; its note is in
// the backup, and the report says so.
func TestApplicationAtRest(t *testing.T) {
	tr, d := withDatabase(t)
	rep, err := tr.try(Options{Application: true})
	tr.must(err)
	if rep.Level != job.Application || rep.Status != job.Complete || len(rep.Applications) != 1 {
		t.Fatalf("%+v", rep)
	}
	a := rep.Applications[0]
	if !a.AtRest || a.ID != "database:1" || a.Attempts != 1 || a.Code != "" || !slices.Equal(a.Paths, []string{d.dir}) {
		t.Errorf("%+v", a)
	}
	restored := tr.restore("latest")
	for name, want := range map[string]string{"data": "at rest", "label": "note"} {
		if b, err := os.ReadFile(filepath.Join(restored, "db", name)); string(b) != want {
			t.Errorf("%s holds %q: %v", name, b, err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(d.dir, "data")); string(b) != "busy" {
		t.Errorf("the live file is %q", b)
	}
}

// What cannot be brought to rest is treated as its policy says, and counted.
func TestApplicationPolicies(t *testing.T) {
	stays := problem.Newf(problem.WriterFailed, "", "never")
	passes := problem.Newf(problem.WriterTimeout, "", "slow")
	for name, tt := range map[string]struct {
		policy   quiesce.Policy
		check    error
		freezes  []error
		o        Options
		code     problem.Code
		level    job.Level
		status   job.Status
		attempts int
		left     bool
	}{
		"passes":          {freezes: []error{passes}, level: job.Application, status: job.Complete, attempts: 2},
		"does not pass":   {freezes: []error{passes, passes, passes}, level: job.Crash, status: job.CompleteWithExceptions, attempts: 3},
		"cannot":          {check: stays, level: job.Crash, status: job.CompleteWithExceptions},
		"to fail":         {check: stays, policy: quiesce.Fail, code: problem.WriterFailed, status: job.Failed},
		"left out":        {check: stays, policy: quiesce.Exclude, level: job.Crash, status: job.CompleteWithExceptions, left: true},
		"left out later":  {freezes: []error{stays}, policy: quiesce.Exclude, level: job.Crash, status: job.CompleteWithExceptions, left: true, attempts: 1},
		"demanded":        {check: stays, o: Options{Application: true}, code: problem.WriterFailed, status: job.Failed},
		"demanded, later": {freezes: []error{stays}, o: Options{Application: true}, code: problem.WriterFailed, status: job.Failed, attempts: 1},
	} {
		tr, d := withDatabase(t)
		tr.Applications.Policies = map[string]quiesce.Policy{"database": tt.policy}
		d.check = tt.check
		d.freeze = func() (err error) {
			if len(tt.freezes) > 0 {
				err, tt.freezes = tt.freezes[0], tt.freezes[1:]
			}
			return err
		}
		rep, err := tr.try(tt.o)
		if problem.CodeOf(err) != tt.code || tt.o.Application && !problem.Is(err, problem.NotApplication) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if rep.Status != tt.status || rep.Level != tt.level || rep.Applications[0].Attempts != tt.attempts {
			t.Errorf("%s: %s, level %s, %+v", name, rep.Status, rep.Level, rep.Applications)
		}
		if left := slices.ContainsFunc(rep.LeftOut, func(l job.LeftOut) bool { return slices.Contains(l.Names, d.dir) }); left != tt.left {
			t.Errorf("%s: left out %t: %+v", name, left, rep.LeftOut)
		}
		tr.nothingLeft()
	}
}

// An application on a volume that is read live is not at rest, though others of
// the same backup may be.
func TestApplicationReadLive(t *testing.T) {
	tr, d := withDatabase(t)
	v := scratch.New(t, "ext4", 64*mib)
	d.dir = v.Dir + "/db"
	tr.must(os.Mkdir(d.dir, 0o700))
	tr.must(d.write("busy"))
	o := Options{Paths: []string{tr.path("src"), v.Dir}, ProviderOf: map[string]string{v.Dir: None}}
	_, err := tr.try(o)
	tr.wantCode(err, problem.NotApplication)
	tr.Applications.Policies = map[string]quiesce.Policy{"database": quiesce.Crash}
	rep, err := tr.try(o)
	tr.must(err)
	if a := rep.Applications[0]; a.AtRest || a.Code != problem.NotApplication || rep.Level != job.Live || rep.Status != job.CompleteWithExceptions || d.frozen != 0 {
		t.Errorf("%+v, frozen %d times", rep, d.frozen)
	}
	o.Application = true
	_, err = tr.try(o)
	tr.wantCode(err, problem.NotApplication)
	tr.nothingLeft()
}

// So it is where only something that is mounted among its files is read live.
func TestApplicationPartReadLive(t *testing.T) {
	tr, d := withDatabase(t)
	v := scratch.New(t, "ext4", 64*mib)
	part := d.dir + "/part"
	tr.must(os.Mkdir(part, 0o700))
	scratch.Run(t, "mount", v.Devices[0], part)
	t.Cleanup(func() { scratch.Run(t, "umount", part) })
	o := Options{ProviderOf: map[string]string{part: None}}
	_, err := tr.try(o)
	tr.wantCode(err, problem.NotApplication)
	o.Exclude = []string{part}
	rep, err := tr.try(o)
	tr.must(err)
	if rep.Level != job.Application {
		t.Errorf("without the part: %+v", rep)
	}
}

// What a policy leaves out may be a mount: one volume at a time, too, the one above
// it is stored.
func TestApplicationOnMountLeftOut(t *testing.T) {
	tr, d := withDatabase(t)
	v := scratch.New(t, "ext4", 64*mib)
	scratch.Run(t, "mount", v.Devices[0], d.dir)
	t.Cleanup(func() { scratch.Run(t, "umount", d.dir) })
	tr.must(d.write("busy"))
	d.check = problem.Newf(problem.WriterFailed, "", "never")
	tr.Applications.Policies = map[string]quiesce.Policy{"database": quiesce.Exclude}
	rep, err := tr.try(Options{OneAtATime: true})
	tr.must(err)
	tr.wantStatus(rep, job.CompleteWithExceptions, problem.WriterFailed)
	tr.nothingLeft()
}

// Where not all could be looked for, no volume is said to be of level application: not
// the one whose database was at rest, nor one without any.
func TestApplicationsMissedOneAtATime(t *testing.T) {
	tr, d := withDatabase(t)
	v := scratch.New(t, "ext4", 64*mib)
	scratch.Run(t, "mount", v.Devices[0], d.dir)
	t.Cleanup(func() { scratch.Run(t, "umount", d.dir) })
	tr.must(d.write("busy"))
	rep, err := tr.try(Options{OneAtATime: true})
	tr.must(err)
	if rep.Level != job.Application {
		t.Errorf("all were looked for: %+v", rep)
	}
	tr.Applications.Writers = append(tr.Applications.Writers, silent{d})
	rep, err = tr.try(Options{OneAtATime: true})
	tr.must(err)
	if rep.Level == job.Application {
		t.Errorf("not all were looked for: %+v", rep)
	}
	if w := rep.Warnings; len(w) != 1 || w[0].Code != problem.WriterTimeout || !strings.Contains(w[0].Text, "not brought to rest: looking for database: no answer") {
		t.Errorf("warned of %+v", w)
	}
}

// A silent writer does not say what there is.
type silent struct{ *database }

func (silent) Discover(context.Context, writer.Scope) ([]writer.Instance, error) {
	return nil, problem.Newf(problem.WriterTimeout, "", "no answer")
}

// Where nothing is found there is nothing to demand.
func TestNoApplication(t *testing.T) {
	tr := newTrial(t, fake.Options{})
	if _, err := tr.try(Options{Application: true}); !problem.Is(err, problem.NotApplication) {
		t.Errorf("demanded: %v", err)
	}
	rep, err := tr.try(Options{})
	tr.must(err)
	if rep.Level == job.Application || len(rep.Applications) != 0 {
		t.Errorf("%+v", rep)
	}
}
