package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"stillpoint/internal/doctor"
	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

type doctorFlags struct {
	cache   cacheFlags
	exclude []string
	fix     bool
}

func newDoctor(e *env) *cobra.Command {
	var f doctorFlags
	c := &cobra.Command{
		Use:   "doctor [PATH...]",
		Short: "find what would keep a backup from succeeding, before it is tried",
		Long: `Looks at this host, and says of each check what it found, what that means for a
backup, and what to do. With paths it is about a backup of these; without, about
all volumes that one could take, which are looked at only.

It changes nothing. --fix does what is safe: it removes what killed runs left, and
makes the folder for the job logs, or closes it to others. What it did, it says.

The checks that concern a plan and are cheap are made at the beginning of each
backup, too: a failure ends it before anything is touched, a warning is in its
report.

Exit codes: 0 all is well; 3 there are warnings, or something could not be looked
at; 1 a backup would fail.`,
		Example: `  stillpoint doctor
  stillpoint doctor /srv /home --exclude /srv/cache
  stillpoint doctor /srv --fix --json`,
		RunE: func(c *cobra.Command, args []string) error { return runDoctor(c.Context(), e, &f, args) },
	}
	f.cache.add(c)
	c.Flags().StringArrayVarP(&f.exclude, "exclude", "e", nil, "leave out what fits this pattern, as the backup would; may be given several times")
	c.Flags().BoolVar(&f.fix, "fix", false, "do what is safe")
	jsonFlag(c, e)
	return c
}

// findingInfo is one finding in `doctor --json`.
type findingInfo struct {
	Check        string        `json:"check"`
	Result       doctor.Result `json:"result"`
	Code         problem.Code  `json:"code,omitempty"`
	Subject      string        `json:"subject,omitempty"`
	SubjectBytes []byte        `json:"subject_bytes,omitempty"`
	Text         string        `json:"text"`
	Means        string        `json:"means,omitempty"`
	Advice       string        `json:"advice,omitempty"`
	Fixable      bool          `json:"fixable"`
	Fixed        string        `json:"fixed,omitempty"`
}

func runDoctor(ctx context.Context, e *env, f *doctorFlags, args []string) error {
	checks, err := f.checks(ctx, e, args)
	if err != nil {
		return err
	}
	found := once(doctor.Run(ctx, checks))
	if ctx.Err() != nil {
		return problem.New(problem.Cancelled, "", context.Cause(ctx))
	}
	if f.fix {
		doctor.Mend(ctx, found)
	}
	infos := []findingInfo{}
	for _, f := range found {
		infos = append(infos, findingInfo{f.Check, f.Result, f.Code, f.Subject, job.NotText(f.Subject), f.Text, f.Means, f.Advice, f.Mend != nil, f.Mended})
	}
	if e.json {
		err = e.print(infos)
	} else {
		err = e.printFindings(infos)
	}
	if err != nil {
		return err
	}
	return diagnosed(found)
}

// once leaves out of the plan's findings what another check has said better.
func once(found []doctor.Finding) (all []doctor.Finding) {
	said := map[problem.Code]bool{}
	for _, f := range found {
		if f.Check != planCheck && f.Result == doctor.Failure {
			said[f.Code] = true
		}
	}
	for _, f := range found {
		if f.Check != planCheck || !said[f.Code] {
			all = append(all, f)
		}
	}
	return all
}

const planCheck = "plan"

// diagnosed turns what was found into the end of the command.
func diagnosed(found []doctor.Finding) error {
	switch doctor.Worst(found) {
	case doctor.Failure:
		return exited(exitFailed) // what fails has been printed
	case doctor.Warning, doctor.Unknown:
		return errExceptions
	}
	return nil
}

// printFindings prints a line for each finding, and then what is to be said of
// those that are not well.
func (e *env) printFindings(infos []findingInfo) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHECK\tRESULT\tCODE\tFOUND")
	for _, i := range infos {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", i.Check, i.Result, dash(string(i.Code)), quote(i.line()))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fixable := false
	for _, i := range infos {
		fixable = fixable || i.Fixable && i.Fixed == "" && i.Code != ""
		switch {
		case i.Fixed != "":
			fmt.Fprintf(e.stdout, "\nfixed: %s\n", quote(i.Fixed))
		case i.Code != "" && (i.Means != "" || i.Advice != ""):
			fmt.Fprintf(e.stdout, "\n%s: %s\n", i.Result, quote(i.line()))
			fmt.Fprintf(e.stdout, "  means    %s\n", quote(i.Means))
			fmt.Fprintf(e.stdout, "  to do    %s\n", quote(i.Advice))
			fmt.Fprintf(e.stdout, "  read on  stillpoint explain %s\n", i.Code)
		}
	}
	_, err := fmt.Fprint(e.stdout, map[bool]string{true: "\n--fix does what is safe of that.\n"}[fixable])
	return err
}

// line is what was found, on one line.
func (i findingInfo) line() string {
	text := strings.ReplaceAll(i.Text, "\n", "; ")
	if i.Subject == "" || strings.HasPrefix(text, i.Subject) {
		return text
	}
	return i.Subject + ": " + text
}
