package page

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// frame shows the page as wide as screens are, and writes down how it is there.
const frame = `<!DOCTYPE html><pre id="seen"></pre><iframe id="f" src="/page" style="border:0;height:900px"></iframe>
<script>
const f = document.getElementById("f"), seen = {widths: {}};
f.onload = () => {
  const d = f.contentDocument;
  for (const w of [360, 768, 1400]) {
    f.style.width = w + "px";
    seen.widths[w] = d.documentElement.scrollWidth - d.documentElement.clientWidth;
  }
  seen.paper = f.contentWindow.getComputedStyle(d.body).backgroundColor;
  seen.title = d.title;
  seen.scripts = d.querySelectorAll("script").length;
  const bar = d.querySelector("rect.s-hold").getBoundingClientRect();
  seen.hold = [Math.round(bar.width), Math.round(bar.height)];
  f.contentWindow.location.hash = "code-writer-timeout";
  setTimeout(() => {
    seen.opened = d.getElementById("code-writer-timeout").parentElement.open;
    document.getElementById("seen").textContent = JSON.stringify(seen);
  }, 100);
};
</script>`

// The page is as it is meant in a real browser: its style is applied, nothing of
// it is refused, nothing runs, no screen is too narrow, in light and in dark.
func TestBrowser(t *testing.T) {
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Fatalf("%v; test/packages installs it", err)
	}
	page := written(t, sample())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		switch r.URL.Path {
		case "/":
			_, _ = io.WriteString(w, frame)
		case "/page":
			_, _ = io.WriteString(w, page)
		default:
			if r.URL.Path != "/favicon.ico" { // which browsers ask for by themselves
				t.Errorf("the page wants %s", r.URL.Path)
			}
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	for name, c := range map[string]struct{ flag, paper string }{
		"light": {"--blink-settings=preferredColorScheme=1", "rgb(251, 250, 248)"},
		"dark":  {"--blink-settings=preferredColorScheme=0", "rgb(21, 23, 26)"},
	} {
		seen, said := browse(t, s.URL, c.flag)
		if seen.Paper != c.paper || seen.Scripts != 0 || !strings.HasPrefix(seen.Title, "Backup complete with exceptions, mail") || !seen.Opened {
			t.Errorf("%s: %+v", name, seen)
		}
		if seen.Hold[0] < 1 || seen.Hold[1] < 10 {
			t.Errorf("%s: the bar of the hold is of %v pixels", name, seen.Hold)
		}
		for screen, over := range seen.Widths {
			if over != 0 {
				t.Errorf("%s: %d pixels too wide on a screen of %s", name, over, screen)
			}
		}
		if refused := regexp.MustCompile(`(?i).*(refused|violates|Content.Security.Policy).*`).FindString(said); refused != "" {
			t.Errorf("%s: %s", name, refused)
		}
	}
}

type seen struct {
	Paper, Title string
	Scripts      int
	Opened       bool
	Hold         [2]int
	Widths       map[string]int
}

// browse returns what the frame wrote, and what the browser said.
func browse(t *testing.T, url, flag string) (s seen, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad", "--user-data-dir="+profile(t), "--enable-logging=stderr",
		flag, "--virtual-time-budget=10000", "--dump-dom", url+"/")
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr, c.WaitDelay = &out, &errs, 5*time.Second
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	err := c.Run()
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // what it has not waited for itself
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, errs.String())
	}
	doc, err := html.Parse(&out)
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if n.Data == "pre" && n.FirstChild != nil {
			if err := json.Unmarshal([]byte(n.FirstChild.Data), &s); err != nil {
				t.Fatal(err)
			}
			return s, errs.String()
		}
	}
	t.Fatalf("the page was not loaded\n%s", errs.String())
	return s, ""
}

// profile is a folder of the browser's own. What a browser starts may end, and
// write into it, after the browser itself.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "stillpoint-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(30 * time.Second); os.RemoveAll(dir) != nil && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	})
	return dir
}
