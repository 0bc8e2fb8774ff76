package main

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"stillpoint/internal/backup"
	"stillpoint/internal/config"
	"stillpoint/internal/openfile"
	"stillpoint/internal/problem"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/repository"
	"stillpoint/internal/snapshot/lvm"
)

// addSettings adds a flag for each setting of a job that has one.
func addSettings(c *cobra.Command) {
	for _, k := range config.Keys() {
		switch f := c.Flags(); {
		case k.Flag == "":
		case k.Type == config.Bool:
			f.BoolP(k.Flag, k.Short, k.Default == "true", k.Usage)
		case k.Type == config.Time:
			d, _ := time.ParseDuration(k.Default) // a test looks at all
			f.DurationP(k.Flag, k.Short, d, k.Usage)
		case k.Type == config.Count:
			f.UintP(k.Flag, k.Short, 0, k.Usage)
		case k.Type == config.List:
			f.StringArrayP(k.Flag, k.Short, nil, k.Usage)
		default:
			f.StringP(k.Flag, k.Short, k.Default, k.Usage)
		}
	}
}

// given are the settings that flags were given for, and the paths.
func given(c *cobra.Command, paths []string) (config.Settings, error) {
	s := config.Settings{}
	for _, k := range config.Keys() {
		if k.Flag == "" || !c.Flags().Changed(k.Flag) {
			continue
		}
		v := config.Value{From: config.FromFlag, Where: "--" + k.Flag}
		if k.Type == config.List {
			v.Texts, _ = c.Flags().GetStringArray(k.Flag) // it is one
		} else {
			v.Texts = []string{c.Flags().Lookup(k.Flag).Value.String()}
		}
		for _, text := range v.Texts {
			if err := k.Check(text); err != nil {
				return nil, problem.Newf(problem.Usage, "--"+k.Flag, "%v", err)
			}
		}
		s[k.Name] = v
	}
	if len(paths) > 0 {
		s["paths"] = config.Value{Texts: paths, From: config.FromFlag, Where: "the command line"}
	}
	return s, nil
}

// repoOf are the flags of a repository that stand for settings. The password of
// the environment comes before a file that is named by a job.
func repoOf(e *env, s config.Settings) repoFlags {
	f := repoFlags{path: s.Text("repo")}
	if file := s["password_file"]; file.From == config.FromFlag || e.getenv("STILLPOINT_PASSWORD") == "" {
		f.passwordFile = s.Text("password_file")
	}
	return f
}

// cacheOf is the same of cache files.
func cacheOf(s config.Settings) *cacheFlags {
	f := &cacheFlags{}
	for key, at := range map[string]*string{"cache_dir": &f.dir, "cache_max": &f.maximum} {
		if s[key].From != config.FromEnvironment { // which has a word of its own there
			*at = s.Text(key)
		}
	}
	return f
}

// optionsOf are what a backup does by its settings.
func optionsOf(s config.Settings) (backup.Options, error) {
	o := backup.Options{
		Paths: s.List("paths"), Exclude: append([]string(nil), s.List("exclude")...),
		OneFileSystem: s.Bool("one_file_system"), Checkpoint: s.Time("checkpoint"),
		OneAtATime: s.Bool("one_at_a_time"), Progress: &repository.Progress{},
		Quiet: backup.Quiet{For: s.Time("quiet"), Timeout: s.Time("quiet_timeout"), Else: backup.Otherwise(s.Text("no_quiet"))},
	}
	o.NoExceptions = s.Text("exceptions") == "none"
	o.Retry = backup.Retry{}
	for _, class := range config.Classes {
		o.Retry[backup.Class(class)] = backup.Rule{Times: s.Count("retry." + class + ".times"), Wait: s.Time("retry." + class + ".wait")}
	}
	var err error
	if o.OpenFiles, err = openfile.Parse(s.Text("open_files")); err != nil {
		return o, err
	}
	if err := chooseProviders(s, &o); err != nil {
		return o, err
	}
	for _, r := range s.List("require") {
		o.OneInstant = o.OneInstant || r == "one-instant"
		o.Application = o.Application || r == "application"
	}
	if o.OneAtATime && o.OneInstant {
		return o, problem.Newf(problem.Usage, "--one-at-a-time", "cannot be had with --require one-instant")
	}
	if o.Quiet.Else == backup.ElseOneAtATime && o.OneInstant {
		return o, problem.Newf(problem.Usage, "--no-quiet one-at-a-time", "cannot be had with --require one-instant")
	}
	for _, path := range o.Paths {
		if path == "" {
			return o, problem.Newf(problem.Usage, `""`, "is no path")
		}
	}
	for _, name := range s.List("exclude_file") {
		ps, err := patterns(name)
		if err != nil {
			return o, err
		}
		o.Exclude = append(o.Exclude, ps...)
	}
	return o, nil
}

// chooseProviders takes over who takes the snapshots.
func chooseProviders(s config.Settings, o *backup.Options) error {
	o.ProviderOf = map[string]string{}
	for _, text := range s.List("provider") {
		path, name, of := config.ProviderOf(text)
		was := o.ProviderOf[path]
		if !of {
			was = o.Provider
		}
		if was != "" && was != name {
			return problem.Newf(problem.Usage, "--provider", "%s and %s cannot both be chosen", was, name)
		}
		if of {
			o.ProviderOf[path] = name
		} else {
			o.Provider = name
		}
	}
	if o.Provider == backup.None && o.OpenFiles.Way == "" && s["open_files"].From != config.FromDefault {
		return problem.Newf(problem.Usage, "--open-files fail", "cannot be had with --provider none, which reads live files")
	}
	if s["cache_dir"].From == config.FromFlag && !hasCacheFiles(o) {
		return problem.Newf(problem.Usage, "--cache-dir", "cannot be had with --provider lvm, which has no cache files: it keeps in the thin pool, or in free extents of the volume group, what changes (--cache-max says how much of these)")
	}
	return nil
}

// hasCacheFiles tells whether a provider may be asked that has some.
func hasCacheFiles(o *backup.Options) bool {
	for _, name := range o.ProviderOf {
		if name != lvm.Name && name != backup.None {
			return true
		}
	}
	return o.Provider != lvm.Name
}

// policiesOf puts the policies of a job over those of the configuration.
func policiesOf(s config.Settings, apps quiesce.Settings) quiesce.Settings {
	for _, text := range s.List("policy") {
		name, word, _ := strings.Cut(text, "=")
		apps.Policies[name] = quiesce.Policy(word)
	}
	return apps
}

// recordOf is what the log keeps: whoever runs the job again may stand in another
// folder.
func recordOf(s config.Settings) map[string][]string {
	all := s.Record()
	for _, k := range config.Keys() {
		if !k.Path {
			continue
		}
		for i, path := range all[k.Name] {
			if abs, err := filepath.Abs(path); err == nil {
				all[k.Name] = append([]string(nil), all[k.Name]...)
				all[k.Name][i] = abs
			}
		}
	}
	return all
}
