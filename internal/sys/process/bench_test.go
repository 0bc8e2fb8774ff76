package process

import (
	"os"
	"os/exec"
	"testing"
)

func BenchmarkCallOf(b *testing.B) {
	c := exec.Command("sleep", "100")
	must(b, c.Start())
	defer c.Wait()
	defer c.Process.Kill()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CallOf(c.Process.Pid); err != nil && err != ErrRunning {
			b.Fatal(err)
		}
	}
}

func BenchmarkFileOf(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FileOf(os.Getpid(), 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	b.ReportAllocs()
	var tasks, descriptors, mappings int
	for b.Loop() {
		tasks, descriptors, mappings = 0, 0, 0
		_ = Tasks(func(int, int) { tasks++ })
		_ = Processes(func(pid int) {
			Descriptors(pid, 1, func(Descriptor) {})
			Descriptors(pid, 0, func(Descriptor) { descriptors++ })
			Mappings(pid, func(Mapping) { mappings++ })
		})
	}
	b.ReportMetric(float64(tasks), "tasks")
	b.ReportMetric(float64(descriptors), "descriptors")
	b.ReportMetric(float64(mappings), "mappings")
}

func BenchmarkDrain(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Drain(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
