package postgres

import (
	"context"
	"os"
	"testing"
	"time"

	"stillpoint/internal/writer"
	"stillpoint/internal/writer/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Tidy(m).Run()) }

// A cluster is a server of a test.
type cluster struct{ *servertest.PostgreSQL }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts a cluster of its own for a test. Where apart is set, WAL and a
// tablespace "side" are in directories of their own.
func start(t testing.TB, apart bool) *cluster {
	t.Helper()
	c := &cluster{servertest.NewPostgreSQL(t)}
	c.Create()
	if apart {
		c.MoveWAL(c.Dir + "/wal")
		c.Run("/bin/mkdir", c.Dir+"/side")
	}
	c.Serve()
	if apart {
		c.Must("CREATE TABLESPACE side LOCATION '" + c.Dir + "/side'")
	}
	return c
}

// As the checks of all writers want it.

func (c *cluster) ID() string          { return name + ":" + c.Dir + ":5432" }
func (c *cluster) Scope() writer.Scope { return writer.Scope{} }

func (c *cluster) Write(ctx context.Context) error {
	_, err := c.DB.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS written (); INSERT INTO written DEFAULT VALUES")
	return err
}

// instance finds it.
func (c *cluster) instance(o Options) writer.Instance {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
	defer cancel()
	all, err := New(o).Discover(ctx, writer.Scope{})
	must(c, err)
	for _, in := range all {
		if in.About().ID == c.ID() {
			return in
		}
	}
	c.Fatalf("%s is not found", c.ID())
	return nil
}

// soon is a context that is generous.
func (c *cluster) soon() context.Context {
	ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
	c.Cleanup(cancel)
	return ctx
}
