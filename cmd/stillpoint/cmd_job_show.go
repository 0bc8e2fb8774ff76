package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
	"stillpoint/internal/problem"
)

func newJobShow(e *env) *cobra.Command {
	exceptions := false
	c := &cobra.Command{
		Use:   "show [ID]",
		Short: "print the report of a job, the newest without an id",
		Long: `Prints the report of a job, the newest without an id, with the first of its
exceptions. --exceptions prints all of them instead, one a line, and what rules left
out, of which the log keeps the first 1,000 names each.`,
		Example: `  stillpoint job show
  stillpoint job show 7k2m --json
  stillpoint job show 7k2m --report html >job.html
  stillpoint job show 7k2m --exceptions`,
		Args: between(0, 1, ""),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := e.onePrint(); err != nil {
				return err
			}
			j, err := loadJob(args)
			if err != nil {
				return err
			}
			dir, _, err := whichJob([]string{j.ID}, "")
			switch {
			case err != nil:
				return err
			case e.page.wanted && exceptions:
				return problem.Newf(problem.Usage, "--report html", "and --exceptions are two forms; give one")
			case e.page.wanted:
				return e.printPage(j.ID)
			case exceptions && e.json:
				return e.printExceptions(dir, j.ID)
			case exceptions:
				return job.EachException(dir, j.ID, func(x job.Exception) error { return text.Exception(e.stdout, x) })
			case e.json && j.Report == nil:
				return e.print(j.Summary)
			case e.json:
				return e.print(j.Report)
			}
			if err := e.printEnd(j.Summary, j.Report); err != nil {
				return err
			}
			return e.firstExceptions(dir, j.ID)
		},
	}
	addPage(c, e)
	c.Flags().BoolVar(&exceptions, "exceptions", false, "print every exception, with its reason and code")
	jsonFlag(c, e)
	return c
}

// exceptionsShown is how many exceptions a report shows to people.
const exceptionsShown = 20

// firstExceptions prints the first names that have a code.
func (e *env) firstExceptions(dir, id string) error {
	count := 0
	err := job.EachException(dir, id, func(x job.Exception) error {
		if x.Code == "" {
			return nil
		}
		if count++; count > exceptionsShown {
			return nil
		}
		if count == 1 {
			fmt.Fprintln(e.stdout, "\nNot as they were")
		}
		fmt.Fprint(e.stdout, "  ")
		return text.Exception(e.stdout, x)
	})
	if err == nil && count > exceptionsShown {
		_, err = fmt.Fprintf(e.stdout, "  and %d more: stillpoint job show %s --exceptions\n", count-exceptionsShown, id)
	}
	return err
}

// printExceptions prints all as a JSON list, one after the other.
func (e *env) printExceptions(dir, id string) error {
	between := "["
	err := job.EachException(dir, id, func(x job.Exception) error {
		b, err := json.Marshal(x)
		if err == nil {
			_, err = fmt.Fprintf(e.stdout, "%s\n  %s", between, b)
		}
		between = ","
		return err
	})
	if err != nil {
		return err
	}
	if between == "[" {
		_, err = fmt.Fprintln(e.stdout, "[]")
	} else {
		_, err = fmt.Fprintln(e.stdout, "\n]")
	}
	return err
}
