package tree

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// names draws what may be in a directory, with a bent for what is difficult.
func drawName(t *rapid.T, label string) string {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{`\`, `\x`, `\x5c`, `\xff`, `\xFF`, "x", "5", "c", "f", "\xff", "\xc3", "\xa9", "é", "\ufffd", "\xed\xa0\x80"}),
		rapid.String(),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 4), func(b []byte) string { return string(b) }),
	)
	return strings.Join(rapid.SliceOfN(piece, 0, 6).Draw(t, label), "")
}

func TestStoredNameIsUndone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := drawName(t, "name")
		stored := StoredName(name)
		if !utf8.ValidString(stored) {
			t.Fatalf("StoredName(%q) = %q, which is not UTF-8", name, stored)
		}
		if back := OriginalName(stored); back != name {
			t.Fatalf("OriginalName(StoredName(%q)) = %q", name, back)
		}
	})
}

func TestStoredNameKeepsNamesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawName(t, "a"), drawName(t, "b")
		if a != b && StoredName(a) == StoredName(b) {
			t.Fatalf("%q and %q are both stored as %q", a, b, StoredName(a))
		}
	})
}

func TestStoredName(t *testing.T) {
	for name, want := range map[string]string{
		"plain":         "plain",
		"café":          "café",
		"\ufffd":        "\ufffd",
		`C:\dir`:        `C:\dir`,
		`\x`:            `\x`,
		`\xFF`:          `\xFF`,
		`\xff`:          `\x5cxff`,
		`\\xff`:         `\\x5cxff`,
		"caf\xe9":       `caf\xe9`,
		"\xed\xa0\x80":  `\xed\xa0\x80`, // a surrogate half is not UTF-8
		"new\nline":     "new\nline",
		`\x` + "5\xff":  `\x5\xff`,
		"a\x01\x7f\"'&": "a\x01\x7f\"'&",
	} {
		if got := StoredName(name); got != want {
			t.Errorf("StoredName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestNamesAreInOrderOfStoredName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var names []Name
		for _, n := range rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawName(t, "n") }), 0, 20).Draw(t, "names") {
			names = append(names, Name{n, rapid.Bool().Draw(t, "dir")})
		}
		sortNames(names)
		ordered := slices.IsSortedFunc(names, func(a, b Name) int {
			if a.IsDir != b.IsDir {
				if a.IsDir {
					return -1
				}
				return 1
			}
			return strings.Compare(StoredName(a.Name), StoredName(b.Name))
		})
		if !ordered {
			t.Fatalf("not in order: %+v", names)
		}
	})
}
