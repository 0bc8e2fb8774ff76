package fanotify

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"stillpoint/internal/scratch"
)

// BenchmarkEvent measures a cached write of 4 KiB that waits for its answer,
// and how much of that is our own reading and answering.
func BenchmarkEvent(b *testing.B) {
	dir := scratch.New(b, "ext4", sizes["ext4"]).Dir
	for _, readers := range []int{1, 2, 4, 8} {
		for _, writers := range []int{1, 4} {
			b.Run(fmt.Sprintf("readers=%d/writers=%d", readers, writers), func(b *testing.B) {
				fs := openDir(b, dir)
				p := newGroup(b)
				must(b, p.Watch(fs))
				must(b, p.Arm(fs))
				var listening, writing sync.WaitGroup
				for range readers {
					listening.Go(func() {
						buf := NewBuffer(2)
						for {
							events, err := p.Read(buf)
							if errors.Is(err, os.ErrClosed) {
								return
							}
							for _, e := range events {
								_ = p.Allow(e)
							}
						}
					})
				}
				var files []*os.File
				for i := range writers {
					files = append(files, create(b, fmt.Sprintf("%s/file%d", dir, i), 4096))
				}
				b.ReportAllocs()
				b.ResetTimer()
				for _, f := range files {
					writing.Go(func() {
						page := make([]byte, 4096)
						for range b.N {
							_, _ = unix.Pwrite(int(f.Fd()), page, 0)
						}
					})
				}
				writing.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N*writers)/b.Elapsed().Seconds(), "events/s")
				p.Close()
				listening.Wait()
			})
		}
	}
}

// BenchmarkIdle compares a cached write with that under an idle watch.
func BenchmarkIdle(b *testing.B) {
	dir := scratch.New(b, "ext4", sizes["ext4"]).Dir
	for _, watched := range []bool{false, true} {
		b.Run(fmt.Sprintf("watched=%t", watched), func(b *testing.B) {
			fs := openDir(b, dir)
			p := newGroup(b)
			if watched {
				must(b, p.Watch(fs))
			}
			f := create(b, fmt.Sprintf("%s/idle%t", dir, watched), 4096)
			page := make([]byte, 4096)
			for b.Loop() {
				_, _ = unix.Pwrite(int(f.Fd()), page, 0)
			}
		})
	}
}
