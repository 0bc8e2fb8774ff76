package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// done is how far long work is.
type done struct {
	files int64
	bytes int64
}

// A progress shows one line on a terminal, from one second on: how much is
// done, how fast, and how long the rest will take. A nil progress shows
// nothing, which is what a pipe gets.
type progress struct {
	e    *env
	word string
	read func() done
	end  chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	began time.Time
	all   done // what there is to do, as far as is known
	line  string
}

// progress begins when start is called.
func (e *env) progress(word string, quiet bool, read func() done) *progress {
	if !e.terminal || quiet || e.json {
		return nil
	}
	return &progress{e: e, word: word, read: read, end: make(chan struct{})}
}

// expect tells what there is to do; estimates may be wrong.
func (p *progress) expect(files, bytes int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = done{files, bytes}
}

func (p *progress) start() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.began = time.Now()
	p.mu.Unlock()
	p.wg.Go(func() {
		t := time.NewTicker(250 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-p.end:
				return
			case <-t.C:
				p.show()
			}
		}
	})
}

// stop removes the line.
func (p *progress) stop() {
	if p == nil {
		return
	}
	close(p.end)
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// above prints text over the line.
func (p *progress) above(e *env, text string) {
	if p == nil {
		fmt.Fprint(e.stderr, text)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprint(e.stderr, text)
}

func (p *progress) clear() {
	if p.line != "" {
		fmt.Fprint(p.e.stderr, "\r\x1b[K")
		p.line = ""
	}
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := time.Since(p.began)
	if took < time.Second {
		return
	}
	line := render(p.word, p.read(), p.all, took)
	fmt.Fprint(p.e.stderr, "\r"+line+"\x1b[K")
	p.line = line
}

// render makes the line. A total that turned out too small is not shown.
func render(word string, now, all done, took time.Duration) string {
	var b strings.Builder
	rate := float64(now.bytes) / took.Seconds()
	fmt.Fprintf(&b, "%s %d files, %s", word, now.files, bytesText(now.bytes))
	if all.bytes >= now.bytes && all.bytes > 0 {
		fmt.Fprintf(&b, " of %s (%d%%)", bytesText(all.bytes), now.bytes*100/all.bytes)
	}
	fmt.Fprintf(&b, ", %s/s", bytesText(int64(rate)))
	if left := timeLeft(now, all, took); left > 0 {
		fmt.Fprintf(&b, ", %s left", left.Round(time.Second))
	}
	return b.String()
}

// timeLeft takes bytes or files, whichever are further from done.
func timeLeft(now, all done, took time.Duration) time.Duration {
	part := 1.0
	if all.bytes > 0 && now.bytes > 0 {
		part = min(part, float64(now.bytes)/float64(all.bytes))
	}
	if all.files > 0 && now.files > 0 {
		part = min(part, float64(now.files)/float64(all.files))
	}
	if part <= 0 || part >= 1 {
		return 0
	}
	return time.Duration(float64(took) * (1 - part) / part)
}

// bytesText shows a size with three digits.
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1000 && i < 5 {
		v, i = v/1024, i+1
	}
	digits := 2
	if v >= 100 {
		digits = 0
	} else if v >= 10 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %ciB", digits, v, "KMGTPE"[i])
}
