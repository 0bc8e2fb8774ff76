package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"stillpoint/internal/problem"
)

const twoJobs = `defaults:
  repo: /backup/repo
  retry: {times: 5}
jobs:
  nightly:
    paths: [/srv, /home]
    exclude: '*.tmp'
    quiet: 500ms
    retry:
      timeout: {times: 1, wait: 2s}
  other: &other
    paths: /etc
    one_at_a_time: true
  third:
    <<: *other
    open_files: wait:10s
`

func TestJobs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(twoJobs), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Read(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.JobNames(); !slices.Equal(got, []string{"nightly", "other", "third"}) {
		t.Error(got)
	}
	s, err := c.Job("nightly")
	if err != nil {
		t.Fatal(err)
	}
	env := func(name string) string { return map[string]string{"STILLPOINT_CACHE_MAX": "10G"}[name] }
	flags := Settings{"quiet": {Texts: []string{"1s"}, From: FromFlag, Where: "--quiet"}}
	all := Effective(s, flags, env, true)
	for key, want := range map[string]string{
		"paths": "[/srv, /home] " + path + ":6", "exclude": "*.tmp " + path + ":7", "repo": "/backup/repo " + path + ":2",
		"quiet": "1s --quiet", "quiet_timeout": "30s ", "cache_max": "10G STILLPOINT_CACHE_MAX",
		"retry.timeout.times": "1 " + path + ":10", "retry.timeout.wait": "2s " + path + ":10",
		"retry.resources.times": "5 " + path + ":3", "retry.resources.wait": "1m ",
	} {
		if got := all[key].String() + " " + all[key].Where; got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if _, general := all["retry.times"]; general {
		t.Error("retry.times is left beside what it stands for")
	}
	over := Overridden(s, all)
	if len(over) != 1 || !strings.Contains(over[0], "quiet is 1s, as --quiet says, and not 500ms, as "+path+":8 does") {
		t.Errorf("%q", over)
	}
	if s, _ = c.Job("third"); s.Text("paths") != "/etc" || !s.Bool("one_at_a_time") || s.Text("open_files") != "wait:10s" {
		t.Errorf("merged: %v", s)
	}
	if _, err := c.Job("weekly"); !problem.Is(err, problem.NoSuchJob) || !strings.Contains(err.Error(), "nightly, other, third") {
		t.Error(err)
	}
	if all := Effective(nil, nil, func(string) string { return "" }, false); all.Count("retry.timeout.times") != 0 {
		t.Error("what has no name is tried again")
	}
	back, err := Recorded(all.Record(), "abc")
	if err != nil || back["quiet"].String() != "1s" || back["quiet"].From != FromLog {
		t.Errorf("%v, %v", back["quiet"], err)
	}
	if _, err := Recorded(map[string][]string{"nonsense": {"1"}}, "abc"); !problem.Is(err, problem.Usage) {
		t.Error(err)
	}
}

// All mistakes come at once, each with its place, in their order.
func TestAllMistakes(t *testing.T) {
	_, err := Parse([]byte(`defaults:
  repo: backup
  pahts: [/srv]
jobs:
  nightly:
    paths: [/srv, home]
    quiet: soon
    require: [everything]
    retry: {times: -1, classes: 3}
    open_files: wait
    policy: oracle=crash
    provider: srv=none
    one_at_a_time: maybe
    exceptions: [none, allow]
    exclude:
  empty: {}
  "bad name": {paths: /srv}
writers:
  window: never
  redis: {policy: maybe}
`))
	want := []string{
		`[2:9] defaults.repo: "backup" does not begin with a slash`,
		`[3:3] defaults.pahts: is unknown; there are cache_dir, `,
		`[6:19] jobs.nightly.paths: "home" does not`,
		`[7:12] jobs.nightly.quiet: "soon" is no duration: write 500ms`,
		`[8:15] jobs.nightly.require: "everything" cannot be required`,
		`[9:20] jobs.nightly.retry.times: "-1" is no number`,
		`[9:24] jobs.nightly.retry.classes: is unknown; there are resources, retryable, timeout, times, wait`,
		`[10:17] jobs.nightly.open_files: "wait" is none of fail, skip, wait:30s, lock, read`,
		`[11:13] jobs.nightly.policy: "oracle=crash" is not NAME=POLICY`,
		`[12:15] jobs.nightly.provider: "srv=none" is neither`,
		`[13:20] jobs.nightly.one_at_a_time: "maybe" is neither true nor false`,
		`[14:17] jobs.nightly.exceptions: is a list, and must be one value`,
		`[15:5] jobs.nightly.exclude: has no value`,
		`[16:10] jobs.empty: has no paths`,
		`[17:15] jobs.bad name: a name is made of`,
		`[19:11] writers.window: "never" is no duration`,
		`[20:19] writers.redis.policy: "maybe" is none of exclude, crash, fail`,
	}
	got := strings.Split(problem.Text(err), "\n")
	if len(got) != len(want) {
		t.Errorf("%d mistakes, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
	if m := Mistakes(problem.New(problem.ConfigWrong, "/etc/x", err)); len(m) != len(got) || m[0].Line != 2 || m[0].Key != "defaults.repo" {
		t.Errorf("%v", m)
	}
}

// What a job says of all failures holds against what the defaults say of some.
func TestRetryOfAJob(t *testing.T) {
	c, err := Parse([]byte("defaults:\n  repo: /r\n  paths: [/srv]\n  retry: {resources: {times: 7, wait: 7s}}\n" +
		"jobs:\n  never: {retry: {times: 0}}\n  own: {retry: {times: 0, timeout: {times: 2}}}\n  all: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][3]int{"never": {0, 0, 0}, "own": {0, 2, 0}, "all": {7, 3, 3}} {
		s, err := c.Job(name)
		if err != nil {
			t.Fatal(err)
		}
		all := Effective(s, nil, func(string) string { return "" }, true)
		got := [3]int{all.Count("retry.resources.times"), all.Count("retry.timeout.times"), all.Count("retry.retryable.times")}
		if got != want || all.Text("retry.resources.wait") != "7s" {
			t.Errorf("%s: %v, %s", name, got, all.Text("retry.resources.wait"))
		}
	}
}

// The example is right, and has every key that there is.
func TestExample(t *testing.T) {
	c, err := Parse([]byte(Example))
	if err != nil {
		t.Fatal(err)
	}
	there := Settings{}
	for _, s := range c.Jobs {
		there = there.under(s)
	}
	there = there.under(c.Defaults)
	for _, k := range Keys() {
		if _, ok := there[k.Name]; !ok {
			t.Errorf("the example has no %s", k.Name)
		}
		if k.Default != "" && k.Check(k.Default) != nil {
			t.Errorf("the default of %s: %v", k.Name, k.Check(k.Default))
		}
	}
	there0 := map[string]bool{} // whichever of a list has it
	for key := range c.lines {
		there0[regexp.MustCompile(`\[\d+\]`).ReplaceAllString(key, "[0]")] = true
	}
	var all func(of reflect.Type, key string)
	all = func(of reflect.Type, key string) {
		switch {
		case of.Kind() == reflect.Pointer && of.Elem().Kind() == reflect.Struct:
			all(of.Elem(), key)
		case of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Struct:
			all(of.Elem(), key+"[0]")
		case of.Kind() == reflect.Struct:
			for i := range of.NumField() {
				name, option, _ := strings.Cut(of.Field(i).Tag.Get("yaml"), ",")
				if option == "inline" {
					all(of.Field(i).Type, key)
				} else if name != "" && name != "-" {
					all(of.Field(i).Type, join(key, name))
				}
			}
		default:
			if !there0[key] {
				t.Errorf("the example has no %s", key)
			}
		}
	}
	all(reflect.TypeFor[Config](), "")
	for _, row := range c.Rows() { // each of notify has some of its keys
		if row.Value.From != FromFile && !strings.HasPrefix(row.Key, "notify[") {
			t.Errorf("%s is not in the example: %v", row.Key, row.Value)
		}
	}
}

// A path may have the sign in it that ends it.
func TestProviderOf(t *testing.T) {
	for text, want := range map[string][2]string{"none": {"", "none"}, "/srv=none": {"/srv", "none"}, "/srv/a=b=cow": {"/srv/a=b", "cow"}} {
		path, name, of := ProviderOf(text)
		if path != want[0] || name != want[1] || of != (path != "") || provider(text) != nil {
			t.Errorf("%s: %q, %q, %t, %v", text, path, name, of, provider(text))
		}
	}
}

// A mistake in a job is that job's alone; one in what holds for all is everybody's.
func TestMistakeOfAJob(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	read := func(text string) (*Config, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Read(path, true)
	}
	c, err := read("jobs:\n  good: {paths: /srv, notify: ops}\n  bad: &bad {paths: /srv, quiet: soon, nonsense: 1}\n  alike: {<<: *bad}\n  none: {}\n" +
		"  strange: 7\n  unheard: {paths: /srv, notify: nobody}\n  'bad name': {paths: /srv}\nnotify: [{name: ops, command: [x]}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.Job("good"); err != nil || s.Text("paths") != "/srv" {
		t.Errorf("%v, %v", s, err)
	}
	for name, want := range map[string]int{"bad": 2, "alike": 2, "none": 1, "strange": 2, "unheard": 1, "bad name": 1} {
		if _, err := c.Job(name); !problem.Is(err, problem.ConfigWrong) || len(Mistakes(err)) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(c.Wrong()); n != 9 {
		t.Errorf("%d mistakes: %v", n, c.Wrong())
	}
	for _, text := range []string{
		"defaults: {quiet: soon}\n", "defaults: {notify: nobody}\n", "job: {}\n", "jobs: []\n", "notify: [{name: a}]\n", "writers: {window: 1}\n", "jobs:\n  a: {\n",
	} {
		if _, err := read(text + "jobs2: {}\n"); !problem.Is(err, problem.ConfigWrong) {
			t.Errorf("%q is taken: %v", text, err)
		}
		if _, err := read(text); !problem.Is(err, problem.ConfigWrong) {
			t.Errorf("%q is taken: %v", text, err)
		}
	}
	// What is wrong in a job hides nothing that is wrong elsewhere.
	_, err = read("jobs:\n  bad: {paths: srv}\nnotify: [{name: a}]\n")
	if len(Mistakes(err)) != 2 {
		t.Errorf("%v", err)
	}
}

// What may be a secret is in no message.
func TestMistakesHideSecrets(t *testing.T) {
	for _, text := range []string{
		"notify: [{name: a, command: 'curl hidden'}]\n", "notify: [{name: a, webhook: 'https://hidden'}]\n", "notify: [{name: a, webhook: {url: [hidden]}}]\n",
		"notify: [{name: a, webhook: {url: {a: hidden}}}]\n", "notify: hidden\n", "notify: [hidden]\n", "notify: [{name: a, mail: 'smtp://u:hidden@x'}]\n",
		"notify: [{name: a, webhook: {url: 'https://x', token_file: hidden}}]\n", "jobs: {a: {paths: /srv, password_file: hidden}}\n",
		"defaults: {password_file: hidden}\n", "writers: {redis: {password_file: hidden}}\n", "writers: {redis: {servers: [{address: /s, password_file: hidden}]}}\n",
	} {
		if _, err := Parse([]byte(text)); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
