//go:build bench

package cow_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const fioSize = 256 << 20

// fio measures random writes of 8 KiB to one file: buffered and direct.
func fio(r *rig) {
	program, err := exec.LookPath("fio")
	if err != nil {
		r.Fatalf("%v: ./test/packages bench installs it", err)
	}
	path := r.file("file", fioSize)
	r.eachRound(func() {
		r.underLoad(r.fio(program, path, "buffered", 0))
		r.underLoad(r.fio(program, path, "direct", 1))
	})
}

// fioStep is the time that a line of fio's log stands for.
const fioStep = 100 * time.Millisecond

func (r *rig) fio(program, path, name string, direct int) load {
	return load{"fio, random 8 KiB writes, " + name, "1/s", func() func() []sample {
		r.sync()
		log := filepath.Join(r.TempDir(), "log")
		c := exec.CommandContext(r.Context(), program, "--name=job", "--filename="+path, "--size="+strconv.Itoa(fioSize),
			"--ioengine=psync", "--rw=randwrite", "--bs=8k", "--direct="+strconv.Itoa(direct), "--norandommap", "--randrepeat=0",
			"--time_based", "--runtime="+strconv.Itoa(int(loadTime.Seconds())), "--write_iops_log="+log,
			"--log_avg_msec="+strconv.FormatInt(fioStep.Milliseconds(), 10), "--log_unix_epoch=1")
		c.Dir = r.TempDir()
		said := &strings.Builder{}
		c.Stdout, c.Stderr = said, said
		r.must(c.Start())
		return func() []sample {
			if err := c.Wait(); err != nil {
				r.Fatalf("fio: %v: %s", err, said)
			}
			return r.fioLog(log + "_iops.1.log")
		}
	}}
}

// fioLog reads lines of a time in milliseconds, operations per second in the time
// up to it, and more (fio(1), "LOG FILE FORMATS").
func (r *rig) fioLog(path string) (all []sample) {
	r.Helper()
	f, err := os.Open(path)
	r.must(err)
	defer f.Close()
	in := csv.NewReader(f)
	in.TrimLeadingSpace, in.FieldsPerRecord = true, -1
	lines, err := in.ReadAll()
	r.must(err)
	for _, line := range lines {
		var at int64
		var perSecond float64
		_, err := fmt.Sscan(line[0]+" "+line[1], &at, &perSecond)
		r.must(err)
		all = append(all, sample{time.UnixMilli(at), perSecond * fioStep.Seconds()})
	}
	if len(all) == 0 {
		r.Fatal("fio has logged nothing")
	}
	return all
}
