package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// A Webhook is a web service that gets the report by POST.
type Webhook struct {
	URL        string        // may hold a secret: only its host is ever shown
	SecretFile string        // of the signature; empty for none
	TokenFile  string        // of an Authorization header: Bearer; empty for none
	Tries      int           // 0 is 3
	Wait       time.Duration // before the second try, twice as long before each further one; 0 is 2 s
}

// Signature is the header with the HMAC-SHA256 of the body, as
// X-Hub-Signature-256 of GitHub is written: sha256=HEX.
const Signature = "X-Stillpoint-Signature-256"

// About is the host.
func (w Webhook) About() string {
	if u, err := url.Parse(w.URL); err == nil {
		return "posts to " + u.Scheme + "://" + u.Host
	}
	return "posts to a web service"
}

// Notify posts the report. What may pass, no answer or one of 429 and 5xx, is
// tried again.
func (w Webhook) Notify(ctx context.Context, n *Notice) error {
	body, err := n.JSON()
	if err != nil {
		return err
	}
	header, err := w.header(body, n)
	if err != nil {
		return err
	}
	tries, wait := w.Tries, w.Wait
	if tries == 0 {
		tries = 3
	}
	if wait == 0 {
		wait = 2 * time.Second
	}
	for try := 1; ; try++ {
		again, err := w.post(ctx, header, body)
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		if try >= tries {
			return fmt.Errorf("%d tries: %w", tries, err)
		}
		select {
		case <-time.After(wait):
			wait *= 2
		case <-ctx.Done():
			return err
		}
	}
}

func (w Webhook) header(body []byte, n *Notice) (http.Header, error) {
	h := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"stillpoint/" + n.Header.Version}}
	if n.Test {
		h.Set("X-Stillpoint-Test", "1")
	}
	token, err := secret(w.TokenFile)
	if err != nil {
		return nil, err
	}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	key, err := secret(w.SecretFile)
	if err != nil {
		return nil, err
	}
	if key != "" {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(body)
		h.Set(Signature, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return h, nil
}

// post tries once. A redirection is none that a POST would survive, and where
// it leads nobody has allowed.
func (w Webhook) post(ctx context.Context, header http.Header, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the URL cannot be used") // which the error shows
	}
	req.Header = header
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold a secret
		}
		return true, err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	if res.StatusCode/100 == 2 {
		return false, nil
	}
	return res.StatusCode == http.StatusTooManyRequests || res.StatusCode/100 == 5, fmt.Errorf("answered %s", res.Status)
}
