package tree

import (
	"strings"
	"unicode/utf8"
)

// StoredName is the form of a name that the repository holds: valid UTF-8.
// Bytes that are not are written as \xNN with two lower-case hexadecimal
// digits, and so is a backslash that begins such a form already, so that two
// names never become one. All other names stay as they are.
func StoredName(name string) string {
	if storedAsIs(name) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		switch {
		case r == utf8.RuneError && n == 1, r == '\\' && escapeAt(name, i):
			b.WriteString(`\x`)
			b.WriteByte(hexDigits[name[i]>>4])
			b.WriteByte(hexDigits[name[i]&15])
		default:
			b.WriteString(name[i : i+n])
		}
		i += n
	}
	return b.String()
}

// OriginalName undoes StoredName. What it makes of a name that StoredName
// cannot have made is as hostile as any name from a backup.
func OriginalName(stored string) string {
	if !strings.Contains(stored, `\x`) {
		return stored
	}
	var b strings.Builder
	for i := 0; i < len(stored); {
		if !escapeAt(stored, i) {
			b.WriteByte(stored[i])
			i++
			continue
		}
		b.WriteByte(hexValue(stored[i+2])<<4 | hexValue(stored[i+3]))
		i += len(`\xNN`)
	}
	return b.String()
}

const hexDigits = "0123456789abcdef"

func storedAsIs(name string) bool {
	return utf8.ValidString(name) && !strings.Contains(name, `\x`)
}

// escapeAt tells whether \xNN stands at i.
func escapeAt(s string, i int) bool {
	return len(s) >= i+4 && s[i] == '\\' && s[i+1] == 'x' &&
		strings.IndexByte(hexDigits, s[i+2]) >= 0 && strings.IndexByte(hexDigits, s[i+3]) >= 0
}

func hexValue(digit byte) byte { return byte(strings.IndexByte(hexDigits, digit)) }

// possible tells whether a directory can hold the name. No honest backup has
// others, which would lead elsewhere.
func possible(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// joined is the path of name in the directory path.
func joined(path, name string) string {
	if strings.HasSuffix(path, "/") {
		return path + name
	}
	return path + "/" + name
}
