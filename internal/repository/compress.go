package repository

import (
	"encoding/binary"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"github.com/kopia/kopia/repo/compression"
)

// What new contents are compressed with, by kopia's names. Most bytes are in
// files that are not small, and there time is what counts;
// doc/design/003-repository.md has the numbers.
const (
	compressor      = "zstd" // for what is small, and for listings
	compressorLarge = "zstd-fastest"
	smallContent    = 16 << 10
)

// economical writes what kopia's own compressor writes, with less memory.
// That one (v0.21.1, repo/compression/compressor_zstd.go) lets every encoder
// keep its window twice and work with goroutines of its own, and makes as many
// encoders as there are contents in work.
type economical struct {
	compression.Compressor // kopia's, which decompresses
	encoders               chan *zstd.Encoder
}

// economize takes the place of a compressor in kopia's register.
func economize(name compression.Name, level zstd.EncoderLevel) {
	c := &economical{
		Compressor: compression.ByName[name],
		encoders:   make(chan *zstd.Encoder, runtime.GOMAXPROCS(0)),
	}
	for range cap(c.encoders) {
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderLevel(level),
			zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(largestContent),
			zstd.WithEncoderCRC(false)) // each content is authenticated
		if err != nil { // the options are constants
			panic(err)
		}
		c.encoders <- e
	}
	compression.ByName[name], compression.ByHeaderID[c.HeaderID()] = c, c
}

// Compress writes kopia's header and one zstd frame.
func (c *economical) Compress(output io.Writer, input io.Reader) error {
	e := <-c.encoders
	defer func() {
		e.Reset(nil) // lets go of output
		c.encoders <- e
	}()
	if _, err := output.Write(binary.BigEndian.AppendUint32(nil, uint32(c.HeaderID()))); err != nil {
		return err
	}
	e.Reset(output)
	if _, err := e.ReadFrom(input); err != nil {
		return err
	}
	return e.Close()
}
