package tool

import (
	"context"
	"os"
	"os/exec"
	"syscall"

	"stillpoint/internal/sys/memfile"
)

// Self starts this very program once more, under another name, to be a helper
// of this process: its main function knows it by os.Args[0]. It starts what
// runs, even if the file has been replaced. The helper has the files given as
// its descriptors 3 and on and no others, nothing on its standard ones but a file in
// memory for what Go says when a program crashes, which is part of Wait's error, an
// environment of env alone, the root directory as its own, and a session of
// its own, so that no terminal's signals reach it. It is not ended with this
// process; it has to notice that itself. Wait must be called.
func Self(name string, env []string, files ...*os.File) (*Process, error) {
	p := &Process{command: []string{name}, stderr: &last{limit: crashLimit}, ctx: context.Background(), done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        []string{name},
		Env:         env,
		Dir:         "/",
		ExtraFiles:  files,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if env == nil {
		p.cmd.Env = []string{} // nil would mean all of ours
	}
	said, err := memfile.New(name, nil)
	if err != nil {
		return nil, p.failed(err)
	}
	p.cmd.Stderr = said
	if err := p.cmd.Start(); err != nil {
		said.Close()
		return nil, p.failed(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		last := make([]byte, crashLimit)
		n, _ := said.ReadAt(last, 0) // up to its end
		_, _ = p.stderr.Write(last[:n])
		said.Close()
		close(p.done)
	}()
	return p, nil
}

// crashLimit is how much is kept of it: what happened comes first, and where.
const crashLimit = 1 << 10
