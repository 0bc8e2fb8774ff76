package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"stillpoint/internal/agent"
	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/openfile"
	"stillpoint/internal/writer/script"
	"stillpoint/internal/writer/servertest"
	"stillpoint/internal/writer/sqlite"
)

func TestMain(m *testing.M) {
	guard.Main(duties()...)
	sqlite.Main()
	script.Main()
	holder.Main()
	agent.Main(newCow)
	openfile.Main()
	testscript.Main(faulty.with(servertest.Tidy(provoked{m})), map[string]func(){"stillpoint": recorded, "scanner": scanner, "ahead": ahead, "silent": silent, "vandal": vandal, "stuck": stuck})
}

// TestScripts runs the command line as users do; see testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("STILLPOINT_REPO", e.WorkDir+"/repo")
			e.Setenv("STILLPOINT_PASSWORD", "a secret")
			e.Setenv("STILLPOINT_STATE", e.WorkDir+"/state")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  cmdExits,
			"fields": cmdFields,
		},
	})
}

// cmdExits runs a program that must end with this code: exits 2 stillpoint …
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if x := (*exec.ExitError)(nil); errors.As(err, &x) {
		got = x.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exits with %d, not %d", got, want)
	}
}

// cmdFields prints the paths of all fields of the JSON in a file, sorted, to
// the file fields: what scripts of users may rely on.
func cmdFields(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fields FILE")
	}
	var v any
	d := json.NewDecoder(bytes.NewReader([]byte(ts.ReadFile(args[0]))))
	ts.Check(d.Decode(&v))
	if d.More() {
		ts.Fatalf("%s holds more than one value", args[0])
	}
	var names []string
	walkJSON("", v, func(path string) { names = append(names, path) })
	sort.Strings(names)
	names = slices.Compact(names)
	ts.Check(os.WriteFile(ts.MkAbs("fields"), []byte(strings.Join(names, "\n")+"\n"), 0o600))
}

func walkJSON(path string, v any, see func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			p := strings.TrimPrefix(path+"."+k, ".")
			see(fmt.Sprintf("%s %s", p, kindOf(e)))
			walkJSON(p, e, see)
		}
	case []any:
		for _, e := range v {
			walkJSON(path+"[]", e, see)
		}
	}
}

func kindOf(v any) string {
	switch v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	}
	return "null"
}
