package stillpoint_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// may says which of our own packages each package may import. It is the
// architecture: a line changed here is a decision, not a detail. What a line
// allows, the package uses; tests may import what they like.
var may = map[string]string{
	"internal/problem": "",
	"internal/fault":   "",

	"internal/sys/atomicfile": "",
	"internal/sys/blockdev":   "",
	"internal/sys/btrfs":      "",
	"internal/sys/clock":      "",
	"internal/sys/dm":         "",
	"internal/sys/extents":    "",
	"internal/sys/container":  "internal/sys/peer internal/sys/thread",
	"internal/sys/fanotify":   "internal/sys/inode",
	"internal/sys/file":       "",
	"internal/sys/flagfile":   "",
	"internal/sys/freeze":     "",
	"internal/sys/fuse":       "internal/sys/mount",
	"internal/sys/inode":      "",
	"internal/sys/key":        "",
	"internal/sys/listener":   "",
	"internal/sys/loop":       "",
	"internal/sys/memfile":    "",
	"internal/sys/mount":      "internal/sys/thread",
	"internal/sys/opened":     "",
	"internal/sys/peer":       "",
	"internal/sys/process":    "",
	"internal/sys/terminal":   "",
	"internal/sys/thread":     "",
	"internal/sys/writing":    "", // for tests
	"internal/sys/zfs":        "",

	"internal/tool":    "internal/sys/memfile",
	"internal/guard":   "internal/sys/freeze internal/sys/process internal/tool",
	"internal/holder":  "internal/sys/fanotify internal/sys/peer internal/sys/process internal/tool",
	"internal/scratch": "internal/tool internal/volume", // for tests

	"internal/volume":                "internal/sys/blockdev internal/problem",
	"internal/cachefile":             "internal/thinpool internal/volume internal/problem internal/sys/file",
	"internal/thinpool":              "internal/volume internal/sys/dm",
	"internal/snapshot":              "internal/volume internal/problem internal/sys/file",
	"internal/snapshot/frozen":       "internal/guard internal/problem internal/sys/freeze internal/sys/process",
	"internal/snapshot/ebb":          "",
	"internal/snapshot/bequest":      "internal/guard internal/problem internal/snapshot",
	"internal/snapshot/direct":       "internal/snapshot internal/problem internal/sys/file internal/sys/flagfile internal/sys/inode",
	"internal/snapshot/btrfs":        "internal/snapshot internal/volume internal/problem internal/fault internal/sys/btrfs internal/sys/mount internal/sys/file",
	"internal/snapshot/zfs":          "internal/snapshot internal/snapshot/ebb internal/volume internal/problem internal/fault internal/sys/zfs internal/sys/mount internal/sys/file internal/tool",
	"internal/snapshot/device":       "internal/problem internal/sys/blockdev internal/sys/mount",
	"internal/snapshot/dm":           "internal/guard internal/snapshot internal/snapshot/bequest internal/thinpool internal/volume internal/problem internal/fault internal/cachefile internal/snapshot/device internal/snapshot/frozen internal/sys/blockdev internal/sys/dm internal/sys/file internal/sys/key internal/sys/loop",
	"internal/snapshot/lvm":          "internal/cachefile internal/snapshot/dm internal/fault internal/guard internal/problem internal/snapshot internal/snapshot/bequest internal/snapshot/device internal/snapshot/frozen internal/snapshot/ebb internal/sys/blockdev internal/sys/dm internal/sys/file internal/thinpool internal/tool internal/volume",
	"internal/snapshot/fake":         "internal/snapshot internal/volume internal/problem internal/sys/file",                                                        // for tests
	"internal/snapshot/snapshottest": "internal/snapshot internal/volume internal/problem internal/sys/file internal/sys/freeze internal/sys/writing internal/tool", // for tests

	"internal/snapshot/cow":           "internal/snapshot internal/thinpool internal/volume internal/problem internal/cachefile internal/guard internal/holder internal/snapshot/cow/hot internal/snapshot/cow/index internal/snapshot/cow/shield internal/snapshot/cow/view internal/snapshot/direct internal/snapshot/frozen internal/sys/fanotify internal/sys/file internal/sys/flagfile internal/sys/freeze internal/sys/inode internal/sys/opened internal/sys/process",
	"internal/snapshot/cow/shield":    "internal/snapshot/cow/index internal/problem internal/sys/file internal/sys/inode",
	"internal/candidate":              "internal/snapshot internal/volume internal/problem",
	"internal/capture":                "internal/candidate internal/coordinator internal/quiesce internal/snapshot internal/volume internal/problem internal/sys/mount",
	"internal/config":                 "internal/problem",
	"internal/openfile":               "internal/problem internal/sys/opened internal/writer/aide",
	"internal/quiet":                  "internal/volume internal/problem",
	"internal/writer":                 "internal/problem",
	"internal/writer/writertest":      "internal/writer internal/problem internal/tool", // for tests
	"internal/coordinator":            "internal/snapshot internal/writer internal/problem internal/fault",
	"internal/quiesce":                "internal/coordinator internal/writer internal/problem",
	"internal/agent":                  "internal/capture internal/holder internal/quiesce internal/snapshot internal/snapshot/direct internal/volume internal/problem internal/tool internal/sys/mount internal/sys/peer internal/sys/process",
	"internal/writer/aide":            "internal/problem internal/tool",
	"internal/writer/trust":           "internal/problem internal/sys/container internal/sys/peer",
	"internal/writer/redis":           "internal/writer internal/problem internal/sys/container internal/sys/listener internal/sys/process internal/writer/trust",
	"internal/writer/script":          "internal/writer internal/problem internal/writer/aide internal/tool",
	"internal/writer/sqlite":          "internal/writer internal/problem internal/writer/aide internal/sys/btrfs internal/sys/file",
	"internal/writer/mariadb":         "internal/writer internal/problem internal/sys/container internal/sys/peer internal/sys/process internal/writer/trust",
	"internal/writer/postgres":        "internal/writer internal/problem internal/sys/container internal/sys/peer internal/sys/process internal/writer/trust",
	"internal/writer/servertest":      "internal/sys/peer", // for tests
	"internal/writer/writertest/bank": "",                  // for tests

	"internal/snapshot/cow/index": "internal/sys/fanotify internal/sys/file internal/sys/inode",
	"internal/snapshot/cow/hot":   "internal/sys/file internal/sys/opened internal/sys/process",
	"internal/snapshot/cow/view":  "internal/snapshot/cow/index internal/sys/fuse internal/sys/inode",

	"internal/tree":       "internal/snapshot internal/sys/file internal/problem internal/fault",
	"internal/repository": "internal/tree internal/problem internal/fault internal/sys/atomicfile internal/sys/memfile",
	"internal/doctor":     "internal/cachefile internal/candidate internal/quiesce internal/snapshot internal/thinpool internal/volume internal/problem internal/sys/extents internal/sys/file",
	"internal/job":        "internal/problem",
	"internal/job/text":   "internal/job internal/problem",
	"internal/notify":     "internal/job internal/job/text internal/problem internal/tool internal/sys/atomicfile",
	"internal/job/page":   "internal/job internal/job/text internal/problem",
	"internal/backup":     "internal/candidate internal/coordinator internal/doctor internal/openfile internal/quiesce internal/quiet internal/snapshot internal/volume internal/tree internal/repository internal/job internal/problem internal/fault internal/sys/btrfs",

	"cmd/stillpoint": "internal/config internal/doctor internal/sys/clock internal/openfile internal/quiesce internal/writer internal/writer/mariadb internal/writer/postgres internal/writer/redis internal/writer/script internal/writer/sqlite internal/backup internal/agent internal/cachefile internal/capture internal/guard internal/holder internal/snapshot internal/snapshot/btrfs internal/snapshot/cow internal/snapshot/zfs internal/volume internal/tree internal/repository internal/job internal/job/page internal/job/text internal/notify internal/problem internal/tool internal/sys/atomicfile internal/sys/mount internal/sys/terminal internal/snapshot/lvm internal/snapshot/dm",
	"bench":          "",
	"test/demo":      "",
	"test/vm":        "test/vm/wire",
	"test/vm/guest":  "test/vm/wire",
	"test/vm/inside": "test/vm",
	"test/vm/wire":   "",
}

// doors are imports from outside that only some packages may have. A name that
// ends in a slash means everything below.
var doors = []struct {
	imports string // a path, or the beginning of one that ends in a slash
	in      []string
	why     string
}{
	{"golang.org/x/sys/unix", []string{"internal/sys/"}, "the kernel has one door: internal/sys"},
	{"os/exec", []string{"internal/tool", "bench", "test/", "internal/writer/servertest"}, "programs have one door: internal/tool"},
	{"github.com/kopia/", []string{"internal/repository"}, "kopia has one door: internal/repository"},
	{"github.com/goccy/go-yaml", []string{"internal/config"}, "YAML has one door: internal/config"},
	{"github.com/hanwen/go-fuse/", []string{"internal/snapshot/cow/view"}, "FUSE has one door: internal/snapshot/cow/view"},
	{"github.com/gomodule/redigo/", []string{"internal/writer/redis", "internal/writer/servertest"}, "Redis has one door: internal/writer/redis"},
	{"modernc.org/", []string{"internal/writer/sqlite"}, "SQLite has one door: internal/writer/sqlite"},
	{"github.com/go-sql-driver/", []string{"internal/writer/mariadb", "internal/writer/servertest"}, "MariaDB has one door: internal/writer/mariadb"},
	{"github.com/jackc/", []string{"internal/writer/postgres", "internal/writer/servertest"}, "PostgreSQL has one door: internal/writer/postgres"},
	{"github.com/wneessen/", []string{"internal/notify"}, "mail has one door: internal/notify"},
	{"github.com/yuin/", []string{"internal/job/page"}, "Markdown has one door: internal/job/page"},
	{"C", nil, "the binary is static"},
	{"unsafe", []string{"internal/sys/"}, "the kernel has one door: internal/sys"},
}

// The files are read here, and not through "go list", so that the test cache
// notices when one of them changes, and so that build tags hide none.
func TestImports(t *testing.T) {
	for _, fault := range importFaults(os.DirFS("."), may) {
		t.Error(fault)
	}
}

// A source is one Go file outside tests.
type source struct {
	path string
	pkg  string // its folder
	file *ast.File
}

// sources parses all Go files below the root but those of tests, testdata, and
// folders that go build ignores, too.
func sources(root fs.FS) ([]source, error) {
	var all []source
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch base := path.Base(name); {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, source{name, path.Dir(name), f})
		return nil
	})
	return all, err
}

func importFaults(root fs.FS, may map[string]string) []string {
	all, err := sources(root)
	if err != nil {
		return []string{err.Error()}
	}
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	used := map[string]map[string]bool{} // package -> its imports
	for _, s := range all {
		allowed, known := may[s.pkg]
		if used[s.pkg] == nil {
			used[s.pkg] = map[string]bool{}
			if !known {
				fault("%s is not in the table", s.pkg)
			}
		}
		for _, spec := range s.file.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			for _, d := range doors {
				if below(imp, d.imports) && !slices.ContainsFunc(d.in, func(p string) bool { return below(s.pkg, p) }) {
					fault("%s must not import %s: %s", s.path, imp, d.why)
				}
			}
			ours, isOurs := strings.CutPrefix(imp, "stillpoint/")
			if !isOurs {
				continue
			}
			used[s.pkg][ours] = true
			if known && !slices.Contains(strings.Fields(allowed), ours) {
				fault("%s must not import %s", s.path, ours)
			}
		}
		if call := rawSyscall(s.file); call != "" && !below(s.pkg, "internal/sys/") {
			fault("%s must not call %s: the kernel has one door: internal/sys", s.path, call)
		}
	}
	for pkg, allowed := range may {
		if used[pkg] == nil {
			fault("%s is in the table but not in the tree", pkg)
			continue
		}
		for _, imp := range strings.Fields(allowed) {
			if !used[pkg][imp] {
				fault("the table lets %s import %s, which it does not", pkg, imp)
			}
		}
	}
	slices.Sort(faults)
	return faults
}

// below tells whether a path is the given one or, where that ends in a slash,
// lies below it.
func below(name, of string) bool {
	return name == of || strings.HasSuffix(of, "/") && strings.HasPrefix(name, of)
}

// rawSyscall returns the first raw system call of a file. Constants, types and
// the typed calls of package syscall are free for all.
func rawSyscall(f *ast.File) (call string) {
	alias := ""
	for _, spec := range f.Imports {
		if spec.Path.Value == `"syscall"` {
			alias = "syscall"
			if spec.Name != nil {
				alias = spec.Name.Name
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && call == "" {
			x, ok := sel.X.(*ast.Ident)
			if ok && x.Name == alias && strings.Contains(sel.Sel.Name, "Syscall") && sel.Sel.Name != "SyscallError" {
				call = "syscall." + sel.Sel.Name
			}
		}
		return true
	})
	return call
}

// Each package says once what it knows.
func TestPackageComments(t *testing.T) {
	for _, fault := range commentFaults(os.DirFS(".")) {
		t.Error(fault)
	}
}

func commentFaults(root fs.FS) []string {
	all, err := sources(root)
	if err != nil {
		return []string{err.Error()}
	}
	var faults []string
	comments := map[string][]string{} // package -> files with a comment
	for _, s := range all {
		files := comments[s.pkg]
		if text := s.file.Doc.Text(); text != "" { // a build constraint is no text
			files = append(files, path.Base(s.path))
			name := s.file.Name.Name
			if name != "main" && !strings.HasPrefix(text, "Package "+name+" ") {
				faults = append(faults, fmt.Sprintf("%s: the package comment does not begin with \"Package %s \"", s.path, name))
			}
		}
		comments[s.pkg] = files
	}
	for pkg, files := range comments {
		if len(files) != 1 {
			faults = append(faults, fmt.Sprintf("%s has %d package comments %v", pkg, len(files), files))
		}
	}
	slices.Sort(faults)
	return faults
}

// The checks must themselves be able to fail: each planted fault is found, and
// nothing else.
func TestFaultsAreFound(t *testing.T) {
	file := func(src string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(src)} }
	good := fstest.MapFS{
		"internal/a/a.go":          file("// Package a knows.\npackage a\nimport \"syscall\"\nvar x = syscall.ENOSPC\n"),
		"internal/a/a_test.go":     file("package a\nimport (\n\"os/exec\"\n\"stillpoint/internal/b\"\n)\n"),
		"internal/a/testdata/x.go": file("package x\nimport \"os/exec\"\n"),
		"internal/b/b.go":          file("// Package b knows.\npackage b\nimport \"stillpoint/internal/a\"\n"),
		"internal/sys/k/k.go":      file("// Package k knows.\npackage k\nimport (\n\"syscall\"\n\"golang.org/x/sys/unix\"\n)\nvar x = syscall.RawSyscall\n"),
	}
	table := map[string]string{"internal/a": "", "internal/b": "internal/a", "internal/sys/k": ""}
	if faults := append(importFaults(good, table), commentFaults(good)...); len(faults) > 0 {
		t.Fatalf("faults where there are none: %q", faults)
	}
	for want, c := range map[string]struct{ path, src string }{
		"internal/a/x.go must not import internal/b":                              {"internal/a/x.go", "package a\nimport \"stillpoint/internal/b\"\n"},
		"internal/a/x.go must not import os/exec: programs":                       {"internal/a/x.go", "//go:build never\npackage a\nimport \"os/exec\"\n"},
		"internal/a/x.go must not import golang.org/x/sys/unix: the kernel":       {"internal/a/x.go", "package a\nimport u \"golang.org/x/sys/unix\"\n"},
		"internal/a/x.go must not import github.com/kopia/kopia/repo: kopia":      {"internal/a/x.go", "package a\nimport \"github.com/kopia/kopia/repo\"\n"},
		"internal/a/x.go must not call syscall.RawSyscall6":                       {"internal/a/x.go", "package a\nimport s \"syscall\"\nvar y = s.RawSyscall6\n"},
		"internal/new is not in the table":                                        {"internal/new/new.go", "// Package new knows.\npackage new\n"},
		"internal/b is in the table but not in the tree":                          {"internal/b/b.go", ""},
		"the table lets internal/b import internal/a, which it does not":          {"internal/b/b.go", "// Package b knows.\npackage b\n"},
		"internal/a has 2 package comments [a.go x.go]":                           {"internal/a/x.go", "// Package a knows again.\npackage a\n"},
		"internal/b has 0 package comments []":                                    {"internal/b/b.go", "package b\nimport \"stillpoint/internal/a\"\n"},
		"internal/b/b.go: the package comment does not begin with \"Package b \"": {"internal/b/b.go", "// Knows.\npackage b\nimport \"stillpoint/internal/a\"\n"},
	} {
		bad := fstest.MapFS{}
		for name, f := range good {
			bad[name] = f
		}
		bad[c.path] = file(c.src)
		if c.src == "" {
			delete(bad, c.path)
		}
		faults := append(importFaults(bad, table), commentFaults(bad)...)
		if len(faults) != 1 || !strings.HasPrefix(faults[0], want) {
			t.Errorf("want %q, got %q", want, faults)
		}
	}
}
