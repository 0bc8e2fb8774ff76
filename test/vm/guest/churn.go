package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// A piece is what churn writes at a time.
const (
	pieceSize = 64 << 10
	perSync   = 16 // pieces, after which the disk is asked
)

// churn writes a file of so many MiB over and over, in place, until SIGTERM: in each
// round all its pieces, one after the other, get the number of the round. How that goes it
// tells at the socket of busy: pieces are its records, and syncs its payments.
func churn(ctx context.Context, name, mib string) error {
	size, err := strconv.ParseInt(mib, 10, 32)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	c := &churner{file: f, pieces: size << 20 / pieceSize, piece: make([]byte, pieceSize)}
	if err := c.round(context.Background(), 0); err != nil { // it has all its blocks
		return err
	}
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	c.pause = pause
	c.writers = writers{}
	told := make(chan error, 1)
	go func() { told <- c.tell(l) }()
	for n := uint64(1); err == nil && ctx.Err() == nil; n++ {
		err = c.round(ctx, n)
	}
	l.Close()
	return errors.Join(err, <-told, f.Close())
}

type churner struct {
	writers
	file   *os.File
	pieces int64
	piece  []byte
	pause  time.Duration
}

// round writes the file once.
func (c *churner) round(ctx context.Context, n uint64) error {
	for at := 0; at < len(c.piece); at += 8 {
		binary.LittleEndian.PutUint64(c.piece[at:], n)
	}
	for i := int64(0); i < c.pieces && ctx.Err() == nil; i++ {
		c.write.start()
		_, err := c.file.WriteAt(c.piece, i*pieceSize)
		c.write.stop()
		if err != nil {
			return err
		}
		c.records.Add(1)
		if (i+1)%perSync == 0 {
			c.sync.start()
			err = c.file.Sync()
			c.sync.stop()
			if err != nil {
				return err
			}
			c.payments.Add(1)
		}
		time.Sleep(c.pause)
	}
	return nil
}

// churned looks whether a copy of that file can have existed at one moment: it is of one
// round, or its beginning is of the next one. The piece between them may be of both.
func churned(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if len(b) == 0 || len(b)%pieceSize != 0 {
		return fmt.Errorf("%s has %d bytes", name, len(b))
	}
	first := binary.LittleEndian.Uint64(b)
	last := binary.LittleEndian.Uint64(b[len(b)-8:])
	if first != last && first != last+1 {
		return fmt.Errorf("not of one moment: it begins with round %d and ends with %d", first, last)
	}
	changes, before := 0, first
	for at := 0; at < len(b); at += 8 {
		n := binary.LittleEndian.Uint64(b[at:])
		if n != first && n != last {
			return fmt.Errorf("not of one moment: round %d at %d, between %d and %d", n, at, first, last)
		}
		if n != before {
			changes++
		}
		before = n
	}
	if changes > 1 {
		return fmt.Errorf("not of one moment: rounds %d and %d change %d times", first, last, changes)
	}
	fmt.Printf("%s: round %d, and %d at its end\n", name, first, last)
	return nil
}
