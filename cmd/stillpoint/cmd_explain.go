package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"stillpoint/internal/problem"
)

func newExplain(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [CODE]",
		Short: "say what a code means for the backup, and what to do",
		Long: `Prints the page of a code: what happened, what it means for your backup, what to
do, and how to check that it is cured. Without a code all codes are listed.`,
		Example: `  stillpoint explain
  stillpoint explain no-provider`,
		Args: between(0, 1, ""),
		RunE: func(_ *cobra.Command, args []string) error { return runExplain(e, args) },
	}
	jsonFlag(c, e)
	return c
}

// pageInfo is one page in `explain --json`.
type pageInfo struct {
	Code  problem.Code `json:"code"`
	Title string       `json:"title"`
	Text  string       `json:"text,omitempty"` // Markdown; only of a single page
}

func runExplain(e *env, args []string) error {
	if len(args) == 1 {
		p, ok := problem.Find(args[0])
		if !ok {
			return problem.Newf(problem.Usage, args[0], "no such code; `stillpoint explain` lists all")
		}
		if e.json {
			return e.print(pageInfo{p.Code, p.Title, p.Text})
		}
		_, err := fmt.Fprint(e.stdout, p.Text)
		return err
	}
	infos := []pageInfo{}
	for _, p := range problem.Pages() {
		infos = append(infos, pageInfo{Code: p.Code, Title: p.Title})
	}
	if e.json {
		return e.print(infos)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, i := range infos {
		fmt.Fprintf(w, "%s\t%s\n", i.Code, i.Title)
	}
	return w.Flush()
}
