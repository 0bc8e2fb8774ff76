package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"stillpoint/internal/job"
	"stillpoint/internal/problem"
)

func TestWebhook(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, []byte("key"))
		mac.Write(body)
		var rep job.Report
		switch n := asked.Add(1); {
		case n < 3:
			w.WriteHeader(http.StatusBadGateway)
		case r.Method != http.MethodPost, r.Header.Get("Content-Type") != "application/json", r.Header.Get("Authorization") != "Bearer token",
			r.Header.Get(Signature) != "sha256="+hex.EncodeToString(mac.Sum(nil)),
			json.Unmarshal(body, &rep) != nil, rep.Status != job.Failed, rep.Volumes[0].Mounts[0] != "/srv/\xff":
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer s.Close()
	w := Webhook{URL: s.URL + "/hook?key=hidden", SecretFile: put(t, "key\n"), TokenFile: put(t, "token"), Wait: time.Millisecond}
	must(t, w.Notify(t.Context(), notice(job.Failed, problem.CacheFull)))
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	if about := w.About(); strings.Contains(about, "hidden") || !strings.Contains(about, "http://127.0.0.1") {
		t.Errorf("about %q", about)
	}
}

// What will not pass is not tried again, and no error shows the URL.
func TestWebhookRefused(t *testing.T) {
	for status, want := range map[int]int32{http.StatusForbidden: 1, http.StatusFound: 1, http.StatusInternalServerError: 2, http.StatusTooManyRequests: 2} {
		var asked atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		}))
		w := Webhook{URL: s.URL + "/hidden", Tries: 2, Wait: time.Millisecond}
		err := w.Notify(t.Context(), notice(job.Failed, problem.CacheFull))
		if err == nil || strings.Contains(err.Error(), "hidden") || asked.Load() != want {
			t.Errorf("%d: asked %d times, %v", status, asked.Load(), err)
		}
		s.Close()
		if err := w.Notify(t.Context(), notice(job.Failed, problem.CacheFull)); err == nil || strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), "2 tries") {
			t.Errorf("nobody there: %v", err)
		}
	}
	if err := (Webhook{URL: "http://x/", SecretFile: "/none"}).Notify(t.Context(), notice(job.Failed, "")); err == nil {
		t.Error("a secret that is not there is taken")
	}
}
