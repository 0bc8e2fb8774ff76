package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"stillpoint/internal/problem"
)

type explainOptions struct {
	search string
}

func newExplain(e *env) *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain [CODE...]",
		Short: "say what a code means for the backup, and what to do",
		Long: `Prints the page of a code: what happened, what it means for your backup, what to
do, how to check that it is cured, and what other systems call it. Without a
code all codes are listed.

It knows the codes of Backup Exec, of VSS and of ActiveImage Protector, too, in
any usual spelling, and says what each was there, and which of ours is its
counterpart. A whole line of a log will do, in quotes or not: the code in it is
found.`,
		Example: `  stillpoint explain
  stillpoint explain no-provider
  stillpoint explain V-79-57344-34110
  stillpoint explain 0x800423f2
  stillpoint explain -311
  stillpoint explain --search 'virus scanner'`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case c.Flags().Changed("search") && len(args) > 0:
				return problem.Newf(problem.Usage, "", "either a code or --search")
			case c.Flags().Changed("search"):
				return searchCodes(e, o.search)
			case len(args) > 0:
				return explainCode(e, strings.Join(args, " "))
			}
			return listCodes(e)
		},
	}
	c.Flags().StringVar(&o.search, "search", "", "list the codes whose pages have all of these words")
	jsonFlag(c, e)
	return c
}

// codesFirst keeps the codes that begin with a minus from being taken for flags:
// `explain -311`.
func codesFirst(args []string) []string {
	if len(args) == 0 || args[0] != "explain" || slices.Contains(args, "--") {
		return args
	}
	negative := regexp.MustCompile(`^-[0-9]+$`)
	var flags, codes []string
	for _, a := range args {
		if negative.MatchString(a) {
			codes = append(codes, a)
			continue
		}
		flags = append(flags, a)
	}
	if codes == nil {
		return args
	}
	return append(append(flags, "--"), codes...)
}

// pageInfo is one page in `explain --json`. A code of another system without a
// counterpart has only what it was there.
type pageInfo struct {
	Code  problem.Code `json:"code,omitempty"`
	Title string       `json:"title,omitempty"`
	Group string       `json:"group,omitempty"` // only in the list
	Text  string       `json:"text,omitempty"`  // Markdown; only of a single page
	Was   *foreignInfo `json:"was,omitempty"`   // where the word is a code of another system
}

// foreignInfo is a code of another system.
type foreignInfo struct {
	System  string         `json:"system"`
	Codes   []string       `json:"codes"`
	Meaning string         `json:"meaning"`
	Remedy  string         `json:"remedy,omitempty"`
	Source  problem.Source `json:"source"`
	Here    problem.Code   `json:"here,omitempty"` // empty if it has no counterpart
	See     []problem.Code `json:"see,omitempty"`
	Why     string         `json:"why"`
	Guess   string         `json:"guess,omitempty"` // the rule by which it was found, if it is not known as such
}

func foreignInfoOf(f problem.Foreign, guess string) *foreignInfo {
	return &foreignInfo{f.System, f.Codes, f.Meaning, f.Remedy, f.Source, f.Here, f.See, f.Why, guess}
}

func explainCode(e *env, word string) error {
	a, ok := problem.Look(word)
	if !ok {
		return noSuchCode(word)
	}
	if e.json {
		var info pageInfo
		if a.Page != nil {
			info = pageInfo{Code: a.Page.Code, Title: a.Page.Title, Text: a.Page.Text}
		}
		if a.Foreign != nil {
			info.Was = foreignInfoOf(*a.Foreign, a.Rule)
		}
		return e.print(info)
	}
	var b strings.Builder
	if a.Foreign != nil {
		b.WriteString(a.Said() + "\n")
	}
	if a.Page != nil {
		b.WriteString(a.Page.Text)
	}
	_, err := io.WriteString(e.stdout, b.String())
	return err
}

// noSuchCode is a word that nobody knows, with what looks like it.
func noSuchCode(word string) error {
	text := "no such code"
	if other := problem.Reading(word); other != "" {
		text += " is known; in its other form it is " + other
	}
	if near := problem.Nearest(word); len(near) > 0 {
		text += "; the nearest that are known: " + strings.Join(near, ", ")
	}
	return problem.Newf(problem.Usage, word, "%s; `stillpoint explain` lists all of ours, and --search WORD looks into the pages", text)
}

func listCodes(e *env) error {
	titles := map[problem.Code]string{}
	for _, p := range problem.Pages() {
		titles[p.Code] = p.Title
	}
	infos := []pageInfo{}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for i, g := range problem.Groups() {
		if i > 0 && !e.json {
			fmt.Fprintln(w)
		}
		if !e.json {
			fmt.Fprintf(w, "%s\n", g.Name)
		}
		for _, c := range g.Codes {
			infos = append(infos, pageInfo{Code: c, Title: titles[c], Group: g.Name})
			if !e.json {
				fmt.Fprintf(w, "  %s\t%s\n", c, titles[c])
			}
		}
	}
	if e.json {
		return e.print(infos)
	}
	return w.Flush()
}

func searchCodes(e *env, words string) error {
	pages, others := problem.Search(words)
	if len(pages) == 0 && len(others) == 0 {
		return problem.Newf(problem.Usage, words, "no page has all of these words")
	}
	infos := []pageInfo{}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, p := range pages {
		infos = append(infos, pageInfo{Code: p.Code, Title: p.Title})
		fmt.Fprintf(w, "%s\t%s\n", p.Code, p.Title)
	}
	for _, f := range others {
		infos = append(infos, pageInfo{Was: foreignInfoOf(f, "")})
		here := "no counterpart"
		if f.Here != "" {
			here = "here " + string(f.Here)
		}
		fmt.Fprintf(w, "%s\t%s: %s\n", f.Codes[0], f.System, here)
	}
	if e.json {
		return e.print(infos)
	}
	return w.Flush()
}
