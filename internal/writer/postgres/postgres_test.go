package postgres

import (
	"net"
	"os"
	"slices"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/writertest"
)

func TestWriter(t *testing.T) {
	writertest.Run(t, writertest.Host{
		New:   func(testing.TB) writer.Writer { return New(Options{}) },
		Start: func(t testing.TB) writertest.App { return start(t, false) },
	})
}

// A server is found once, by whatever socket, with all places that hold its
// data; what is left of one that ended is not.
func TestDiscover(t *testing.T) {
	c := start(t, true)
	about := c.instance(Options{}).About()
	if want := []string{c.Data, c.Dir + "/wal", c.Dir + "/side"}; !slices.Equal(about.Paths, want) {
		t.Errorf("paths %q, want %q", about.Paths, want)
	}
	var version string
	must(t, c.DB.QueryRow("SHOW server_version").Scan(&version))
	if about.Version != version {
		t.Errorf("version %q, want %q", about.Version, version)
	}
	other := c.Owned("pg-")
	c.Stop()
	c.Serve("-k", c.Dir+","+other)
	ids := func(o Options) (ours []string) {
		all, err := New(o).Discover(c.soon(), writer.Scope{})
		must(t, err)
		for _, in := range all {
			if slices.Contains([]string{c.ID(), name + ":" + other + ":5432"}, in.About().ID) {
				ours = append(ours, in.About().ID)
			}
		}
		return ours
	}
	if got := ids(Options{Directories: []string{other}}); len(got) != 1 {
		t.Errorf("with two sockets: %q", got)
	}
	c.Stop()
	must(t, os.WriteFile(other+"/.s.PGSQL.5432", nil, 0o600))
	if got := ids(Options{Directories: []string{other, c.Dir}}); len(got) != 0 {
		t.Errorf("after its end: %q", got)
	}
}

// Who makes a socket, and says beside it that it is a server's, does not hide
// where that one is.
func TestImpostor(t *testing.T) {
	c := start(t, false)
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/.s.PGSQL.5432")
	must(t, err)
	defer l.Close()
	lock, err := os.ReadFile(c.Dir + "/.s.PGSQL.5432.lock")
	must(t, err)
	must(t, os.WriteFile(dir+"/.s.PGSQL.5432.lock", lock, 0o644))
	list, err := New(Options{Directories: []string{dir}}).(*postgres).servers()
	must(t, err)
	found := false
	for _, s := range list {
		if s.host == dir && s.data != "" {
			t.Errorf("the impostor has %s", s.data)
		}
		found = found || s.host == c.Dir && s.data == c.Data
	}
	if !found {
		t.Errorf("the server is not found: %+v", list)
	}
}

// A server that was named is connected to as it was named, found or not.
func TestDSN(t *testing.T) {
	c := start(t, false)
	c.Must("CREATE ROLE clerk LOGIN SUPERUSER")
	in := c.instance(Options{DSN: "host=" + c.Dir + " user=clerk dbname=postgres"})
	must(t, in.Check(c.soon()))
	c.Must("ALTER ROLE clerk NOSUPERUSER")
	want(t, in.Check(c.soon()), problem.WriterRights, writer.NotRetryable)
	c.Must("ALTER ROLE clerk SUPERUSER")
	w := &postgres{Options{Database: "postgres"}}
	s, err := byDSN("host=" + c.Dir + " user=clerk dbname=postgres")
	must(t, err)
	if got := w.instance(c.soon(), s); got.at.data != c.Data {
		t.Errorf("it is asked for its data directory, and that is %q", got.at.data)
	}
	if got := in.About().Paths; !slices.Equal(got, []string{c.Data}) {
		t.Errorf("paths %q", got)
	}
	for _, one := range []bool{true, false} {
		s, err := in.Prepare(c.soon(), writer.Need{OneInstant: one})
		must(t, err)
		must(t, s.Freeze(c.soon()))
		_, err = s.Thaw(c.soon())
		must(t, err)
	}
	if _, err := New(Options{DSN: "host=x port=y"}).Discover(c.soon(), writer.Scope{}); err == nil {
		t.Error("a DSN that is none")
	}
}
