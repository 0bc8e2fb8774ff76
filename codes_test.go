package stillpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// Each code of the catalogue is given to some error outside the catalogue, and
// some test makes that error happen.
func TestEveryCodeIsUsedAndProvoked(t *testing.T) {
	for _, fault := range codeFaults(os.DirFS(".")) {
		t.Error(fault)
	}
}

// showOnly are packages that only define codes or show those of others: that a
// test there mentions a code proves nothing, unless the package itself uses it.
var showOnly = []string{"internal/problem", "internal/job", "internal/job/text", "internal/job/page"}

// codeFaults lists the codes that are not used, and those that are not provoked.
func codeFaults(root fs.FS) []string {
	constants, err := codeConstants(root)
	if err != nil {
		return []string{err.Error()}
	}
	usedIn := map[string][]string{} // constant -> packages
	mentioned := map[string][]string{}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		pkg, _, _ := strings.Cut(path.Dir(name), "/testdata")
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && strings.HasPrefix(path.Base(name), "."):
			return fs.SkipDir
		case d.IsDir():
			return nil
		case strings.HasSuffix(name, ".go") && !strings.Contains(name, "/testdata/"):
			src, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			selected, literals := mentions(f)
			if !strings.HasSuffix(name, "_test.go") {
				for _, c := range selected {
					if constants[c] != "" && pkg != "internal/problem" {
						usedIn[c] = append(usedIn[c], pkg)
					}
				}
				return nil
			}
			for c, code := range constants {
				if slices.Contains(selected, c) || slices.ContainsFunc(literals, func(l string) bool { return names(l, code) }) {
					mentioned[c] = append(mentioned[c], pkg)
				}
			}
		case strings.HasSuffix(name, ".txtar") || strings.HasSuffix(name, ".txt") && strings.Contains(name, "/script/"):
			script, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			for c, code := range constants {
				if names(string(script), code) {
					mentioned[c] = append(mentioned[c], pkg)
				}
			}
		}
		return nil
	})
	if err != nil {
		return []string{err.Error()}
	}
	var faults []string
	for c, code := range constants {
		if usedIn[c] == nil {
			faults = append(faults, "no code outside internal/problem uses problem."+c+" ("+code+")")
		}
		if !slices.ContainsFunc(mentioned[c], func(pkg string) bool {
			return !slices.Contains(showOnly, pkg) || slices.Contains(usedIn[c], pkg)
		}) {
			faults = append(faults, "no test provokes problem."+c+" ("+code+")")
		}
	}
	slices.Sort(faults)
	return faults
}

// codeConstants returns the codes by the names of their constants.
func codeConstants(root fs.FS) (map[string]string, error) {
	src, err := fs.ReadFile(root, "internal/problem/codes.go")
	if err != nil {
		return nil, err
	}
	f, err := parser.ParseFile(token.NewFileSet(), "codes.go", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	constants := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for i, name := range spec.Names {
				if lit, ok := spec.Values[i].(*ast.BasicLit); ok {
					constants[name.Name], _ = strconv.Unquote(lit.Value)
				}
			}
		}
		return true
	})
	return constants, nil
}

// mentions returns the X of all problem.X in a file, and its strings.
func mentions(f *ast.File) (selected, literals []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "problem" {
				selected = append(selected, n.Sel.Name)
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				s, _ := strconv.Unquote(n.Value)
				literals = append(literals, s)
			}
		}
		return true
	})
	return selected, literals
}

// names tells whether a text speaks of a code. Codes of a single word are also
// words of the language: there the text must show that it means the code, as
// the program prints it.
func names(text, code string) bool {
	if text == code || !strings.Contains(text, code) {
		return text == code
	}
	word := `(^|[^a-z-])` + code + `($|[^a-z-])`
	if !strings.Contains(code, "-") {
		word = `\[` + code + `\\?\]|"` + code + `"|explain ` + code + `($|[^a-z-])|(^|[^a-z-])` + code + `: read what`
	}
	return regexp.MustCompile(word).MatchString(text)
}

// The check must itself be able to fail.
func TestCodeFaultsAreFound(t *testing.T) {
	file := func(src string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(src)} }
	tree := fstest.MapFS{
		"internal/problem/codes.go":      file("package problem\nconst (\nBusy Code = \"busy\"\nFull Code = \"disk-full\"\nGone Code = \"gone\"\nDied Code = \"job-died\"\nOdd Code = \"odd-one\"\n)\n"),
		"internal/problem/a_test.go":     file("package problem_test\nvar a = problem.Odd\n"),
		"internal/problem/find.go":       file("package problem\nvar a = problem.Odd\n"),
		"internal/job/job.go":            file("package job\nvar a = problem.Died\n"),
		"internal/job/job_test.go":       file("package job\nvar a, b = problem.Died, problem.Full\n"),
		"internal/x/x.go":                file("package x\nvar a, b, c = problem.Busy, problem.Full, problem.Gone\n"),
		"internal/x/x_test.go":           file("package x\nvar a = \"is gone\"\nvar b = \"the disk-fuller\"\n"),
		"cmd/testdata/script/busy.txtar": file("! exec x\nstderr 'busy: read what it means'\n"),
	}
	want := []string{
		"no code outside internal/problem uses problem.Odd (odd-one)",
		"no test provokes problem.Full (disk-full)",
		"no test provokes problem.Gone (gone)",
		"no test provokes problem.Odd (odd-one)",
	}
	if got := codeFaults(tree); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
