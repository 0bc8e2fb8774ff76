package job

import (
	"encoding/json"
	"strings"
	"testing"

	"stillpoint/internal/problem"
)

// A subject that is no Unicode comes back as it was.
func TestConcern(t *testing.T) {
	for _, want := range []Concern{{problem.SwapSelected, "/a\xff", "is a swap file"}, {problem.ClockWrong, "", "was set back"}} {
		b, err := json.Marshal(want)
		must(t, err)
		var got Concern
		must(t, json.Unmarshal(b, &got))
		if got != want {
			t.Errorf("%s is read as %+v", b, got)
		}
		if has := strings.Contains(string(b), "subject"); has != (want.Subject != "") {
			t.Errorf("got %s", b)
		}
	}
}
