// Command bench compares stillpoint with restic, borg and the kopia program on
// the same data in one run, and prints a Markdown table. It must run as root:
// the data lie on a scratch btrfs volume on a loop device, which it makes and
// removes. bench/README.md says what is measured and how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// options are the command line.
type options struct {
	dir        string
	files      int
	large      int64
	runs       int
	seed       uint64
	only       []string
	provider   string
	stillpoint string
	kopia      string
	json       string
	cold       bool
	check      bool
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = alone()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = bench(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", os.TempDir(), "folder on the disk that is to hold the volume, the repositories and what is restored")
	f.IntVar(&o.files, "files", 100_000, "number of files")
	large := f.String("large", "4GiB", "size of the large file; 0 leaves it out")
	f.IntVar(&o.runs, "runs", 3, "runs, of which the medians count")
	f.Uint64Var(&o.seed, "seed", 1, "what the data are made from")
	only := f.String("only", "restic,borg,kopia,stillpoint", "programs to compare; there are also kopia-plain, as it comes, without compression, and stillpoint-live, which reads the live files as the others do")
	f.StringVar(&o.provider, "provider", "auto", "snapshot provider of stillpoint; none reads the live files")
	f.StringVar(&o.stillpoint, "stillpoint", "", "stillpoint program (default: build it)")
	f.StringVar(&o.kopia, "kopia", "", "kopia program (default: build it, from the version in go.mod)")
	f.StringVar(&o.json, "json", "", "also write every single measurement to this file")
	f.BoolVar(&o.cold, "cold", true, "let the kernel forget all files before each call; -cold=false reads them all once instead")
	f.BoolVar(&o.check, "check", true, "compare what was restored with the data, byte by byte")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	o.only = strings.Split(*only, ",")
	var err error
	if o.large, err = parseSize(*large); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.files < 0 || o.runs < 1:
		return nil, errors.New("-files must not be negative, -runs at least 1")
	case os.Geteuid() != 0:
		return nil, errors.New("must run as root, to mount the scratch volume")
	}
	return o, nil
}

// alone starts this program again in a mount namespace of its own, where it
// is not in one: then nothing stays mounted, however it ends.
func alone() error {
	const inside = "STILLPOINT_BENCH_INSIDE"
	if os.Getenv(inside) != "" {
		return os.Unsetenv(inside)
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{"unshare", "--mount", "--propagation", "private", self}, os.Args[1:]...)
	return syscall.Exec(unshare, args, append(os.Environ(), inside+"=1"))
}

// units are powers of 1024.
const units = "KMGT"

func parseSize(s string) (int64, error) {
	number := strings.TrimSuffix(strings.TrimSuffix(s, "iB"), "B")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte(units, number[n-1]); i >= 0 {
			number, shift = number[:n-1], 10*(i+1)
		}
	}
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil || v < 0 || v<<shift>>shift != v {
		return 0, fmt.Errorf("%q is no size; say 200MiB", s)
	}
	return v << shift, nil
}

func formatSize(n int64) string {
	v, unit := float64(n), "B"
	for i := 0; v >= 1024 && i < len(units); i++ {
		v, unit = v/1024, units[i:i+1]+"iB"
	}
	if v < 100 && unit != "B" {
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}
