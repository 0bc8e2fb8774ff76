package doctor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"stillpoint/internal/problem"
)

// All checks are made at once, each within its time, and reported in their order.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		defer close(never)
		began := time.Now()
		fs := Run(t.Context(), []Check{
			{Name: "slow", Look: func(context.Context) ([]Finding, error) {
				time.Sleep(5 * time.Second)
				return []Finding{fine("slow")}, nil
			}},
			{Name: "late", Limit: time.Second, Look: func(ctx context.Context) ([]Finding, error) {
				<-ctx.Done()
				return []Finding{fine("some")}, ctx.Err()
			}},
			{Name: "deaf", Look: func(context.Context) ([]Finding, error) {
				<-never
				return nil, nil
			}},
			{Name: "odd", Look: func(context.Context) ([]Finding, error) { return nil, errors.New("odd") }},
			{Name: "denied", Look: func(context.Context) ([]Finding, error) {
				return nil, problem.Newf(problem.NotAllowed, "", "only root may")
			}},
		})
		if took := time.Since(began); took != usualLimit+grace {
			t.Errorf("took %s", took)
		}
		var got []string
		for _, f := range fs {
			got = append(got, f.Check+" "+string(f.Result)+" "+string(f.Code))
		}
		want := []string{"slow ok ", "late ok ", "late could not look look-failed", "deaf could not look look-failed", "odd could not look look-failed", "denied could not look not-allowed"}
		if len(got) != len(want) {
			t.Fatalf("got %q", got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("got %q, want %q", got[i], want[i])
			}
		}
		if Worst(fs) != Unknown {
			t.Errorf("the worst is %s", Worst(fs))
		}
	})
}

func TestWorst(t *testing.T) {
	if w := Worst(nil); w != NotApplicable {
		t.Errorf("of nothing the worst is %s", w)
	}
	if w := Worst([]Finding{{Result: Warning}, {Result: Failure}, {Result: Unknown}}); w != Failure {
		t.Errorf("the worst is %s", w)
	}
}

// What is mended is ok then; what could not be stays what it was.
func TestMend(t *testing.T) {
	mended := warned(problem.FolderWrong, "/a", "is open")
	mended.Mend = func(context.Context) (string, error) { return "closed", nil }
	not := warned(problem.FolderWrong, "/b", "is open")
	not.Mend = func(context.Context) (string, error) { return "", errors.New("why") }
	fs := []Finding{mended, not, warned(problem.PoolFull, "p", "is full")}
	Mend(t.Context(), fs)
	if fs[0].Result != OK || fs[0].Code != "" || fs[0].Mended != "closed" {
		t.Errorf("got %+v", fs[0])
	}
	says(t, fs[1:2], Warning, problem.FolderWrong, "/b", "could not be mended: why")
	says(t, fs[2:], Warning, problem.PoolFull)
}
