package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"stillpoint/internal/config"
	"stillpoint/internal/problem"
)

func newConfig(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "look at the configuration: check it, show what holds, print an example",
		Example: `  stillpoint config example >/etc/stillpoint/config.yaml
  stillpoint config check
  stillpoint config show nightly`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newConfigCheck(e), newConfigShow(e), newConfigExample(e))
	return c
}

func newConfigExample(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "example",
		Short:   "print a configuration that has every key, with what it means",
		Example: "  stillpoint config example >/etc/stillpoint/config.yaml",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(e.stdout, config.Example)
			return err
		},
	}
}

func newConfigShow(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "show [JOB]",
		Short: "print every value that holds, and who says so",
		Long: `Prints every value that holds, of all jobs or of one, and who says so: a line of
the file, a variable of the environment, or nobody, which is the default. The flags
of backup come before all of them, and can be given here to see what they change.`,
		Example: `  stillpoint config show
  stillpoint config show nightly --json
  stillpoint config show nightly --quiet 1s`,
		Args: between(0, 1, ""),
		RunE: func(c *cobra.Command, args []string) error {
			flags, err := given(c, nil)
			if err != nil {
				return err
			}
			return runConfigShow(e, args, flags)
		},
	}
	addSettings(c)
	jsonFlag(c, e)
	return c
}

// shownValue is one value in `config show --json`.
type shownValue struct {
	Job    string        `json:"job,omitempty"` // absent for what belongs to no job
	Key    string        `json:"key"`
	Values []string      `json:"values"`
	From   config.Origin `json:"from"`
	Where  string        `json:"where,omitempty"` // FILE:LINE, the variable, or the flag
}

func runConfigShow(e *env, args []string, flags config.Settings) error {
	c, err := configuration(e)
	if err != nil {
		return err
	}
	names := args
	if len(args) == 0 {
		names = c.JobNames()
	}
	all := []shownValue{}
	add := func(job, key string, v config.Value) {
		all = append(all, shownValue{job, key, append([]string{}, v.Texts...), v.From, v.Where})
	}
	var wrong []error
	for _, name := range names {
		said, err := c.Job(name)
		if problem.Is(err, problem.ConfigWrong) && len(args) == 0 {
			wrong = append(wrong, err) // the others hold all the same
			continue
		}
		if err != nil {
			return err
		}
		s := config.Effective(said, flags, e.getenv, true)
		for _, k := range config.Keys() {
			if v, there := s[k.Name]; there {
				add(name, k.Name, v)
			}
		}
		if e.getenv("STILLPOINT_PASSWORD") != "" {
			add(name, "password", config.Value{Texts: []string{"***"}, From: config.FromEnvironment, Where: "STILLPOINT_PASSWORD"})
		}
	}
	if len(args) == 0 {
		for _, row := range c.Rows() {
			add("", row.Key, row.Value)
		}
	}
	show := e.printValues
	if e.json {
		show = func(all []shownValue) error { return e.print(all) }
	}
	return errors.Join(append(wrong, show(all))...)
}

func (e *env) printValues(all []shownValue) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tVALUE\tFROM")
	for _, v := range all {
		key := v.Key
		if v.Job != "" {
			key = "jobs." + v.Job + "." + key
		}
		text := config.Value{Texts: v.Values}.String()
		if len(v.Values) == 0 {
			text = "-"
		}
		from := cmp.Or(v.Where, string(v.From))
		if v.From == config.FromEnvironment {
			from = "environment " + v.Where
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", key, quote(text), from)
	}
	return w.Flush()
}
