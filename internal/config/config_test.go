package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stillpoint/internal/problem"
)

const whole = `writers:
  retries: 0
  retry_wait: 5s
  window: 20s
  postgresql:
    policy: fail
    user: backup
    password_file: /etc/stillpoint/pg
    sockets: [/srv/pg/run]
  mariadb: {off: true, lock_wait: 3s}
  redis:
    policy: crash
    servers:
      - address: 127.0.0.1:6380
        user: backup
        password_file: /etc/stillpoint/redis
  sqlite: {policy: exclude}
  script:
    dir: /etc/freeze
    paths: [/srv/app]
    limit: 1m
`

func TestParse(t *testing.T) {
	c, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	w := c.Writers
	if w.Retries == nil || *w.Retries != 0 || time.Duration(w.RetryWait) != 5*time.Second || time.Duration(w.Window) != 20*time.Second {
		t.Errorf("%+v", w)
	}
	if w.PostgreSQL.Policy != "fail" || w.PostgreSQL.User != "backup" || w.PostgreSQL.PasswordFile == "" || len(w.PostgreSQL.Sockets) != 1 {
		t.Errorf("%+v", w.PostgreSQL)
	}
	if !w.MariaDB.Off || time.Duration(w.MariaDB.LockWait) != 3*time.Second || w.SQLite.Policy != "exclude" {
		t.Errorf("%+v, %+v", w.MariaDB, w.SQLite)
	}
	if len(w.Redis.Servers) != 1 || w.Redis.Servers[0].User != "backup" || w.Redis.Servers[0].Address != "127.0.0.1:6380" {
		t.Errorf("%+v", w.Redis)
	}
	if w.Script.Dir != "/etc/freeze" || time.Duration(w.Script.Limit) != time.Minute {
		t.Errorf("%+v", w.Script)
	}
	if c, err = Parse([]byte(" \n")); err != nil || c.Writers.Retries != nil {
		t.Errorf("an empty file: %+v, %v", c, err)
	}
}

// Every mistake is refused, and the message says where it is.
func TestMistakes(t *testing.T) {
	for text, want := range map[string][]string{
		"writers:\n  postgres: {}\n":                                                     {"postgres", "2:"},
		"writers:\n  window: soon\n":                                                     {"soon", "2:", "30s"},
		"writers:\n  window: -3s\n":                                                      {"-3s"},
		"writers:\n  retries: many\n":                                                    {"2:"},
		"writers:\n  retries: -1\n":                                                      {"writers.retries"},
		"writers:\n  redis: {policy: maybe}\n":                                           {"writers.redis.policy", "maybe", "exclude, crash, fail"},
		"writers:\n  script: {dir: freeze.d}\n":                                          {"freeze.d", "slash"},
		"writers: {redis: {off: true}, redis: {}}\n":                                     {"redis"},
		"writers:\n\tretries: 1\n":                                                       {"2:"},
		"jobs: [\n":                                                                      {""},
		"notify: [{command: [x]}]\n":                                                     {"notify[0]", "no name"},
		"notify:\n  - name: a\n    mail: {sever: x}\n":                                   {"sever", "3:"},
		"notify: [{name: a}]\n":                                                          {"notify a", "command, mail, webhook and metrics"},
		"notify: [{name: a, command: [x], metrics: {dir: /x}}]\n":                        {"has 2"},
		"notify: [{name: a, command: [x]}, {name: a, command: [x]}]\n":                   {"two of this name"},
		"notify: [{name: a, on: [never], command: [x]}]\n":                               {"never", "success, exceptions, failure, always"},
		"notify: [{name: a, kinds: [restores], command: [x]}]\n":                         {"restores", "backup, restore"},
		"notify: [{name: a, mail: {server: x, from: y}}]\n":                              {"needs server, from and to"},
		"notify: [{name: a, mail: {server: x, from: y, to: [z], tls: ssl}}]\n":           {"ssl", "starttls, tls, none"},
		"notify: [{name: a, mail: {server: x, from: y, to: [z], port: 65536}}]\n":        {"65536"},
		"notify: [{name: a, mail: {server: x, from: y, to: [z], auth: plain}}]\n":        {"without a user"},
		"notify: [{name: a, webhook: {url: 'ftp://hidden'}}]\n":                          {"https://HOST/PATH"},
		"notify: [{name: a, webhook: {url: 'https://x', secret_file: key}}]\n":           {"secret_file", "slash"},
		"defaults: &d\n  exclude: [a]\n  <<: *d\n":                                       {"3:3", "merged into itself"},
		"writers: &w\n  redis: &r\n    <<: &b\n      <<: *r\n":                           {"3:5", "merged into itself"},
		"notify: [{name: a, webhook: {url: 'https://x', tries: -1}}]\n":                  {"tries"},
		"notify: [{name: a, webhook: {url: 'http://x', token_file: /t}}]\n":              {"write https"},
		"notify: [{name: a, mail: {server: x, from: y, to: [z], tls: none, user: u}}]\n": {"tls: none", "starttls"},
		"notify: [{name: a, metrics: {}}]\n":                                             {"needs dir"},
		"notify: [{name: a, command: [bin/x]}]\n":                                        {"bin/x", "slash"},
		"notify: [{name: a, command: [x], timeout: soon}]\n":                             {"soon"},
	} {
		_, err := Parse([]byte(text))
		if err == nil {
			t.Errorf("%q is taken", text)
			continue
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %v", text, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %v does not say %q", text, err, w)
			}
		}
	}
}

// A file that is not there is no mistake, unless somebody named it.
func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if _, err := Read(path, false); err != nil {
		t.Error(err)
	}
	if _, err := Read(path, true); !problem.Is(err, problem.ConfigWrong) {
		t.Errorf("named and not there: %v", err)
	}
	if err := os.WriteFile(path, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, false); !problem.Is(err, problem.ConfigWrong) || !strings.Contains(err.Error(), path) {
		t.Errorf("nonsense: %v", err)
	}
	if err := os.WriteFile(path, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := (Login{PasswordFile: path}).Password(); p != "secret" || err != nil {
		t.Errorf("password %q, %v", p, err)
	}
	if _, err := (Login{PasswordFile: path + "-"}).Password(); !problem.Is(err, problem.ConfigWrong) {
		t.Error("a password file that is not there is taken")
	}
}
