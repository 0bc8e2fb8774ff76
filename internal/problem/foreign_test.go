package problem_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stillpoint/internal/problem"
)

// A fact is a code of another system as the collected facts have it.
type fact struct {
	system    string
	here      problem.Code
	spellings []string
}

func facts(t *testing.T) (all []fact) {
	t.Helper()
	b, err := os.ReadFile("testdata/foreign.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		all = append(all, fact{columns[0], problem.Code(strings.TrimPrefix(columns[1], "-")), columns[2:]})
	}
	if len(all) < 80 {
		t.Fatalf("only %d codes", len(all))
	}
	return all
}

// forms are the ways in which people write a code.
func forms(code string) []string {
	all := []string{code, strings.ToLower(code), strings.ToUpper(code), " " + code + "\n", "(" + code + ")", "'" + code + "'"}
	if n, err := strconv.ParseUint(code, 0, 32); err == nil && strings.HasPrefix(code, "0x") {
		bare := code[2:]
		all = append(all, bare, strings.ToLower(bare), "0X"+bare, code+"L",
			strconv.FormatUint(n, 10), strconv.FormatInt(int64(int32(n)), 10))
		if len(bare) == 8 {
			all = append(all, fmt.Sprintf("V-79-%d-%d", n>>16, n&0xffff), "Writer Failure code: "+code+" (some words)")
		}
	}
	if strings.HasPrefix(code, "V-") {
		all = append(all, "UMI: "+code, "V79-"+code[5:], "refer to link "+code+" for more")
	}
	if strings.HasPrefix(code, "VSS_") {
		_, name, _ := strings.Cut(code[4:], "_")
		all = append(all, name, strings.ReplaceAll(code, "_", " "), "- Error text: "+code)
	}
	if strings.HasPrefix(code, "-") {
		all = append(all, "Exit Code: "+code)
	}
	return all
}

func TestEveryForeignCodeIsExplained(t *testing.T) {
	for _, f := range facts(t) {
		for _, code := range f.spellings {
			for _, form := range forms(code) {
				a, ok := problem.Look(form)
				switch {
				case !ok || a.Foreign == nil:
					t.Errorf("%q is not known", form)
				case a.Foreign.System != f.system || a.Foreign.Here != f.here:
					t.Errorf("%q is %s of %s, want %q of %s", form, a.Foreign.Here, a.Foreign.System, f.here, f.system)
				case a.Rule != "":
					t.Errorf("%q is a guess: %s", form, a.Rule)
				case (a.Page == nil) != (f.here == "") || a.Page != nil && a.Page.Code != f.here:
					t.Errorf("%q leads to page %v", form, a.Page)
				}
			}
		}
	}
}

// What the program knows, the facts have, and each entry is whole.
func TestForeignCodesHaveTheirForm(t *testing.T) {
	var spelled []string
	for _, f := range facts(t) {
		spelled = append(spelled, f.spellings...)
	}
	codes := constants(t)
	for _, f := range problem.Known() {
		name := strings.Join(f.Codes, " ")
		if !slices.ContainsFunc(f.Codes, func(c string) bool { return slices.Contains(spelled, c) }) {
			t.Errorf("%s is in no fact", name)
		}
		if f.Meaning == "" || f.Why == "" || f.System == "" {
			t.Errorf("%s: meaning, system or reason is missing", name)
		}
		for _, text := range []string{f.Meaning, f.Remedy, f.Why} {
			if strings.HasSuffix(text, ".") {
				t.Errorf("%s: a text ends in a full stop: %s", name, text)
			}
		}
		for _, c := range append(slices.Clone(f.See), f.Here) {
			if c != "" && codes[c] == "" {
				t.Errorf("%s: %q is no code of ours", name, c)
			}
		}
		if slices.Contains(f.See, f.Here) {
			t.Errorf("%s: its counterpart is named twice", name)
		}
		switch f.Source {
		case problem.Documented, problem.Reported, problem.Named:
		case problem.Unknown:
			if f.Here != "" {
				t.Errorf("%s: a counterpart of what nobody knows", name)
			}
		default:
			t.Errorf("%s: no such source: %q", name, f.Source)
		}
	}
}

// The page of a counterpart names the code, and what it was.
func TestPagesNameTheirForeignCodes(t *testing.T) {
	for _, p := range problem.Pages() {
		last := p.Sections[len(p.Sections)-1].Text
		for _, f := range p.Elsewhere {
			for _, c := range f.Codes {
				if !strings.Contains(strings.Join(strings.Fields(last), " "), c) {
					t.Errorf("%s does not name %s", p.Code, c)
				}
			}
		}
		if len(p.Elsewhere) == 0 && last == "" {
			t.Errorf("%s: nothing about other systems", p.Code)
		}
	}
}

func TestLookByRule(t *testing.T) {
	for word, want := range map[string]problem.Code{
		"0xA000853E":       problem.SnapshotFailed, // 0xE000853E
		"V-79-40960-34110": problem.SnapshotFailed,
		"0xe000851c":       problem.CacheNowhere, // 0xA000851C
		"V-79-57344-34076": problem.CacheNowhere,
	} {
		a, ok := problem.Look(word)
		if !ok || a.Page == nil || a.Page.Code != want || a.Rule == "" {
			t.Errorf("%s: %+v", word, a)
		}
	}
	for _, word := range []string{"0x800423ff", "V-79-57344-1", "0xB000853E", "V-79-57344-99999", "V-79-70000-34110", "-312", "157", "0x457"} {
		if a, ok := problem.Look(word); ok {
			t.Errorf("%s: %+v", word, a.Foreign)
		}
	}
}

// Logs write codes with all sorts of signs around them.
func TestLookInLines(t *testing.T) {
	for _, line := range []string{
		"CreateSnapshot failed (hr=0x8004231f).",
		`{"hr":1,"code"=0x8004231F}`,
		"error;0x8004231F;while preparing",
		"<Data>0x8004231F</Data>",
		"hr = 'VSS_E_INSUFFICIENT_STORAGE', volume C",
	} {
		if a, ok := problem.Look(line); !ok || a.Page == nil || a.Page.Code != problem.SnapshotFull {
			t.Errorf("%s: %+v", line, a)
		}
	}
	for _, line := range []string{"copied 157 files [in 42 s] (busy=0)", "it is busy"} {
		if a, ok := problem.Look(line); ok {
			t.Errorf("%s: %+v", line, a)
		}
	}
	// Those of ours, and those of others before them.
	for line, want := range map[string]problem.Code{
		"warning: /swap is a swap file in use, of 7 MiB [swap-selected]": problem.SwapSelected,
		"see `stillpoint explain snapshot-full`":                         problem.SnapshotFull,
		"not-allowed, said the writer: 0x8004231f":                       problem.SnapshotFull,
	} {
		if a, ok := problem.Look(line); !ok || a.Page == nil || a.Page.Code != want {
			t.Errorf("%s: %+v", line, a)
		}
	}
}

// Pages on the web and in books have other hyphens than keyboards, and other quotes.
func TestLookWithDashes(t *testing.T) {
	for word, want := range map[string]problem.Code{
		"V\u201179\u201157344\u201134110":             problem.SnapshotFailed, // that do not break
		"\u201cV\u201379\u201357344\u201334110\u201d": problem.SnapshotFailed, // dashes
		"\u2212311":            problem.SnapshotFailed, // a minus
		"snapshot\u2010failed": problem.SnapshotFailed,
	} {
		if a, ok := problem.Look(word); !ok || a.Page == nil || a.Page.Code != want {
			t.Errorf("%s: %+v", word, a)
		}
	}
	if got := problem.Reading("V\u201379\u201357344\u201312345"); got != "0xE0003039" {
		t.Errorf("read as %q", got)
	}
}

func TestReading(t *testing.T) {
	for word, want := range map[string]string{
		"V-79-57344-12345": "0xE0003039", "v-79-57344-12345": "0xE0003039", "0xe0003039": "V-79-57344-12345", "A0003039": "V-79-40960-12345",
		"0x80042300": "", "-5": "", "busy": "", "": "", "V-79-57344-99999": "",
	} {
		if got := problem.Reading(word); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{
		"cache-ful":                 "cache-full",
		"cahce-full":                "cache-full",
		"snapshot":                  "snapshot-full",
		"0x800423ff":                "0x800423F",
		"V-79-57344-34111":          "V-79-57344-34110",
		"VSS_E_WRITERERROR_TIMOUT":  "VSS_E_WRITERERROR_TIMEOUT",
		"-312":                      "-311",
		"no-agents":                 "no-agent",
		"vss_e_provider_veto_again": "VSS_E_PROVIDER_VETO",
	} {
		got := problem.Nearest(word)
		if len(got) == 0 || len(got) > 5 || !slices.ContainsFunc(got, func(c string) bool { return strings.HasPrefix(c, want) }) {
			t.Errorf("%s: %q, want %s among them", word, got, want)
		}
	}
	for _, word := range []string{"", "xqzxqzxqzxqz"} {
		if got := problem.Nearest(word); len(got) != 0 {
			t.Errorf("%q: %q", word, got)
		}
	}
}

func TestSearch(t *testing.T) {
	pages, others := problem.Search("CACHE  file")
	if !slices.ContainsFunc(pages, func(p problem.Page) bool { return p.Code == problem.CacheFull }) {
		t.Error("cache-full is not found")
	}
	if !slices.ContainsFunc(others, func(f problem.Foreign) bool { return f.Codes[0] == "0xA000851C" }) {
		t.Error("0xA000851C is not found")
	}
	for _, words := range []string{"", "  ", "nothing-like-it-anywhere"} {
		if pages, others := problem.Search(words); pages != nil || others != nil {
			t.Errorf("%q is found", words)
		}
	}
}

// Every code is in one group, and every group has a name.
func TestGroups(t *testing.T) {
	seen := map[problem.Code]string{}
	for _, g := range problem.Groups() {
		for _, c := range g.Codes {
			if seen[c] != "" {
				t.Errorf("%s is in %s and in %s", c, seen[c], g.Name)
			}
			if seen[c] = g.Name; g.Name == "Others" {
				t.Errorf("%s is in no group of groups.go", c)
			}
		}
	}
	for c := range constants(t) {
		if seen[c] == "" {
			t.Errorf("%s is in no group", c)
		}
	}
}
