package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The data are made from a seed, each file from the seed and its number, so
// that the same call makes the same bytes everywhere. Sizes are log-normal, as
// those of real trees are (Agrawal et al., A Five-Year Study of File-System
// Metadata, FAST 2007).
const (
	medianSize = 4 << 10
	sigma      = 1.665 // makes the mean exp(sigma²/2) = 4 times the median
	maxSize    = 8 << 20

	filesPerDir = 80
	dirsPerDir  = 8
)

// A dataset makes files. Their content comes from what every machine has that
// runs this: the sources and the program of the Go distribution, real text and
// real machine code, in pieces too short to be found again by who looks for
// what is stored already.
type dataset struct {
	seed    uint64
	sources *corpus
	program *corpus
}

// kind is what a content is like.
type kind int

const (
	text   kind = iota // compresses to a third
	code               // machine code: compresses to a half
	packed             // does not compress: pictures, archives
)

// newDataset keeps what it needs in the folder dir.
func newDataset(ctx context.Context, seed uint64, dir string) (*dataset, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	root := strings.TrimSpace(string(out))
	d := &dataset{seed: seed}
	if d.sources, err = gather(filepath.Join(dir, "sources"), filepath.Join(root, "src"), ".go"); err != nil {
		return nil, err
	}
	d.program, err = gather(filepath.Join(dir, "program"), filepath.Join(root, "bin", "go"), "")
	return d, err
}

// A corpus is a file that is read in pieces. It is not kept in memory: what
// this program has there would count as that of the ones it starts (getrusage(2)
// goes on from what was there before execve).
type corpus struct {
	f    *os.File
	size int64
}

// gather joins the files below top that end in suffix, in the order of names.
func gather(path, top, suffix string) (*corpus, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	c := &corpus{f: f}
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, suffix) {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		n, err := io.Copy(f, in)
		c.size += n
		return err
	})
	if err == nil && c.size < 1<<20 {
		err = fmt.Errorf("%s holds too little", top)
	}
	return c, err
}

// rand is the source of everything about something with a number.
func (d *dataset) rand(n uint64) *rand.Rand { return rand.New(rand.NewPCG(d.seed, n)) }

// Numbers of contents and of large stretches lie beyond those of files.
const (
	contents  = 1 << 32
	repeats   = 2 << 32
	stretches = 3 << 32
)

// tree makes the files below dir and returns their number of bytes.
func (d *dataset) tree(ctx context.Context, dir string, files int) (int64, error) {
	dirs := make([]string, files/filesPerDir+1)
	dirs[0] = dir
	for i := range dirs {
		if i > 0 {
			dirs[i] = filepath.Join(dirs[(i-1)/dirsPerDir], fmt.Sprintf("%s-%d", topics[i%len(topics)], i))
		}
		if err := os.MkdirAll(dirs[i], 0o755); err != nil {
			return 0, err
		}
	}
	var total int64
	for n := range files {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		size, err := d.file(dirs[n%len(dirs)], n)
		if err != nil {
			return total, err
		}
		total += size
	}
	return total, nil
}

var (
	epoch    = time.Unix(1_600_000_000, 123_456_789)
	topics   = [...]string{"accounts", "mail", "photos", "releases", "site", "tmp", "vendor", "x"}
	suffixes = [...]string{".txt", ".c", ".jpg", "", ".html", ".db"}
)

// file makes file n, and returns its size. One in a hundred is a symbolic
// link, one in ten has the content of another one.
func (d *dataset) file(dir string, n int) (int64, error) {
	r := d.rand(uint64(n))
	path := filepath.Join(dir, fmt.Sprintf("%s_%05d%s", topics[r.IntN(len(topics))], n, suffixes[r.IntN(len(suffixes))]))
	if r.IntN(100) == 0 {
		return 0, os.Symlink("../"+topics[r.IntN(len(topics))], path)
	}
	number := n
	if n > 0 && r.IntN(10) == 0 {
		number = r.IntN(n)
	}
	content := d.rand(contents + uint64(number))
	size := min(int64(medianSize*math.Exp(sigma*content.NormFloat64())), maxSize)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	err = d.fill(f, content, kindOf(content, size), size)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	modified := epoch.Add(time.Duration(n) * 997 * time.Millisecond)
	return size, os.Chtimes(path, modified, modified)
}

// kindOf a file: large ones are more often compressed already.
func kindOf(r *rand.Rand, size int64) kind {
	p := r.IntN(100)
	switch {
	case size > 256<<10 && p < 60, p < 20:
		return packed
	case p > 88:
		return code
	}
	return text
}

// large makes one file of stretches of all kinds; one in sixteen repeats an
// earlier one.
func (d *dataset) large(ctx context.Context, path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for n, done := uint64(0), int64(0); done < size; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		number := n
		if r := d.rand(repeats + n); n > 0 && r.IntN(16) == 0 {
			number = r.Uint64N(n)
		}
		r := d.rand(stretches + number)
		length := min(1<<20+r.Int64N(15<<20), size-done)
		if err := d.fill(f, r, kind(r.IntN(3)), length); err != nil {
			return err
		}
		done += length
	}
	return os.Chtimes(path, epoch, epoch)
}

// fill writes length bytes of a kind.
func (d *dataset) fill(w io.Writer, r *rand.Rand, k kind, length int64) error {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(r.Uint32())
	}
	var in io.Reader = rand.NewChaCha8(seed)
	switch k {
	case text:
		in = &pieces{d.sources, r, nil}
	case code:
		in = &pieces{d.program, r, nil}
	}
	_, err := io.CopyN(w, in, length)
	return err
}

// pieces reads pieces of a corpus without an end.
type pieces struct {
	c *corpus
	r *rand.Rand
	p *io.SectionReader
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.p == nil {
		length := 8<<10 + p.r.Int64N(64<<10)
		p.p = io.NewSectionReader(p.c.f, p.r.Int64N(p.c.size-length), length)
	}
	n, err := p.p.Read(b)
	if err == io.EOF {
		p.p, err = nil, nil
	}
	return n, err
}
