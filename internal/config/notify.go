package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Notify is one receiver that is told how jobs end. Exactly one of Command, Mail,
// Webhook and Metrics says how.
type Notify struct {
	Name    string   `yaml:"name"`
	On      []string `yaml:"on" default:"always"`           // success, exceptions, failure, always; empty is always
	Kinds   []string `yaml:"kinds" default:"backup verify"` // of jobs; empty is backup and verify
	Timeout Duration `yaml:"timeout" default:"1m"`          // 1m

	Command []string       `yaml:"command" secret:"true"` // program and arguments, which may hold one
	Mail    *NotifyMail    `yaml:"mail"`
	Webhook *NotifyWebhook `yaml:"webhook"`
	Metrics *NotifyMetrics `yaml:"metrics"`
}

// NotifyMail is a mail by SMTP.
type NotifyMail struct {
	Server string   `yaml:"server"`
	Port   int      `yaml:"port"` // by tls 587, 465 or 25
	TLS    string   `yaml:"tls"`  // starttls, tls, none; empty is starttls
	CAFile string   `yaml:"ca_file"`
	Auth   string   `yaml:"auth"` // plain, login; empty is what the server likes best
	From   string   `yaml:"from"`
	To     []string `yaml:"to"`
	Attach bool     `yaml:"attach"` // the HTML page

	Login `yaml:",inline"`
}

// NotifyWebhook is a web service that gets the report by POST.
type NotifyWebhook struct {
	URL        string `yaml:"url" secret:"true"` // may have one in it
	SecretFile string `yaml:"secret_file"`       // of the signature
	TokenFile  string `yaml:"token_file"`        // of the header Authorization: Bearer
	Tries      int    `yaml:"tries"`             // 3
}

// NotifyMetrics is a folder for the textfile collector of node_exporter.
type NotifyMetrics struct {
	Dir string `yaml:"dir"`
}

// checkNotify looks at what the types do not say.
func checkNotify(all []Notify, r *reader) {
	names := map[string]bool{}
	for i, n := range all {
		at := fmt.Sprintf("notify[%d]", i)
		if n.Name != "" {
			at = "notify " + n.Name
		}
		wrong := func(format string, args ...any) { r.wrong(r.places["notify"], at, format, args...) }
		switch {
		case n.Name == "":
			wrong("has no name")
		case names[n.Name]:
			wrong("there are two of this name")
		}
		names[n.Name] = true
		for _, o := range n.On {
			oneOf(wrong, "on", o, "success", "exceptions", "failure", "always")
		}
		for _, k := range n.Kinds {
			oneOf(wrong, "kinds", k, "backup", "restore", "verify", "clean")
		}
		ways := 0
		for _, there := range []bool{len(n.Command) > 0, n.Mail != nil, n.Webhook != nil, n.Metrics != nil} {
			if there {
				ways++
			}
		}
		if ways != 1 {
			wrong("has %d of command, mail, webhook and metrics, and needs one", ways)
			continue
		}
		n.checkWay(wrong)
	}
}

func (n *Notify) checkWay(wrong func(string, ...any)) {
	absolute := func(word, file string) {
		if file != "" && !filepath.IsAbs(file) {
			wrong("%s: %s", word, relative(word, file))
		}
	}
	switch {
	case n.Mail != nil:
		m := n.Mail
		if m.Server == "" || m.From == "" || len(m.To) == 0 {
			wrong("mail needs server, from and to")
		}
		oneOf(wrong, "tls", m.TLS, "", "starttls", "tls", "none")
		oneOf(wrong, "auth", m.Auth, "", "plain", "login")
		absolute("ca_file", m.CAFile)
		absolute("password_file", m.PasswordFile)
		if m.Port < 0 || m.Port > 65535 {
			wrong("port: %d is none", m.Port)
		}
		if m.User == "" && (m.PasswordFile != "" || m.Auth != "") {
			wrong("mail has a login without a user")
		}
		if m.User != "" && m.TLS == "none" && !loopback(m.Server) {
			wrong("tls: none would show the login to everybody on the way: write starttls or tls")
		}
	case n.Webhook != nil:
		u, err := url.Parse(n.Webhook.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			wrong("url: write https://HOST/PATH") // it may hold a secret, and is not shown
		}
		if err == nil && u.Scheme == "http" && n.Webhook.TokenFile != "" && !loopback(u.Hostname()) {
			wrong("url: http would show the token to everybody on the way: write https")
		}
		absolute("secret_file", n.Webhook.SecretFile)
		absolute("token_file", n.Webhook.TokenFile)
		if n.Webhook.Tries < 0 {
			wrong("tries: %d is less than none", n.Webhook.Tries)
		}
	case n.Metrics != nil:
		if n.Metrics.Dir == "" {
			wrong("metrics needs dir")
		}
		absolute("dir", n.Metrics.Dir)
	default:
		if strings.Contains(n.Command[0], "/") {
			absolute("command", n.Command[0])
		}
	}
}

func oneOf(wrong func(string, ...any), word, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		wrong("%s: %q is none of %s", word, value, strings.Trim(strings.Join(allowed, ", "), ", "))
	}
}

// loopback tells whether a server is this host itself, as it was named.
func loopback(server string) bool {
	ip, err := netip.ParseAddr(server)
	return strings.EqualFold(server, "localhost") || err == nil && ip.Unmap().IsLoopback()
}
