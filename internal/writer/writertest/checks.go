package writertest

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"stillpoint/internal/problem"
	"stillpoint/internal/writer"
)

// What is found is described, again and again the same, in the order of the
// ids, and asking whether it can be brought to rest changes nothing.
func checkFound(c *C) {
	w := c.host.New(c)
	a := c.instance().About()
	if a.Writer != w.Name() || !strings.HasPrefix(a.ID, w.Name()+":") {
		c.Errorf("%q of writer %q has the id %q", a.Writer, w.Name(), a.ID)
	}
	if len(a.Paths) == 0 {
		c.Error("no paths")
	}
	for _, p := range a.Paths {
		if r, err := filepath.EvalSymlinks(p); err != nil || r != p || !filepath.IsAbs(p) {
			c.Errorf("path %q resolves to %q: %v", p, r, err)
		}
	}
	all, err := w.Discover(c.within(soon), c.app.Scope())
	c.must(err)
	var ids []string
	for _, in := range all {
		ids = append(ids, in.About().ID)
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		c.Errorf("ids %q", ids)
	}
	c.must(c.instance().Check(c.within(soon)))
	c.goesOn(soon)
}

// A client's change waits from Freeze to Thaw, and is made then.
func checkRest(c *C) {
	s := c.prepare(writer.Need{OneInstant: true, Window: time.Minute})
	c.goesOn(soon) // prepared is not at rest
	c.must(s.Freeze(c.within(soon)))
	change := c.begun()
	select {
	case err := <-change:
		if c.host.Suspends {
			c.Errorf("a change was made while the application was at rest: %v", err)
		}
	case <-time.After(pause):
		if !c.host.Suspends {
			c.Error("a change waits")
		}
	}
	_, err := s.Thaw(c.within(soon))
	c.must(err)
	if c.host.Suspends {
		select {
		case err := <-change:
			c.must(err)
		case <-time.After(soon):
			c.Fatal("a change waits after the thaw")
		}
	}
	c.goesOn(soon)
}

// A session may be ended without having rested, and another one begun.
func checkThawOnly(c *C) {
	for range 3 {
		_, err := c.prepare(writer.Need{Window: time.Minute}).Thaw(c.within(soon))
		c.must(err)
	}
	c.goesOn(soon)
}

// Nothing is brought to rest for one who has no time any more.
func checkOver(c *C) {
	s := c.prepare(writer.Need{Window: time.Minute})
	ctx := c.within(time.Nanosecond)
	<-ctx.Done()
	if err := s.Freeze(ctx); err == nil {
		c.Error("Freeze succeeds with a context that is over")
	}
	c.goesOn(soon)
	_, _ = s.Thaw(c.within(soon))
	c.goesOn(soon)
}

// A Thaw that comes while Freeze is at work leaves nothing at rest.
func checkOvertaken(c *C) {
	for range 10 {
		s := c.prepare(writer.Need{Window: time.Minute})
		frozen := make(chan error, 1)
		ctx := c.within(soon)
		go func() { frozen <- s.Freeze(ctx) }()
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		_, _ = s.Thaw(c.within(soon)) // says that the rest was short, or not
		select {
		case <-frozen:
		case <-time.After(soon):
			c.Fatal("Freeze does not return after Thaw")
		}
		c.goesOn(soon)
	}
}

// Nobody waits longer than the window, and what was taken then is not trusted.
func checkWindow(c *C) {
	if !c.host.Suspends {
		return // nobody waits at all
	}
	s := c.prepare(writer.Need{Window: window})
	c.must(s.Freeze(c.within(soon)))
	c.goesOn(window + soon/2)
	if _, err := s.Thaw(c.within(soon)); problem.CodeOf(err) == problem.Uncatalogued || err == nil {
		c.Errorf("Thaw after the window says %v", err)
	}
	c.goesOn(soon)
}

// The end of our process is the end of the rest.
func checkKilled(c *C) {
	p := c.inChild(time.Minute)
	c.must(syscall.Kill(p, syscall.SIGKILL))
	c.goesOn(soon / 2)
}

// So is the end of the window, when our process is stopped.
func checkStopped(c *C) {
	p := c.inChild(window)
	c.must(syscall.Kill(p, syscall.SIGSTOP))
	c.goesOn(window + soon/2)
}

// An application that does not answer is not waited for longer than the
// context says.
func checkServerStopped(c *C) {
	pid := c.app.Process()
	if pid == 0 {
		return // there is none that could be stopped
	}
	in := c.instance()
	s, err := in.Prepare(c.within(soon), writer.Need{Window: time.Minute})
	c.must(err)
	c.must(syscall.Kill(pid, syscall.SIGSTOP))
	c.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	began := time.Now()
	ferr := s.Freeze(c.within(window))
	_, terr := s.Thaw(c.within(window))
	_, perr := in.Prepare(c.within(window), writer.Need{Window: time.Minute})
	if took := time.Since(began); took > 4*window+soon/2 {
		c.Errorf("an application that does not answer was waited for for %v", took)
	}
	if c.host.Suspends && problem.CodeOf(ferr) != problem.WriterTimeout {
		c.Errorf("Freeze says %v", ferr)
	}
	if problem.CodeOf(perr) != problem.WriterTimeout {
		c.Errorf("Prepare says %v", perr)
	}
	c.Logf("Freeze: %v; Thaw: %v; Prepare: %v", ferr, terr, perr)
	c.must(syscall.Kill(pid, syscall.SIGCONT))
	c.goesOn(soon)
}

// An application that ends while it rests is noticed.
func checkServerKilled(c *C) {
	pid := c.app.Process()
	if pid == 0 {
		return // there is none that could end
	}
	s := c.prepare(writer.Need{Window: time.Minute})
	c.must(s.Freeze(c.within(soon)))
	c.must(syscall.Kill(pid, syscall.SIGKILL))
	for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat("/proc/" + itoa(pid) + "/fd/0"); err != nil || time.Now().After(end) {
			break // it is gone, or a zombie
		}
	}
	_, err := s.Thaw(c.within(soon))
	if c.host.Suspends && (err == nil || problem.CodeOf(err) == problem.Uncatalogued) {
		c.Errorf("Thaw of an application that is gone says %v", err)
	}
}
