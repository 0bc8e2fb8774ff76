// Package config reads the configuration file, /etc/stillpoint/config.yaml. It
// knows what may stand there and what a value has to look like; what the values
// mean, those know who get them. Without a file all is as if an empty one were
// there.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"stillpoint/internal/problem"
)

// Path is where the file is, unless STILLPOINT_CONFIG or a flag names another.
const Path = "/etc/stillpoint/config.yaml"

// A Config is the content of the file.
type Config struct {
	Writers Writers  `yaml:"writers"`
	Notify  []Notify `yaml:"notify"` // who is told how jobs end
}

// Writers says how applications are brought to rest.
type Writers struct {
	// Retries is how often a capture is tried again in which a writer failed
	// with something that may pass, and RetryWait how long is waited before.
	Retries   *int     `yaml:"retries"`    // 3
	RetryWait Duration `yaml:"retry_wait"` // 30s

	// Window is the longest that an application may rest.
	Window Duration `yaml:"window"` // 60s

	PostgreSQL PostgreSQL `yaml:"postgresql"`
	MariaDB    MariaDB    `yaml:"mariadb"`
	Redis      Redis      `yaml:"redis"`
	SQLite     Common     `yaml:"sqlite"`
	Script     Script     `yaml:"script"`
}

// Common is what every writer has.
type Common struct {
	Off bool `yaml:"off"` // do not look for applications of this kind

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
	Dir    string   `yaml:"dir"`   // of the executables; /etc/stillpoint/freeze.d
	Paths  []string `yaml:"paths"` // which data they bring to rest
	Limit  Duration `yaml:"limit"` // of one script
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

// Read reads the file. One that is not there is an empty one, unless it must be.
func Read(path string, must bool) (*Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return &Config{}, nil
	}
	if err != nil {
		return nil, problem.New(problem.ConfigWrong, path, err)
	}
	c, err := Parse(b)
	if err != nil {
		return nil, problem.New(problem.ConfigWrong, path, err)
	}
	return c, nil
}

// Parse reads the content of a file. An error says line and column, on one line
// as all errors are.
func Parse(b []byte) (*Config, error) {
	c := &Config{}
	if len(strings.TrimSpace(string(b))) == 0 {
		return c, nil
	}
	if err := yaml.UnmarshalWithOptions(b, c, yaml.Strict(), yaml.DisallowUnknownField()); err != nil {
		return nil, errors.New(strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	return c, c.check()
}

// check looks at what the types do not say.
func (c *Config) check() error {
	w := c.Writers
	var errs []error
	for name, of := range map[string]Common{"postgresql": w.PostgreSQL.Common, "mariadb": w.MariaDB.Common, "redis": w.Redis.Common, "sqlite": w.SQLite, "script": w.Script.Common} {
		switch of.Policy {
		case "", "exclude", "crash", "fail":
		default:
			errs = append(errs, fmt.Errorf("writers.%s.policy: %q is none of exclude, crash, fail", name, of.Policy))
		}
	}
	if w.Retries != nil && *w.Retries < 0 {
		errs = append(errs, fmt.Errorf("writers.retries: %d is less than none", *w.Retries))
	}
	for _, p := range append([]string{w.Script.Dir}, w.Script.Paths...) {
		if p != "" && !filepath.IsAbs(p) {
			errs = append(errs, fmt.Errorf("writers.script: %q does not begin with a slash", p))
		}
	}
	return errors.Join(append(errs, checkNotify(c.Notify))...)
}
