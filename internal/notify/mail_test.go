package notify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

// A post is a mail server on loopback that keeps what it gets.
type post struct {
	port int
	ca   string // file with its certificate

	mu    sync.Mutex
	auths []string // mechanisms that were used
	from  string
	to    []string
	got   [][]byte
}

func newPost(t *testing.T, implicit, encrypted bool) *post {
	t.Helper()
	p := &post{}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &received{post: p}, nil }))
	s.Domain, s.ReadTimeout, s.WriteTimeout = "localhost", 10*time.Second, 10*time.Second
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p.port = l.Addr().(*net.TCPAddr).Port
	if encrypted {
		var certificate tls.Certificate
		certificate, p.ca = certified(t)
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
		if implicit {
			l = tls.NewListener(l, s.TLSConfig)
		}
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return p
}

// certified makes a certificate of 127.0.0.1 that nobody trusts yet.
func certified(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, put(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// received is a session.
type received struct {
	*post
	in bool
}

func (s *received) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

func (s *received) Auth(mechanism string) (sasl.Server, error) {
	check := func(user, password string) error {
		if user != "backup" || password != "right secret" {
			return errors.New("wrong")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.in = true
		s.auths = append(s.auths, mechanism)
		return nil
	}
	if mechanism == sasl.Login {
		return &login{check: check}, nil
	}
	return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
}

// login is the server of LOGIN, which go-sasl lacks.
type login struct {
	check func(user, password string) error
	said  []string
}

func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	if response != nil {
		l.said = append(l.said, string(response))
	}
	switch len(l.said) {
	case 0:
		return []byte("Username:"), false, nil
	case 1:
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.said[0], l.said[1])
}

func (s *received) Mail(from string, _ *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.to = from, nil
	return nil
}

func (s *received) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, Message: "no such mail box"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = append(s.to, to)
	return nil
}

func (s *received) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, b)
	return err
}

func (s *received) Reset()        {}
func (s *received) Logout() error { return nil }

func TestMail(t *testing.T) {
	password := put(t, "right secret\n")
	for name, tt := range map[string]struct {
		implicit, encrypted bool
		mail                Mail
		auth                string
	}{
		"starttls and plain": {false, true, Mail{User: "backup", PasswordFile: password, Auth: "plain"}, sasl.Plain},
		"starttls and login": {false, true, Mail{TLS: "starttls", User: "backup", PasswordFile: password, Auth: "login"}, sasl.Login},
		"starttls and any":   {false, true, Mail{User: "backup", PasswordFile: password}, sasl.Plain},
		"tls":                {true, true, Mail{TLS: "tls", User: "backup", PasswordFile: password, Auth: "plain"}, sasl.Plain},
		"without any":        {false, false, Mail{TLS: "none"}, ""},
	} {
		p := newPost(t, tt.implicit, tt.encrypted)
		m := tt.mail
		m.Server, m.Port, m.CAFile, m.From, m.To, m.Attach = "127.0.0.1", p.port, p.ca, "Stillpoint <backup@mail.example>", []string{"root@mail.example", "ops@example.org"}, true
		if err := m.Notify(t.Context(), notice(job.Failed, problem.CacheFull)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p.mu.Lock()
		if len(p.got) != 1 || p.from != "backup@mail.example" || strings.Join(p.to, " ") != "root@mail.example ops@example.org" || strings.Join(p.auths, " ") != tt.auth {
			t.Errorf("%s: %d from %q to %q by %q", name, len(p.got), p.from, p.to, p.auths)
		}
		p.mu.Unlock()
		if name == "tls" {
			readMail(t, string(p.got[0]))
		}
	}
}

// readMail looks at a mail as its reader does.
func readMail(t *testing.T, raw string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(raw))
	must(t, err)
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	must(t, err)
	if subject != "FAILED: backup on mail.example [cache-full]" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Message-ID") == "" {
		t.Errorf("subject %q, header %v", subject, m.Header)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	must(t, err)
	parts := multipart.NewReader(m.Body, params["boundary"])
	var seen []string
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		b, err := io.ReadAll(part) // which undoes quoted-printable
		must(t, err)
		seen = append(seen, part.Header.Get("Content-Type")+" "+part.FileName()+" "+string(b))
	}
	if len(seen) != 2 || !strings.HasPrefix(seen[0], "text/plain") || !strings.Contains(seen[0], "Backup failed") || !strings.Contains(seen[0], "explain cache-full") ||
		!strings.HasPrefix(seen[1], "text/html") || !strings.Contains(seen[1], "stillpoint-3fk2m5xq7a.html") {
		t.Errorf("parts %q", seen)
	}
}

// A mail that cannot be sent says why, and never the password.
func TestMailRefused(t *testing.T) {
	open, closed := newPost(t, false, true), newPost(t, false, false)
	good := Mail{Server: "127.0.0.1", Port: open.port, CAFile: open.ca, From: "a@mail.example", To: []string{"root@mail.example"}}
	for name, tt := range map[string]struct {
		change func(*Mail)
		want   string
	}{
		"wrong password":     {func(m *Mail) { m.User, m.PasswordFile, m.Auth = "backup", put(t, "wrong secret"), "plain" }, "auth"},
		"no password":        {func(m *Mail) { m.User, m.PasswordFile = "backup", "/none" }, "/none"},
		"unknown authority":  {func(m *Mail) { m.CAFile = "" }, "certificate"},
		"no certificate":     {func(m *Mail) { m.CAFile = put(t, "none") }, "holds no certificate"},
		"no TLS there":       {func(m *Mail) { m.Port, m.CAFile = closed.port, "" }, "STARTTLS"},
		"nobody there":       {func(m *Mail) { m.Port = 1 }, "refused"},
		"nobody of the name": {func(m *Mail) { m.To = []string{"nobody@mail.example"} }, "no such mail box"},
		"no address":         {func(m *Mail) { m.To = []string{"root"} }, "root"},
	} {
		m := good
		tt.change(&m)
		err := m.Notify(t.Context(), notice(job.Failed, problem.CacheFull))
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.want)) || strings.Contains(err.Error(), "wrong secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(open.got) + len(closed.got); n != 0 {
		t.Errorf("%d were sent", n)
	}
}

// A subject says the result first, on one line.
func TestSubject(t *testing.T) {
	n := notice(job.CompleteWithExceptions, problem.FileUnreadable)
	n.Name, n.Test, n.Header.Host = "nightly\n", true, "a\r\nBcc: x"
	if got, want := Subject(n), `TEST, complete with exceptions: backup nightly\n on a\r\nBcc: x [file-unreadable]`; got != want {
		t.Errorf("%q", got)
	}
}
