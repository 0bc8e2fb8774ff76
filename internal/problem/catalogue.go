package problem

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

//go:embed catalogue/*.md
var catalogue embed.FS

// A Page explains one code to the administrator who met it.
type Page struct {
	Code      Code
	Title     string    // one sentence
	Text      string    // the whole page, as Markdown
	Sections  []Section // in the order of the page
	Elsewhere []Elsewhere
}

// A Section is one part of a page.
type Section struct {
	Name string // "What happened"
	Text string
}

// Elsewhere is what another backup system calls the same failure.
type Elsewhere struct {
	System  string   // "Backup Exec", "VSS", "ActiveImage Protector"
	Codes   []string // numbers and names, as that system shows them
	Meaning string
}

// elsewhereName is the one section a page may do without.
const elsewhereName = "Elsewhere"

// Pages returns the catalogue, sorted by code.
func Pages() []Page {
	names, err := fs.Glob(catalogue, "catalogue/*.md")
	if err != nil {
		panic(err) // only a malformed pattern makes Glob fail
	}
	pages := make([]Page, 0, len(names))
	for _, name := range names {
		text, err := catalogue.ReadFile(name)
		if err != nil {
			panic(err) // the file is part of the program
		}
		pages = append(pages, parsePage(string(text)))
	}
	slices.SortFunc(pages, func(a, b Page) int { return strings.Compare(string(a.Code), string(b.Code)) })
	return pages
}

// Find returns the page of a code of ours, or the one that says it means the
// same as the given code of another system: "snapshot-failed",
// "V-79-57344-34110", "0xe000853e", "VSS_E_PROVIDER_VETO". Case does not
// matter.
func Find(name string) (Page, bool) {
	pages := Pages()
	wanted := strings.ToLower(strings.TrimSpace(name))
	for _, p := range pages {
		if string(p.Code) == wanted {
			return p, true
		}
	}
	wanted = foreign(wanted)
	for _, p := range pages {
		for _, e := range p.Elsewhere {
			for _, code := range e.Codes {
				if foreign(code) == wanted {
					return p, true
				}
			}
		}
	}
	return Page{}, false
}

// Document is the whole catalogue as one Markdown text: doc/errors.md.
func Document() string {
	var b strings.Builder
	b.WriteString(`# Errors

<!-- Made from internal/problem/catalogue by "go test ./internal/problem -update". Do not edit. -->

Whatever goes wrong has a code, a lasting word. ` + "`stillpoint explain CODE`" + ` prints its page; it also knows the codes of
other backup systems that mean the same. The pages are here in the order of the alphabet.

| code | |
|---|---|
`)
	pages := Pages()
	for _, p := range pages {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", p.Code, p.Code, p.Title)
	}
	for _, p := range pages {
		// The heading is the bare code, so that links to it last when the
		// title is reworded.
		fmt.Fprintf(&b, "\n## %s\n\n**%s**\n", p.Code, sentence(p.Title))
		for _, s := range p.Sections {
			fmt.Fprintf(&b, "\n### %s\n\n%s\n", s.Name, s.Text)
		}
	}
	return b.String()
}

func sentence(s string) string {
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// parsePage reads a page in the form that the tests hold all pages to.
func parsePage(text string) Page {
	head, rest, _ := strings.Cut(text, "\n")
	code, title, _ := strings.Cut(strings.TrimPrefix(head, "# "), ": ")
	p := Page{Code: Code(code), Title: title, Text: text}
	for i, part := range strings.Split("\n"+rest, "\n## ") {
		if i == 0 {
			continue // nothing stands between the title and the first section
		}
		name, body, _ := strings.Cut(part, "\n")
		s := Section{Name: name, Text: strings.Trim(body, "\n")}
		p.Sections = append(p.Sections, s)
		if name == elsewhereName {
			p.Elsewhere = parseElsewhere(s.Text)
		}
	}
	return p
}

// parseElsewhere reads lines such as "- `CODE` `CODE` System: meaning".
func parseElsewhere(text string) []Elsewhere {
	var all []Elsewhere
	for line := range strings.Lines(text) {
		var e Elsewhere
		rest := strings.TrimPrefix(strings.TrimSpace(line), "- ")
		for {
			code, after, found := strings.Cut(strings.TrimPrefix(rest, "`"), "`")
			if !found || !strings.HasPrefix(rest, "`") {
				break
			}
			e.Codes = append(e.Codes, code)
			rest = strings.TrimSpace(after)
		}
		e.System, e.Meaning, _ = strings.Cut(rest, ": ")
		all = append(all, e)
	}
	return all
}

// foreign brings a code of another system to one form. Backup Exec writes the
// same 32 bits as 0xHHHHLLLL and, in its logs, as V-79-H-L with the decimal
// values of the two halves (checked on four documented pairs: e000fedd,
// e000120f, e000c030, e0000f22).
func foreign(code string) string {
	code = strings.ToLower(strings.TrimSpace(code))
	if rest, ok := strings.CutPrefix(code, "v-79-"); ok {
		high, low, _ := strings.Cut(rest, "-")
		h, errHigh := strconv.ParseUint(high, 10, 16)
		l, errLow := strconv.ParseUint(low, 10, 16)
		if errHigh == nil && errLow == nil {
			return fmt.Sprintf("%08x", h<<16|l)
		}
	}
	return strings.TrimPrefix(code, "0x")
}
