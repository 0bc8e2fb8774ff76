package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/wneessen/go-mail"

	"stillpoint/internal/job"
	"stillpoint/internal/job/text"
)

// A Mail is one to some people, by SMTP.
type Mail struct {
	Server       string // host
	Port         int    // 0 is 587, 465 or 25, by TLS
	TLS          string // starttls (also where empty), tls from the first byte on, none
	CAFile       string // whom to trust besides those that the host trusts
	Auth         string // plain, login, or empty: what the server likes best
	User         string // empty for no login
	PasswordFile string
	From         string
	To           []string
	Attach       bool // the HTML page
}

// About is the addresses.
func (m Mail) About() string { return "mails to " + strings.Join(m.To, ", ") + " by " + m.Server }

// Notify sends it.
func (m Mail) Notify(ctx context.Context, n *Notice) error {
	msg, err := m.message(n)
	if err != nil {
		return err
	}
	options, err := m.options()
	if err != nil {
		return err
	}
	c, err := mail.NewClient(m.Server, options...)
	if err != nil {
		return err
	}
	return c.DialAndSendWithContext(ctx, msg)
}

// options are how to talk to the server. A password goes over an encrypted
// connection only, or to this host itself.
func (m Mail) options() ([]mail.Option, error) {
	o := []mail.Option{mail.WithTimeout(Limit)}
	port := m.Port
	byDefault := func(of int) {
		if port == 0 {
			port = of
		}
	}
	switch m.TLS {
	case "none":
		byDefault(25)
		o = append(o, mail.WithTLSPolicy(mail.NoTLS))
	case "tls":
		byDefault(465)
		o = append(o, mail.WithSSL())
	default:
		byDefault(587)
		o = append(o, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	trust, err := m.trust()
	if err != nil {
		return nil, err
	}
	o = append(o, mail.WithPort(port), mail.WithTLSConfig(trust))
	if m.User == "" {
		return o, nil
	}
	password, err := secret(m.PasswordFile)
	if err != nil {
		return nil, err
	}
	auth := map[string]mail.SMTPAuthType{"": mail.SMTPAuthAutoDiscover, "plain": mail.SMTPAuthPlain, "login": mail.SMTPAuthLogin}[m.Auth]
	return append(o, mail.WithSMTPAuth(auth), mail.WithUsername(m.User), mail.WithPassword(password)), nil
}

func (m Mail) trust() (*tls.Config, error) {
	c := &tls.Config{ServerName: m.Server, MinVersion: tls.VersionTLS12}
	if m.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(m.CAFile)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", m.CAFile)
	}
	c.RootCAs = pool
	return c, nil
}

func (m Mail) message(n *Notice) (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := errors.Join(msg.From(m.From), msg.To(m.To...)); err != nil {
		return nil, err
	}
	msg.Subject(Subject(n))
	msg.SetDate()
	msg.SetMessageID()
	// RFC 3834: no holiday answers.
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	var body bytes.Buffer
	if n.Test {
		body.WriteString("This is a test: nothing has happened, and the job below is none.\n\n")
	}
	if err := text.Report(&body, *n.Report); err != nil {
		return nil, err
	}
	msg.SetBodyString(mail.TypeTextPlain, body.String())
	if m.Attach && n.Page != nil {
		html, err := n.Page()
		if err != nil {
			return nil, err
		}
		if err := msg.AttachReader("stillpoint-"+n.Report.Job+".html", bytes.NewReader(html), mail.WithFileContentType(mail.TypeTextHTML)); err != nil {
			return nil, err
		}
	}
	return msg, nil
}

// Subject says it in one line, the result first.
func Subject(n *Notice) string {
	r := n.Report
	s := strings.ReplaceAll(string(r.Status), "-", " ")
	if r.Status == job.Failed || r.Status == job.Cancelled {
		s = strings.ToUpper(s)
	}
	s += ": " + string(r.Kind)
	if n.Name != "" {
		s += " " + n.Name
	}
	s += " on " + n.Header.Host
	if r.Code != "" {
		s += " [" + string(r.Code) + "]"
	}
	if n.Test {
		s = "TEST, " + s
	}
	return text.Printable(s)
}
