package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// timed runs a capture in which the n-th step goes wrong and returns what was
// told of its steps. That is told once, when nothing is held any more.
func timed(t *testing.T, at int, how string) (h *host, all []Step) {
	told := 0
	h, _ = run(t, at, how, func(p *Plan) {
		hush := p.Hush
		hushed := false
		p.Hush = func(on bool) {
			hushed = on
			if hush != nil {
				hush(on)
			}
		}
		p.Timed = func(s []Step) {
			told++
			all = s
			if hushed {
				t.Error("told while something is held")
			}
		}
	})
	if told != 1 {
		t.Errorf("told %d times", told)
	}
	return h, all
}

func TestTimed(t *testing.T) {
	good, all := timed(t, 0, "")
	seen := map[string]int{}
	for _, s := range all {
		seen[s.What+" "+s.Provider+s.Instance]++
		if s.Failed || s.Began.IsZero() {
			t.Errorf("%+v", s)
		}
		if s.Provider != "" && fmt.Sprint(s.Volumes) != map[string]string{"cow": "[a b]", "btrfs": "[c]"}[s.Provider] {
			t.Errorf("volumes of %+v", s)
		}
	}
	want := map[string]int{"quiet ": 1}
	for _, who := range []string{"cow", "btrfs"} {
		for _, what := range []string{"prepare", "ready", "hold", "commit", "resume"} {
			want[what+" "+who] = 1
		}
	}
	for _, who := range []string{"pg", "redis"} {
		for _, what := range []string{"prepare", "freeze", "rest", "thaw"} {
			want[what+" "+who] = 1
		}
	}
	if !maps.Equal(seen, want) {
		t.Errorf("steps %v, want %v", seen, want)
	}

	at := slices.Index(good.trace, "commit btrfs") + 1
	_, all = timed(t, at, "hang")
	i := slices.IndexFunc(all, func(s Step) bool { return s.What == "commit" })
	if i < 0 || !all[i].Failed || all[i].Took != testHold {
		t.Errorf("a commit that hangs: %+v", all)
	}
	rest := slices.IndexFunc(all, func(s Step) bool { return s.What == "rest" && s.Instance == "pg" })
	if rest < 0 || all[rest].Took < testHold || all[rest].Took > testWindow {
		t.Errorf("the rest meanwhile: %+v", all)
	}
	// However it goes wrong, it is told what was done.
	for at := 1; at <= len(good.trace); at++ {
		for _, how := range []string{"fail", "cancel", "deaf"} {
			if strings.HasPrefix(good.trace[at-1], "intend") || strings.HasPrefix(good.trace[at-1], "release") {
				continue
			}
			if _, all := timed(t, at, how); len(all) == 0 || slices.ContainsFunc(all, func(s Step) bool { return s.Took > time.Hour }) {
				t.Errorf("%s %s: %+v", good.trace[at-1], how, all)
			}
		}
	}
}
