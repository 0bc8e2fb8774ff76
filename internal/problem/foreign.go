package problem

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
)

//go:embed foreign/*.txt
var foreign embed.FS

// A Foreign is a code of another backup system, with its counterpart here.
type Foreign struct {
	System  string   // "Backup Exec", "VSS" …
	Codes   []string // numbers and names as that system shows them; a message without one is in quotes
	Meaning string   // what it was there
	Remedy  string   // what was done about it there; may be empty
	Source  Source   // how its meaning is known
	Here    Code     // the counterpart; empty if there is none
	See     []Code   // others of ours that come near it
	Why     string   // it is the counterpart, or why there is none
}

// A Source says how the meaning of a foreign code is known.
type Source string

// How it is known.
const (
	Documented Source = "documented" // in a document of its maker that was read
	Reported   Source = "reported"   // from hearsay; no document was found
	Named      Source = "name"       // only the number and its name were found
	Unknown    Source = "unknown"    // only the number was found
)

// Known returns the codes of other systems that are known, in the order of the
// files under foreign/.
//
// A file has a line "system NAME", and after it an entry for each code: a line
// with all its spellings, then lines "KEY: TEXT" with the keys mark (the
// source, if it is not a document), was (the meaning), did (the remedy), here,
// see and why. Lines that begin with # are for the reader of the file.
func Known() []Foreign { return slices.Clone(known()) }

// known is read once; nobody changes it.
var known = sync.OnceValue(readForeign)

func readForeign() []Foreign {
	var all []Foreign
	for _, name := range []string{"backup-exec", "vss", "activeimage"} {
		text, err := foreign.ReadFile(path.Join("foreign", name+".txt"))
		if err != nil {
			panic(err) // the file is part of the program
		}
		all = append(all, parseForeign(string(text))...)
	}
	return all
}

func parseForeign(text string) []Foreign {
	var all []Foreign
	system := ""
	for part := range strings.SplitSeq(text, "\n\n") {
		f := Foreign{System: system, Source: Documented}
		for line := range strings.Lines(part) {
			line = strings.TrimSpace(line)
			key, value, found := strings.Cut(line, ": ")
			name, isSystem := strings.CutPrefix(line, "system ")
			switch {
			case strings.HasPrefix(line, "#"):
			case isSystem:
				system = name
			case f.Codes == nil:
				f.Codes = spellings(line)
			case found:
				f.set(key, value)
			}
		}
		if f.Codes != nil {
			all = append(all, f)
		}
	}
	return all
}

func (f *Foreign) set(key, value string) {
	switch key {
	case "mark":
		f.Source = Source(value)
	case "was":
		f.Meaning = value
	case "did":
		f.Remedy = value
	case "here":
		f.Here = Code(value)
	case "see":
		for c := range strings.FieldsSeq(value) {
			f.See = append(f.See, Code(c))
		}
	case "why":
		f.Why = value
	}
}

// spellings reads the first line of an entry, and adds the form that Backup
// Exec's logs have for its numbers.
func spellings(line string) []string {
	if strings.HasPrefix(line, `"`) {
		return []string{line}
	}
	codes := strings.Fields(line)
	for _, c := range codes {
		if n, ok := hexadecimal(c); ok && twice(n) {
			codes = append(codes, umi(n))
		}
	}
	return codes
}

// umi writes a number as Backup Exec's logs do: V-79-H-L has the decimal values
// of the two halves (checked on four documented pairs: e000fedd, e000120f,
// e000c030, e0000f22).
func umi(n uint32) string { return fmt.Sprintf("V-79-%d-%d", n>>16, n&0xffff) }

// twice tells whether a number is one of those that Backup Exec has in two
// severities, 0xA… and 0xE…, of the same message.
func twice(n uint32) bool { return n>>16 == 0xa000 || n>>16 == 0xe000 }

// elsewhere is the section of a page that is made of what is known of other
// systems; said is what the page itself says there.
func elsewhere(all []Foreign, said string) string {
	var b strings.Builder
	if said != "" {
		b.WriteString(said + "\n\n")
	}
	for _, f := range all {
		b.WriteString(fill("- "+quoted(f.Codes)+" "+f.System+": "+f.told(), "  ") + "\n")
	}
	if b.Len() == 0 {
		b.WriteString(fill("No code of Backup Exec, NetBackup, VSS or ActiveImage Protector that is known here means this.", ""))
	}
	return strings.Trim(b.String(), "\n")
}

// told is the first sentence of the meaning, with how far it is to be trusted.
func (f Foreign) told() string {
	first, _, _ := strings.Cut(f.Meaning, ". ")
	switch f.Source {
	case Reported:
		return first + " (by hearsay)"
	case Named:
		return first + " (by its name)"
	}
	return first
}

func quoted(codes []string) string {
	var all []string
	for _, c := range codes {
		if strings.HasPrefix(c, `"`) {
			all = append(all, c)
			continue
		}
		all = append(all, "`"+c+"`")
	}
	return strings.Join(all, " ")
}

// fill breaks a text into lines that fit a console; indent goes before all but
// the first.
func fill(text, indent string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(word))
		switch {
		case width == 0:
		case width+1+n > 79:
			b.WriteString("\n" + indent)
			width = len(indent)
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String()
}
