package problem_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"stillpoint/internal/problem"
)

func TestCodeOf(t *testing.T) {
	plain := errors.New("plain")
	inner := problem.New(problem.SnapshotFull, "/srv", plain)
	outer := problem.New(problem.SnapshotFailed, "set", fmt.Errorf("commit: %w", inner))
	for name, c := range map[string]struct {
		err  error
		want problem.Code
	}{
		"nil":                        {nil, ""},
		"without a code":             {plain, problem.Uncatalogued},
		"wrapped without a code":     {fmt.Errorf("a: %w", plain), problem.Uncatalogued},
		"bare":                       {inner, problem.SnapshotFull},
		"wrapped":                    {fmt.Errorf("freeze %s: %w", "/srv", inner), problem.SnapshotFull},
		"innermost wins":             {fmt.Errorf("run: %w", outer), problem.SnapshotFull},
		"no cause":                   {problem.New(problem.Busy, "x", nil), problem.Busy},
		"joined, first wins":         {errors.Join(inner, problem.New(problem.Busy, "", nil)), problem.SnapshotFull},
		"joined, first has no code":  {errors.Join(plain, problem.New(problem.Busy, "", nil)), problem.Busy},
		"joined, none has":           {errors.Join(plain, plain), problem.Uncatalogued},
		"join within a problem":      {problem.New(problem.Busy, "", errors.Join(plain, outer)), problem.SnapshotFull},
		"join within, none has":      {problem.New(problem.Busy, "", errors.Join(plain, plain)), problem.Busy},
		"two %w":                     {fmt.Errorf("%w and %w", plain, inner), problem.SnapshotFull},
		"explicitly uncatalogued":    {problem.New(problem.Uncatalogued, "", inner), problem.SnapshotFull},
		"uncatalogued within a code": {problem.New(problem.Busy, "", problem.New(problem.Uncatalogued, "", nil)), problem.Uncatalogued},
	} {
		if got := problem.CodeOf(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestIs(t *testing.T) {
	inner := problem.New(problem.SnapshotFull, "/srv", fs.ErrClosed)
	outer := problem.New(problem.SnapshotFailed, "set", fmt.Errorf("commit: %w", inner))
	joined := errors.Join(errors.New("plain"), problem.New(problem.Busy, "", nil), outer)
	for name, c := range map[string]struct {
		err  error
		code problem.Code
		want bool
	}{
		"nil":                     {nil, problem.Busy, false},
		"plain":                   {fs.ErrClosed, problem.Uncatalogued, false},
		"itself":                  {inner, problem.SnapshotFull, true},
		"another":                 {inner, problem.Busy, false},
		"outer":                   {fmt.Errorf("run: %w", outer), problem.SnapshotFailed, true},
		"inner":                   {fmt.Errorf("run: %w", outer), problem.SnapshotFull, true},
		"second branch of a join": {joined, problem.Busy, true},
		"last branch of a join":   {fmt.Errorf("x: %w", joined), problem.SnapshotFull, true},
		"in no branch of a join":  {joined, problem.NoProvider, false},
		"below an empty join":     {errors.Join(nil, nil), problem.Busy, false},
		"problem without a cause": {problem.New(problem.Busy, "", nil), problem.SnapshotFull, false},
		"join below a problem":    {problem.New(problem.Usage, "", joined), problem.SnapshotFailed, true},
	} {
		if got := problem.Is(c.err, c.code); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if !errors.Is(outer, fs.ErrClosed) {
		t.Error("the cause is not reachable")
	}
}

func TestErrorText(t *testing.T) {
	cause := errors.New("no space left on device")
	for want, p := range map[string]*problem.Problem{
		"/srv: no space left on device":         problem.New(problem.SnapshotFull, "/srv", cause),
		"no space left on device":               problem.New(problem.SnapshotFull, "", cause),
		"/srv":                                  problem.New(problem.SnapshotFull, "/srv", nil),
		"snapshot-full":                         problem.New(problem.SnapshotFull, "", nil),
		"/srv: 3 of 4: no space left on device": problem.Newf(problem.SnapshotFull, "/srv", "%d of %d: %w", 3, 4, cause),
	} {
		if got := p.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if p := problem.Newf(problem.SnapshotFull, "/srv", "made: %w", cause); !errors.Is(p, cause) {
		t.Error("Newf lost its cause")
	}
}

func TestText(t *testing.T) {
	open := &fs.PathError{Op: "open", Path: "/a", Err: errors.New("denied")}
	other := &fs.PathError{Op: "open", Path: "/b", Err: errors.New("denied")}
	two := errors.Join(errors.New("one"), problem.New(problem.Busy, "/b", errors.New("two")))
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"nil":                   {nil, ""},
		"plain":                 {errors.New("plain"), "plain"},
		"path once":             {problem.New(problem.Busy, "/a", open), "/a: open: denied"},
		"path once, wrapped":    {problem.New(problem.Busy, "/a", fmt.Errorf("look: %w", open)), "/a: look: open: denied"},
		"path of another":       {problem.New(problem.Busy, "/a", other), "/a: open /b: denied"},
		"subject once":          {problem.New(problem.Busy, "/a", problem.New(problem.Busy, "/a", open)), "/a: open: denied"},
		"joined":                {two, "one\n/b: two"},
		"joined, wrapped":       {fmt.Errorf("undo: %w", problem.New(problem.Busy, "x", two)), "undo: x: one\nundo: x: /b: two"},
		"joined twice":          {errors.Join(two, errors.Join(errors.New("three"))), "one\n/b: two\nthree"},
		"the same twice":        {errors.Join(open, open), "open /a: denied"},
		"several causes":        {fmt.Errorf("%w and %w", open, other), "open /a: denied and open /b: denied"},
		"a newline in a name":   {problem.New(problem.Busy, "/a\nb", errors.New("x")), `/a\nb: x`},
		"newlines, joined":      {errors.Join(errors.New("a\nb"), errors.New("c")), "a\\nb\nc"},
		"text of a new wording": {fmt.Errorf("%w: %s", errors.New("interrupt"), "x"), "interrupt: x"},
	} {
		if got := problem.Text(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
