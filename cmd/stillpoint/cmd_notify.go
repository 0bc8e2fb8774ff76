package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/job"
	"stillpoint/internal/notify"
	"stillpoint/internal/problem"
)

func newNotify(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "notify",
		Short: "who is told how jobs end, and whether that works",
		Long: `Who is told how jobs end stands in the configuration under notify: programs,
mail, web services, and metrics for Prometheus. A notice that cannot be given is
a warning in the job's log, and changes nothing about the job.`,
		Example: `  stillpoint notify list
  stillpoint notify test`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newNotifyList(e), newNotifyTest(e))
	return c
}

// notifyInfo is one entry in `notify list --json` and `notify test --json`.
type notifyInfo struct {
	Name  string       `json:"name"`
	About string       `json:"about"`
	On    []string     `json:"on"`
	Kinds []string     `json:"kinds"`
	Told  *bool        `json:"told,omitempty"`
	Code  problem.Code `json:"code,omitempty"`
	Text  string       `json:"text,omitempty"`
	Took  *job.Millis  `json:"took_ms,omitempty"`
}

func notifyInfoOf(e notify.Entry) notifyInfo {
	i := notifyInfo{Name: e.Name, About: e.About(), On: []string{string(notify.Always)}, Kinds: []string{string(job.Backup), string(job.Verify)}}
	if len(e.On) > 0 {
		i.On = nil
		for _, o := range e.On {
			i.On = append(i.On, string(o))
		}
	}
	if len(e.Kinds) > 0 {
		i.Kinds = nil
		for _, k := range e.Kinds {
			i.Kinds = append(i.Kinds, string(k))
		}
	}
	return i
}

func newNotifyList(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Short:   "list who is told, and when",
		Example: "  stillpoint notify list --json",
		Args:    noArgs,
		RunE:    func(*cobra.Command, []string) error { return runNotifyList(e) },
	}
	jsonFlag(c, e)
	return c
}

func runNotifyList(e *env) error {
	c, err := configuration(e)
	if err != nil {
		return err
	}
	infos := []notifyInfo{}
	for _, n := range notifiers(c) {
		infos = append(infos, notifyInfoOf(n))
	}
	if e.json {
		return e.print(infos)
	}
	if len(infos) == 0 {
		_, err := fmt.Fprintln(e.stdout, "nobody is told")
		return err
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tON\tOF\t")
	for _, i := range infos {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", quote(i.Name), strings.Join(i.On, ","), strings.Join(i.Kinds, ","), quote(i.About))
	}
	return w.Flush()
}

func newNotifyTest(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "test [NAME...]",
		Short: "tell all of them, or those that are named, that this is a test",
		Long: `Sends a report of a job that never was, marked as a test: mail has it in its
subject, programs get STILLPOINT_TEST=1, web services the header
X-Stillpoint-Test. Metrics are tried and taken back.`,
		Example: `  stillpoint notify test
  stillpoint notify test mail`,
		RunE: func(c *cobra.Command, args []string) error { return runNotifyTest(c.Context(), e, args) },
	}
	jsonFlag(c, e)
	return c
}

func runNotifyTest(ctx context.Context, e *env, names []string) error {
	c, err := configuration(e)
	if err != nil {
		return err
	}
	all := notifiers(c)
	for _, name := range names {
		if !slices.ContainsFunc(all, func(n notify.Entry) bool { return n.Name == name }) {
			return problem.Newf(problem.Usage, name, "the configuration has no notify entry of this name")
		}
	}
	all = slices.DeleteFunc(all, func(n notify.Entry) bool { return len(names) > 0 && !slices.Contains(names, n.Name) })
	if len(all) == 0 {
		return problem.Newf(problem.Usage, "", "nobody is told: the configuration has no notify")
	}
	var failed []string
	infos := []notifyInfo{}
	for _, done := range notify.Tell(ctx, all, testNotice()) {
		i := notifyInfoOf(done.Entry)
		told, took := done.Err == nil, job.Millis(done.Took)
		i.Told, i.Took = &told, &took
		if done.Err != nil {
			i.Code, i.Text = problem.CodeOf(done.Err), problem.Text(done.Err)
			failed = append(failed, i.Name)
		}
		infos = append(infos, i)
	}
	if err := e.printTold(infos); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return problem.New(problem.Cancelled, "", context.Cause(ctx))
	}
	if len(failed) > 0 {
		return problem.Newf(problem.NotifyFailed, strings.Join(failed, ", "), "could not be told")
	}
	return nil
}

func (e *env) printTold(infos []notifyInfo) error {
	if e.json {
		return e.print(infos)
	}
	for _, i := range infos {
		how := "told, " + i.About
		if i.Code != "" {
			how = "NOT told, " + i.About + ": " + strings.TrimPrefix(i.Text, i.Name+": ")
		}
		if _, err := fmt.Fprintf(e.stdout, "%s: %s\n", quote(i.Name), quote(how)); err != nil {
			return err
		}
	}
	return nil
}

// testNotice is of a job that never was.
func testNotice() *notify.Notice {
	l := job.NewHeader("test", job.Start{Kind: job.Backup, Args: []string{"stillpoint", "notify", "test"}, Version: version()})
	r := &job.Report{Job: l.ID, Kind: job.Backup, Status: job.Complete, Level: job.Application, Text: "a test of stillpoint notify", Started: l.Started, Ended: time.Now().UTC()}
	return &notify.Notice{Header: l, Report: r, Test: true, Page: func() ([]byte, error) {
		return renderPage(job.Job{Summary: job.Summary{Header: l, Status: r.Status}, Report: r})
	}}
}
