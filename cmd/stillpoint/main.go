// Command stillpoint backs up running Linux servers to one consistent moment.
// It holds what belongs to a terminal: commands, flags, printing, exit codes,
// and in wire.go the list of providers. Decisions are made elsewhere.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"stillpoint/internal/agent"
	"stillpoint/internal/guard"
	"stillpoint/internal/holder"
	"stillpoint/internal/openfile"
	"stillpoint/internal/writer/script"
	"stillpoint/internal/writer/sqlite"
)

func main() {
	// This program once more, in another role.
	guard.Main(duties()...)
	sqlite.Main()
	script.Main()
	holder.Main()
	agent.Main(newCow)
	openfile.Main()

	os.Exit(process(newEnv(), os.Args[1:]))
}

// process runs one command line as one that signals may end, and returns
// its exit code.
func process(e *env, args []string) int {
	ends := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	// A reader that went away must not kill a backup with its snapshots.
	signal.Ignore(syscall.SIGPIPE)
	return run(ctx, e, args)
}
