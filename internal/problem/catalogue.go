package problem

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

//go:embed catalogue/*.md
var catalogue embed.FS

// A Page explains one code to the administrator who met it.
type Page struct {
	Code      Code
	Title     string    // one sentence
	Text      string    // the whole page, as Markdown
	Sections  []Section // in the order of the page
	Elsewhere []Foreign // codes of other systems whose counterpart it is
}

// A Section is one part of a page.
type Section struct {
	Name string // "What happened"
	Text string
}

// elsewhereName is the section that is made of what is known of other systems. A
// page may have it, with what there is to say besides.
const elsewhereName = "What other systems call it"

// Pages returns the catalogue, sorted by code.
func Pages() []Page { return slices.Clone(pages()) }

// pages are read once; nobody changes them.
var pages = sync.OnceValue(readPages)

func readPages() []Page {
	names, err := fs.Glob(catalogue, "catalogue/*.md")
	if err != nil {
		panic(err) // only a malformed pattern makes Glob fail
	}
	all, known := make([]Page, 0, len(names)), Known()
	for _, name := range names {
		text, err := catalogue.ReadFile(name)
		if err != nil {
			panic(err) // the file is part of the program
		}
		all = append(all, parsePage(string(text), known))
	}
	slices.SortFunc(all, func(a, b Page) int { return strings.Compare(string(a.Code), string(b.Code)) })
	return all
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
	b.WriteString(`
## Codes of other systems

What Backup Exec, NetBackup, VSS and ActiveImage Protector call a failure, and the counterpart here.
` + "`stillpoint explain`" + ` says why it is one, or why there is none.

| code | system | here |
|---|---|---|
`)
	for _, f := range Known() {
		here := "none"
		if f.Here != "" {
			here = fmt.Sprintf("[`%s`](#%s)", f.Here, f.Here)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", quoted(f.Codes), f.System, here)
	}
	return b.String()
}

func sentence(s string) string {
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// parsePage reads a page in the form that the tests hold all pages to, and adds
// the section about other systems.
func parsePage(text string, known []Foreign) Page {
	head, rest, _ := strings.Cut(text, "\n")
	code, title, _ := strings.Cut(strings.TrimPrefix(head, "# "), ": ")
	p := Page{Code: Code(code), Title: title}
	said := ""
	for i, part := range strings.Split("\n"+rest, "\n## ") {
		if i == 0 {
			continue // nothing stands between the title and the first section
		}
		name, body, _ := strings.Cut(part, "\n")
		body = strings.Trim(body, "\n")
		if name == elsewhereName {
			said = body
			continue
		}
		p.Sections = append(p.Sections, Section{Name: name, Text: body})
	}
	for _, f := range known {
		if f.Here == p.Code {
			p.Elsewhere = append(p.Elsewhere, f)
		}
	}
	p.Sections = append(p.Sections, Section{Name: elsewhereName, Text: elsewhere(p.Elsewhere, said)})
	p.Text = head + "\n"
	for _, s := range p.Sections {
		p.Text += "\n## " + s.Name + "\n\n" + s.Text + "\n"
	}
	return p
}
