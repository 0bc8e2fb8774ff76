package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"stillpoint/internal/problem"
	"stillpoint/internal/tool"
)

// consoleOf has a console whose commands answer so.
func consoleOf(run func(ctx context.Context, name string, args ...string) ([]byte, error)) *console {
	c := newConsole()
	c.run, c.alter = run, run
	return c
}

// When a command does not end, no other is run: not even by who waits already.
func TestStuck(t *testing.T) {
	ran := 0
	c := consoleOf(func(context.Context, string, ...string) ([]byte, error) {
		ran++
		return nil, &tool.Error{Command: []string{"lvs"}, Code: -1, Err: fmt.Errorf("%w; %w as process 7", context.DeadlineExceeded, tool.ErrStuck)}
	})
	p := &Provider{console: c}
	for range 3 {
		if _, err := p.console.list(t.Context()); problem.CodeOf(err) != problem.LVMStuck {
			t.Errorf("got %v, want lvm-stuck", err)
		}
	}
	if ran != 1 {
		t.Errorf("%d commands were run", ran)
	}
}

// A command that changes something is not ended with who wanted it.
func TestToItsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := consoleOf(func(ctx context.Context, name string, _ ...string) ([]byte, error) {
		cancel()
		return []byte(name), ctx.Err()
	})
	if out, err := c.change(ctx, "lvcreate"); err != nil || string(out) != "lvcreate" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := c.change(ctx, "lvcreate"); !errors.Is(err, context.Canceled) {
		t.Errorf("begun for nobody: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	if _, err := c.command(ctx, "lvs"); !errors.Is(err, context.Canceled) {
		t.Errorf("one that only looks: %v", err)
	}
}

// Commands are run one after the other, and who cannot wait is let go.
func TestOneByOne(t *testing.T) {
	begun, end := make(chan bool), make(chan bool)
	c := consoleOf(func(context.Context, string, ...string) ([]byte, error) {
		begun <- true
		<-end
		return []byte(`{"report":[{"lv":[]}]}`), nil
	})
	first := make(chan error)
	go func() {
		_, err := c.list(t.Context())
		first <- err
	}()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error)
	go func() {
		_, err := c.list(ctx)
		second <- err
	}()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("who did not wait: %v", err)
	}
	close(end)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestFailures(t *testing.T) {
	for _, one := range []struct {
		err  error
		want problem.Code
	}{
		{fs.ErrNotExist, problem.NoProvider},
		{errors.New("exit status 5"), problem.Uncatalogued}, // the caller knows what it means
	} {
		c := consoleOf(func(context.Context, string, ...string) ([]byte, error) { return nil, &tool.Error{Err: one.err} })
		if _, err := c.list(t.Context()); problem.CodeOf(err) != one.want {
			t.Errorf("%v: %v, want %s", one.err, err, one.want)
		}
	}
	c := consoleOf(func(context.Context, string, ...string) ([]byte, error) { return []byte("no JSON"), nil })
	if _, err := c.list(t.Context()); problem.CodeOf(err) != problem.SnapshotFailed {
		t.Errorf("a report that cannot be read: %v", err)
	}
}

// lvs has one line for each segment of a volume.
func TestReport(t *testing.T) {
	c := consoleOf(func(context.Context, string, ...string) ([]byte, error) {
		return []byte(`{"report":[{"lv":[
			{"vg_name":"vg","lv_name":"a","lv_uuid":"1","segtype":"linear","thin_id":""},
			{"vg_name":"vg","lv_name":"a","lv_uuid":"1","segtype":"striped"},
			{"vg_name":"vg","lv_name":"b","lv_uuid":"2","segtype":"thin","thin_id":"7","pool_lv":"pool","lv_tags":"x,stillpoint"}
		]}]}`), nil
	})
	lvs, err := c.list(t.Context())
	if err != nil || len(lvs) != 2 || lvs[1].Thin != "7" || !lvs[1].tagged() || lvs[0].tagged() {
		t.Errorf("%+v, %v", lvs, err)
	}
}
