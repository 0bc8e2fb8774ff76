package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const told = `notify:
  - name: metrics
    metrics: {dir: /var/lib/prometheus/node-exporter}
  - name: ops
    on: [failure, exceptions]
    kinds: [backup, restore]
    timeout: 30s
    mail:
      server: mail.example.org
      port: 2525
      tls: starttls
      ca_file: /etc/ssl/ca.pem
      auth: login
      user: backup
      password_file: /etc/stillpoint/mail.password
      from: backup@example.org
      to: [ops@example.org]
      attach: true
  - name: chat
    webhook: {url: "https://chat.example.org/hook", secret_file: /etc/stillpoint/hook, token_file: /etc/stillpoint/token, tries: 5}
  - name: script
    command: [/usr/local/bin/told, --loud]
`

func TestNotify(t *testing.T) {
	c, err := Parse([]byte(told))
	if err != nil {
		t.Fatal(err)
	}
	n := c.Notify
	if len(n) != 4 || n[0].Metrics.Dir == "" || n[2].Webhook.Tries != 5 || n[2].Webhook.SecretFile == "" || strings.Join(n[3].Command, " ") != "/usr/local/bin/told --loud" {
		t.Fatalf("%+v", n)
	}
	m := n[1].Mail
	if m.Server != "mail.example.org" || m.Port != 2525 || m.User != "backup" || m.PasswordFile == "" || m.Auth != "login" || !m.Attach || len(m.To) != 1 ||
		strings.Join(n[1].On, " ") != "failure exceptions" || len(n[1].Kinds) != 2 || time.Duration(n[1].Timeout) != 30*time.Second {
		t.Errorf("%+v %+v", n[1], m)
	}
}

// No mistake shows what may be a secret.
func TestNotifyHides(t *testing.T) {
	_, err := Parse([]byte("notify: [{name: a, webhook: {url: 'ftp://hidden'}}]\n"))
	if err == nil || strings.Contains(err.Error(), "hidden") {
		t.Error(err)
	}
}

// A password may go to this host itself as it is, and nothing that may be a secret
// is among what is shown.
func TestNotifyLogins(t *testing.T) {
	c, err := Parse([]byte("notify:\n" +
		"  - {name: a, webhook: {url: 'http://[::1]:80/', token_file: /t}}\n" +
		"  - {name: b, webhook: {url: 'http://x/'}}\n" +
		"  - {name: c, mail: {server: localhost, from: y, to: [z], tls: none, user: u}}\n" +
		"  - {name: d, command: [/bin/told, hidden]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range c.Rows() {
		if strings.Contains(row.Value.String(), "hidden") {
			t.Errorf("%s is %s", row.Key, row.Value)
		}
	}
}

// What the README shows is taken.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(b, -1) {
		c, err := Parse(block[1])
		if err != nil {
			t.Errorf("%s\n%v", block[1], err)
			continue
		}
		shown += len(c.Notify)
	}
	if shown != 4 {
		t.Errorf("%d notify entries", shown)
	}
}
