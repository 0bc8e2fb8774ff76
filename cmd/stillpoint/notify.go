package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"stillpoint/internal/config"
	"stillpoint/internal/job"
	"stillpoint/internal/notify"
	"stillpoint/internal/problem"
)

// notifiers are those whom the configuration wants to be told.
func notifiers(c *config.Config) (all []notify.Entry) {
	for _, n := range c.Notify {
		e := notify.Entry{Name: n.Name, Limit: time.Duration(n.Timeout)}
		for _, o := range n.On {
			e.On = append(e.On, notify.Occasion(o))
		}
		for _, k := range n.Kinds {
			e.Kinds = append(e.Kinds, job.Kind(k))
		}
		switch {
		case n.Mail != nil:
			m := n.Mail
			e.Notifier = notify.Mail{
				Server: m.Server, Port: m.Port, TLS: m.TLS, CAFile: m.CAFile, Auth: m.Auth, User: m.User, PasswordFile: m.PasswordFile,
				From: m.From, To: m.To, Attach: m.Attach,
			}
		case n.Webhook != nil:
			w := n.Webhook
			e.Notifier = notify.Webhook{URL: w.URL, SecretFile: w.SecretFile, TokenFile: w.TokenFile, Tries: w.Tries}
		case n.Metrics != nil:
			e.Notifier = notify.Metrics{Dir: n.Metrics.Dir}
		default:
			e.Notifier = notify.Command{Line: n.Command}
		}
		all = append(all, e)
	}
	return all
}

// only leaves those whom a job names, all where it names nobody.
func only(all []notify.Entry, names []string) []notify.Entry {
	if len(names) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(e notify.Entry) bool { return !slices.Contains(names, e.Name) })
}

// tellEnd tells those whom it concerns how a job ended, by its name in the
// configuration if it has one. What fails of it is a warning in the job's log.
func tellEnd(all []notify.Entry) func(context.Context, job.Header, *job.Report, func(job.Event)) {
	return func(ctx context.Context, h job.Header, r *job.Report, add func(job.Event)) {
		var concerned []notify.Entry
		for _, e := range all {
			if e.Concerns(r) {
				concerned = append(concerned, e)
			}
		}
		if len(concerned) == 0 {
			return
		}
		n := &notify.Notice{Header: h, Report: r, Name: h.Name, Page: sync.OnceValues(func() ([]byte, error) { return pageOf(h.ID, r) })}
		for _, done := range notify.Tell(ctx, concerned, n) {
			if done.Err == nil {
				add(job.Event{Step: job.StepNotify, Text: done.Entry.Name + ": told, " + done.Entry.About()})
				continue
			}
			add(job.Event{Severity: job.Warning, Step: job.StepNotify, Code: problem.CodeOf(done.Err), Text: strings.ReplaceAll(problem.Text(done.Err), "\n", "; ")})
		}
	}
}
