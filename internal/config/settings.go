package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"stillpoint/internal/problem"
)

// Settings are values by the names of their keys.
type Settings map[string]Value

// A Value is what a key has, and where that stands.
type Value struct {
	Texts        []string // one, but for lists
	From         Origin
	Where        string // FILE:LINE, the flag, the variable, the job; empty for a default
	Line, Column int    // in the file
}

// An Origin is who says so.
type Origin string

// The origins, in the order in which one comes before the next.
const (
	FromFlag        Origin = "flag"
	FromEnvironment Origin = "environment"
	FromFile        Origin = "file"
	FromLog         Origin = "log" // of the job that is run again
	FromDefault     Origin = "default"
)

// Text is the value of a key that is no list.
func (s Settings) Text(key string) string {
	if all := s[key].Texts; len(all) > 0 {
		return all[0]
	}
	return ""
}

// List is that of a list.
func (s Settings) List(key string) []string { return s[key].Texts }

// Bool is a value that is true or false.
func (s Settings) Bool(key string) bool { return s.Text(key) == "true" }

// Count is a value that is a number. It was checked before.
func (s Settings) Count(key string) int {
	n, _ := strconv.Atoi(s.Text(key))
	return n
}

// Time is a length of time. It was checked before.
func (s Settings) Time(key string) time.Duration {
	d, _ := time.ParseDuration(s.Text(key))
	return d
}

// Record is what a log keeps of settings: all that is no default.
func (s Settings) Record() map[string][]string {
	all := map[string][]string{}
	for name, v := range s {
		if v.From != FromDefault {
			all[name] = v.Texts
		}
	}
	return all
}

// Recorded is what Record kept in the log of a job. Keys that are unknown by now
// are refused: without them it would be another job.
func Recorded(all map[string][]string, id string) (Settings, error) {
	s := Settings{}
	for name, texts := range all {
		if _, known := KeyOf(name); !known {
			return nil, problem.Newf(problem.Usage, id, "the log has a setting %q that this version does not know", name)
		}
		s[name] = Value{Texts: texts, From: FromLog, Where: "job " + id}
	}
	return s, nil
}

// Job returns what the file says for a job: its own settings, and the defaults of
// the file where it says nothing.
func (c *Config) Job(name string) (Settings, error) {
	own, there := c.Jobs[name]
	if !there {
		names := c.JobNames()
		if len(names) == 0 {
			return nil, problem.Newf(problem.NoSuchJob, name, "the configuration has no jobs")
		}
		return nil, problem.Newf(problem.NoSuchJob, name, "the configuration has no such job, but %s", strings.Join(names, ", "))
	}
	if err := c.wrongIn(name); err != nil {
		return nil, err
	}
	return c.Defaults.without(own).under(own), nil
}

// without leaves away rules of a class where others have a rule for all: a job that
// is not to be tried again is not, whatever the defaults say of some failures.
func (s Settings) without(others Settings) Settings {
	all := s.under(nil)
	for _, what := range []string{"times", "wait"} {
		if _, general := others["retry."+what]; !general {
			continue
		}
		for _, class := range Classes {
			delete(all, "retry."+class+"."+what)
		}
	}
	return all
}

// JobNames are the names of all jobs, in order.
func (c *Config) JobNames() (names []string) {
	for name := range c.Jobs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// under puts others over the settings.
func (s Settings) under(others Settings) Settings {
	all := Settings{}
	for _, of := range []Settings{s, others} {
		for name, v := range of {
			all[name] = v
		}
	}
	return all
}

// Effective is what holds in the end: what flags say, else the environment, else
// the file or the log, else the default. Only what has a name in the file is tried
// again by default.
func Effective(said, flags Settings, getenv func(string) string, named bool) Settings {
	all := Settings{}
	for _, k := range Keys() {
		switch {
		case k.Default == "":
		case strings.HasPrefix(k.Name, "retry.") && strings.HasSuffix(k.Name, ".times") && !named:
			all[k.Name] = Value{Texts: []string{"0"}, From: FromDefault}
		default:
			all[k.Name] = Value{Texts: []string{k.Default}, From: FromDefault}
		}
	}
	all = all.under(said).under(environment(getenv)).under(flags)
	for _, what := range []string{"times", "wait"} {
		general, there := all["retry."+what]
		delete(all, "retry."+what)
		for _, class := range Classes {
			key := "retry." + class + "." + what
			// The more special rule holds, unless the general one is of who
			// comes before.
			own := all[key].From
			if there && (own == FromDefault || general.From == FromFlag && own != FromFlag) {
				all[key] = general
			}
		}
	}
	return all
}

func environment(getenv func(string) string) Settings {
	s := Settings{}
	for _, k := range Keys() {
		if k.Env == "" {
			continue
		}
		if text := getenv(k.Env); text != "" {
			s[k.Name] = Value{Texts: []string{text}, From: FromEnvironment, Where: k.Env}
		}
	}
	return s
}

// Overridden tells which settings of a job others hold against, for its log.
func Overridden(said, effective Settings) (all []string) {
	for name, v := range effective {
		was, there := said[name]
		switch {
		case v.From != FromFlag && v.From != FromEnvironment:
		case there:
			all = append(all, fmt.Sprintf("%s is %s, as %s says, and not %s, as %s does", name, v.String(), v.Where, was.String(), was.Where))
		case v.From == FromFlag:
			all = append(all, fmt.Sprintf("%s is %s, as %s says", name, v.String(), v.Where))
		}
	}
	slices.Sort(all)
	return all
}

// String is the value as people read it.
func (v Value) String() string {
	if len(v.Texts) == 1 {
		return v.Texts[0]
	}
	return "[" + strings.Join(v.Texts, ", ") + "]"
}
