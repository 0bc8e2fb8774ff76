package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// A copy in which two moments are mixed is found.
func TestChurned(t *testing.T) {
	const pieces = 4
	for _, c := range []struct {
		name   string
		rounds [pieces]uint64
		ok     bool
	}{
		{"one round", [pieces]uint64{3, 3, 3, 3}, true},
		{"the next has begun", [pieces]uint64{4, 4, 3, 3}, true},
		{"one is of before", [pieces]uint64{4, 3, 4, 3}, false},
		{"one is of later", [pieces]uint64{3, 3, 4, 3}, false},
		{"a round is skipped", [pieces]uint64{5, 5, 3, 3}, false},
		{"the end is ahead", [pieces]uint64{3, 3, 3, 4}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b []byte
			for _, n := range c.rounds {
				b = append(b, bytes.Repeat(binary.LittleEndian.AppendUint64(nil, n), pieceSize/8)...)
			}
			name := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := churned(name); (err == nil) != c.ok {
				t.Error(err)
			}
		})
	}
}
