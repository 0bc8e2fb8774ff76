package problem_test

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stillpoint/internal/problem"
)

var update = flag.Bool("update", false, "write doc/errors.md anew")

// constants reads the codes from the source, so that none can be forgotten.
func constants(t *testing.T) map[problem.Code]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[problem.Code]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			typ, ok := spec.Type.(*ast.Ident)
			if !ok || typ.Name != "Code" {
				t.Errorf("%s is not declared as a Code", name)
				continue
			}
			text, err := strconv.Unquote(spec.Values[i].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			if other := codes[problem.Code(text)]; other != "" {
				t.Errorf("%s and %s are the same code %q", other, name, text)
			}
			codes[problem.Code(text)] = name.Name
		}
		return true
	})
	if len(codes) < 40 {
		t.Fatalf("only %d constants found in codes.go", len(codes))
	}
	return codes
}

func TestEveryCodeHasAPage(t *testing.T) {
	codes := constants(t)
	pages := map[problem.Code]bool{}
	for _, p := range problem.Pages() {
		pages[p.Code] = true
		if codes[p.Code] == "" {
			t.Errorf("the page of %q belongs to no constant in codes.go", p.Code)
		}
	}
	for code, name := range codes {
		if !pages[code] {
			t.Errorf("%s: catalogue/%s.md is missing", name, code)
		}
		if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(string(code)) {
			t.Errorf("%q is not made of lower-case words", code)
		}
	}
}

// pageFaults lists what is wrong with the form of a page.
func pageFaults(file string, p problem.Page) []string {
	var faults []string
	want := []string{"What happened", "What it means for your backup", "What to do", "How to check that it is cured", "What other systems call it"}
	var got []string
	for _, s := range p.Sections {
		got = append(got, s.Name)
		if s.Text == "" {
			faults = append(faults, "section "+s.Name+" is empty")
		}
	}
	if !slices.Equal(got, want) {
		faults = append(faults, "sections "+strings.Join(got, " | "))
	}
	if !strings.HasPrefix(p.Text, "# "+strings.TrimSuffix(file, ".md")+": ") {
		faults = append(faults, "first line is not # CODE: title")
	}
	if p.Title == "" || strings.HasSuffix(p.Title, ".") || strings.ToLower(p.Title[:1]) != p.Title[:1] {
		faults = append(faults, "title is not a bare lower-case sentence: "+p.Title)
	}
	if !strings.HasSuffix(p.Text, "\n") || strings.HasSuffix(p.Text, "\n\n") {
		faults = append(faults, "does not end in one newline")
	}
	for line := range strings.Lines(p.Text) {
		// A console is 80 wide; commands are never broken.
		if len(line) > 81 && !strings.HasPrefix(line, "    ") && !strings.HasPrefix(line, "- `") && !strings.HasPrefix(line, "# ") {
			faults = append(faults, "line too long: "+line)
		}
	}
	return faults
}

func TestPagesHaveTheirForm(t *testing.T) {
	entries, err := os.ReadDir("catalogue")
	if err != nil {
		t.Fatal(err)
	}
	pages := problem.Pages()
	if len(entries) != len(pages) {
		t.Fatalf("%d files, %d pages", len(entries), len(pages))
	}
	for _, p := range pages {
		for _, fault := range pageFaults(string(p.Code)+".md", p) {
			t.Errorf("%s: %s", p.Code, fault)
		}
	}
	if !slices.IsSortedFunc(pages, func(a, b problem.Page) int { return strings.Compare(string(a.Code), string(b.Code)) }) {
		t.Error("pages are not sorted")
	}
}

// A page that names a command or another code must not lead nowhere.
func TestPagesNameWhatExists(t *testing.T) {
	codes := constants(t)
	commands := "init|backup|backups|ls|restore|verify|volumes|providers|explain|job list|job show|job log|job retry|config check|config show|config example|clean|agent|agent status|snapshot create|snapshot list|snapshot mount|snapshot delete|run|version|writers|notify list|notify test|doctor|COMMAND"
	command := regexp.MustCompile(`stillpoint (` + commands + `)\b`)
	explain := regexp.MustCompile(`stillpoint explain ([a-z-]+)`)
	for _, p := range problem.Pages() {
		for _, code := range regexp.MustCompile("(?m)(?:`|^ +)(?:sudo )?stillpoint .*").FindAllString(p.Text, -1) {
			if !command.MatchString(code) && !strings.Contains(code, "stillpoint …") {
				t.Errorf("%s: no such command: %s", p.Code, code)
			}
		}
		for _, m := range explain.FindAllStringSubmatch(p.Text, -1) {
			if codes[problem.Code(m[1])] == "" {
				t.Errorf("%s: refers to %q, which is no code", p.Code, m[1])
			}
		}
	}
}

func TestFind(t *testing.T) {
	for name, want := range map[string]problem.Code{
		"busy":                   problem.Busy,
		" Snapshot-Failed\n":     problem.SnapshotFailed,
		"V-79-57344-34110":       problem.SnapshotFailed,
		"v-79-57344-34110":       problem.SnapshotFailed,
		"0xE000853E":             problem.SnapshotFailed,
		"e000853e":               problem.SnapshotFailed,
		"V-79-40960-34076":       problem.CacheNowhere, // the form of 0xA000851C that no file spells out
		"0x80042316":             problem.Busy,
		"vss_e_provider_veto":    problem.SnapshotFailed,
		"-311":                   problem.SnapshotFailed,
		"VSS_E_VOLUME_NOT_LOCAL": problem.VolumeNetwork,
	} {
		if p, ok := problem.Find(name); !ok || p.Code != want {
			t.Errorf("Find(%q) is %q, %v; want %q", name, p.Code, ok, want)
		}
	}
	for _, name := range []string{"", "nothing-like-it", "V-79-", "V-79-57344-99999", "0x", "busy.md", "../codes"} {
		if p, ok := problem.Find(name); ok {
			t.Errorf("Find(%q) found %s", name, p.Code)
		}
	}
}

func TestDocument(t *testing.T) {
	file := filepath.Join("..", "..", "doc", "errors.md")
	want := problem.Document()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("doc/errors.md is not what the catalogue says; run: go test ./internal/problem -update")
	}
}

// The check of the form must itself be able to fail.
func TestPageFaultsAreFound(t *testing.T) {
	good := problem.Pages()[0]
	file := string(good.Code) + ".md"
	if faults := pageFaults(file, good); faults != nil {
		t.Fatal(faults)
	}
	for name, spoil := range map[string]func(p *problem.Page){
		"missing section": func(p *problem.Page) { p.Sections = p.Sections[1:] },
		"empty section":   func(p *problem.Page) { p.Sections[0].Text = "" },
		"wrong code":      func(p *problem.Page) { p.Text = "# other: " + p.Title },
		"full stop":       func(p *problem.Page) { p.Title += "." },
		"no newline":      func(p *problem.Page) { p.Text = strings.TrimRight(p.Text, "\n") },
		"long line":       func(p *problem.Page) { p.Text += strings.Repeat("x", 90) + "\n" },
		"no last section": func(p *problem.Page) { p.Sections = p.Sections[:4] },
	} {
		p := good
		p.Sections = slices.Clone(good.Sections)
		spoil(&p)
		if pageFaults(file, p) == nil {
			t.Errorf("%s went unnoticed", name)
		}
	}
}
