// Package config reads the configuration file, /etc/stillpoint/config.yaml. It
// knows what may stand there and what a value has to look like; what the values
// mean, those know who get them. Without a file all is as if an empty one were
// there.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"stillpoint/internal/problem"
)

// Path is where the file is, unless STILLPOINT_CONFIG or a flag names another.
const Path = "/etc/stillpoint/config.yaml"

// A Config is the content of the file.
type Config struct {
	File  string         `yaml:"-"` // its path; empty where there is none
	lines map[string]int // where keys are
	wrong []*Mistake     // that concern single jobs, which do not run

	// Jobs are those of the file by their names, and Defaults what holds for
	// those of them that say nothing else.
	Jobs     map[string]Settings `yaml:"jobs"`
	Defaults Settings            `yaml:"defaults"`

	Writers Writers `yaml:"writers"`

	// Notify is who is told how jobs end.
	Notify []Notify `yaml:"notify"`
}

// Writers says how applications are brought to rest.
type Writers struct {
	// Retries is how often a capture is tried again in which a writer failed
	// with something that may pass, and RetryWait how long is waited before.
	Retries   *int     `yaml:"retries" default:"3"`
	RetryWait Duration `yaml:"retry_wait" default:"30s"`

	// Window is the longest that an application may rest.
	Window Duration `yaml:"window" default:"1m0s"`

	PostgreSQL PostgreSQL `yaml:"postgresql"`
	MariaDB    MariaDB    `yaml:"mariadb"`
	Redis      Redis      `yaml:"redis"`
	SQLite     Common     `yaml:"sqlite"`
	Script     Script     `yaml:"script"`
}

// Common is what every writer has.
type Common struct {
	Off bool `yaml:"off" default:"false"` // do not look for applications of this kind

	// Policy is for instances that cannot be brought to rest: "exclude" leaves
	// their files out, "crash" keeps them as they are at the instant, "fail"
	// fails the job. Empty is crash where all of an instance is of one instant,
	// and else fail.
	Policy string `yaml:"policy"`
}

// A Login is how to talk to a server: as whom, and with the password in which
// file.
type Login struct {
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
}

// Password reads the file. A line end at its end does not count.
func (l Login) Password() (string, error) {
	if l.PasswordFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(l.PasswordFile)
	if err != nil {
		return "", problem.New(problem.ConfigWrong, "password_file", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// PostgreSQL has the settings of that writer.
type PostgreSQL struct {
	Common  `yaml:",inline"`
	Login   `yaml:",inline"`
	Sockets []string `yaml:"sockets"` // directories to look for sockets in, besides the usual ones
}

// MariaDB has the settings of that writer, which takes MySQL, too.
type MariaDB struct {
	Common   `yaml:",inline"`
	Login    `yaml:",inline"`
	Sockets  []string `yaml:"sockets"`   // besides the usual ones
	LockWait Duration `yaml:"lock_wait"` // how long others may have to wait behind us
}

// Redis has the settings of that writer, which takes Valkey, too.
type Redis struct {
	Common  `yaml:",inline"`
	Login   `yaml:",inline"` // of all servers that Servers does not name
	Servers []RedisServer    `yaml:"servers"`
}

// A RedisServer is one with a login of its own.
type RedisServer struct {
	Address string `yaml:"address"` // of a socket, or ADDRESS:PORT
	Login   `yaml:",inline"`
}

// Script has the settings of the writer that runs scripts.
type Script struct {
	Common `yaml:",inline"`
	Dir    string   `yaml:"dir" default:"/etc/stillpoint/freeze.d"` // of the executables
	Paths  []string `yaml:"paths"`                                  // which data they bring to rest
	Limit  Duration `yaml:"limit"`                                  // of one script
}

// A Duration is written as Go writes it: 500ms, 30s, 2m. Zero is the default.
type Duration time.Duration

// UnmarshalYAML reads one.
func (d *Duration) UnmarshalYAML(n ast.Node) error {
	text := n.GetToken().Value
	v, err := time.ParseDuration(text)
	if err != nil || v <= 0 {
		at := n.GetToken().Position
		return fmt.Errorf("[%d:%d] %q is no duration: write 500ms, 30s or 2m", at.Line, at.Column, text)
	}
	*d = Duration(v)
	return nil
}

// Read reads the file. One that is not there is an empty one, unless it must be. A
// mistake in a job concerns that job alone (Wrong); any other one all, since nobody
// knows what was meant for all of them.
func Read(path string, must bool) (*Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return &Config{}, nil
	}
	if err != nil {
		return nil, problem.New(problem.ConfigWrong, path, err)
	}
	c, err := Parse(b)
	c.wrong = Mistakes(err)
	if err != nil && (len(c.wrong) == 0 || slices.ContainsFunc(c.wrong, func(m *Mistake) bool { return m.Job == "" })) {
		return nil, problem.New(problem.ConfigWrong, path, err)
	}
	c.isFrom(path)
	return c, nil
}

// Wrong are the mistakes of single jobs, which cannot run. All other jobs are as if
// those were not there.
func (c *Config) Wrong() []*Mistake { return c.wrong }

// wrongIn is why a job cannot run; nil where it can.
func (c *Config) wrongIn(job string) error {
	var errs []error
	for _, m := range c.wrong {
		if m.Job == job {
			errs = append(errs, m)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return problem.New(problem.ConfigWrong, c.File, errors.Join(errs...))
}

// isFrom tells all settings where they stand.
func (c *Config) isFrom(path string) {
	c.File = path
	for _, s := range append(slices.Collect(maps.Values(c.Jobs)), c.Defaults) {
		for name, v := range s {
			v.Where = fmt.Sprintf("%s:%d", path, v.Line)
			s[name] = v
		}
	}
}

// Parse reads the content of a file. The error is made of all mistakes in it, each
// with line and column, and on one line as all errors are.
func Parse(b []byte) (*Config, error) {
	c := &Config{}
	f, err := parser.ParseBytes(b, 0)
	if err != nil {
		return c, syntax(err)
	}
	r := &reader{anchors: map[string]ast.Node{}, places: map[string]ast.Node{}}
	for i, d := range f.Docs {
		if i > 0 {
			r.wrong(d.Body, "", "is a second document; there can be one")
			continue
		}
		if d.Body == nil || d.Body.Type() == ast.CommentType {
			continue
		}
		ast.Walk(r, d.Body)
		r.value(d.Body, reflect.ValueOf(c).Elem(), "")
	}
	c.check(r)
	c.lines = r.lines()
	slices.SortStableFunc(r.mistakes, func(a, b error) int {
		x, y := a.(*Mistake), b.(*Mistake)
		return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column), strings.Compare(x.Key, y.Key))
	})
	return c, errors.Join(r.mistakes...)
}

// syntax is the error of a file that is no YAML.
func syntax(err error) error {
	text := strings.TrimSpace(yaml.FormatError(err, false, false))
	m := &Mistake{Text: text}
	if _, scan := fmt.Sscanf(text, "[%d:%d]", &m.Line, &m.Column); scan == nil {
		m.Text = bare(errors.New(text))
	}
	return errors.Join(m)
}

// check looks at what the types do not say.
func (c *Config) check(r *reader) {
	w := c.Writers
	for name, of := range map[string]Common{"postgresql": w.PostgreSQL.Common, "mariadb": w.MariaDB.Common, "redis": w.Redis.Common, "sqlite": w.SQLite, "script": w.Script.Common} {
		key := "writers." + name + ".policy"
		if of.Policy != "" && !slices.Contains(policies, of.Policy) {
			r.wrong(r.places[key], key, "%q is none of %s", of.Policy, strings.Join(policies, ", "))
		}
	}
	if w.Retries != nil && *w.Retries < 0 {
		r.wrong(r.places["writers.retries"], "writers.retries", "%d is less than none", *w.Retries)
	}
	for _, p := range append([]string{w.Script.Dir}, w.Script.Paths...) {
		if p != "" && !filepath.IsAbs(p) {
			r.wrong(r.places["writers.script"], "writers.script", "%q does not begin with a slash", p)
		}
	}
	for key, l := range c.logins() {
		if l.PasswordFile != "" && !filepath.IsAbs(l.PasswordFile) {
			key += ".password_file"
			r.wrong(r.places[key], key, "%s", relative(key, l.PasswordFile))
		}
	}
	for name, s := range c.Jobs {
		r.of(name, func() { c.checkJob(name, s, r) })
	}
	c.checkTold("defaults", c.Defaults, r)
	if !slices.ContainsFunc(r.mistakes, func(err error) bool { return err.(*Mistake).Job == "" }) { // or they may be why something is missing
		checkNotify(c.Notify, r)
	}
}

// logins are those of the writers, by their keys.
func (c *Config) logins() map[string]Login {
	w := c.Writers
	all := map[string]Login{"writers.postgresql": w.PostgreSQL.Login, "writers.mariadb": w.MariaDB.Login, "writers.redis": w.Redis.Login}
	for i, s := range w.Redis.Servers {
		all[fmt.Sprintf("writers.redis.servers[%d]", i)] = s.Login
	}
	return all
}

func (c *Config) checkJob(name string, s Settings, r *reader) {
	key := "jobs." + name
	if !jobName.MatchString(name) {
		r.wrong(r.places[key], key, "a name is made of letters, digits, - and _")
	}
	if len(c.Defaults.under(s).List("paths")) == 0 {
		r.wrong(r.places[key], key, "has no paths; write paths: [/srv, /home]")
	}
	c.checkTold(key, s, r)
}

// checkTold looks whether all are there who are told how a job ends.
func (c *Config) checkTold(key string, s Settings, r *reader) {
	for _, n := range s.List("notify") {
		if n != "none" && !slices.ContainsFunc(c.Notify, func(e Notify) bool { return e.Name == n }) {
			r.wrong(r.places[key+".notify"], key+".notify", "%q is no name of notify", n)
		}
	}
}

var jobName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
