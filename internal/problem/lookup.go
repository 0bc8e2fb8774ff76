package problem

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// An Answer is what the catalogue knows of a word that somebody met.
type Answer struct {
	Page    *Page    // ours; nil where there is no counterpart
	Foreign *Foreign // the code of another system that the word is; nil for one of ours
	Rule    string   // how the word was found if it is not known as such: the answer is a guess
}

// Look finds a code of ours or of another system, in any case and in any usual
// spelling: "snapshot-failed", "V-79-57344-34110", "0xE000853E", "e000853e",
// "-2147212302", "writererror_timeout", "Exit Code: -311", or a line of a log
// that has one in it: of another system, or else of ours.
func Look(word string) (Answer, bool) {
	pages, all := Pages(), Known()
	word = trimmed(word)
	if a, ok := look(pages, all, word); ok {
		return a, true
	}
	parts := strings.FieldsFunc(word, between)
	for _, part := range parts {
		part = trimmed(part)
		if n, ok := strconv.Atoi(part); ok == nil && n >= 0 && n < 1<<16 && !strings.Contains(strings.ToLower(word), "code") {
			continue // a line of a log has many small numbers
		}
		if _, ok := pageOf(pages, Code(strings.ToLower(part))); ok {
			continue
		}
		if a, ok := look(pages, all, part); ok {
			return a, true
		}
	}
	for _, part := range parts {
		part = trimmed(part)
		if !strings.Contains(part, "-") {
			continue // such words of ours are words of the language, too
		}
		if p, ok := pageOf(pages, Code(strings.ToLower(part))); ok {
			return Answer{Page: p}, true
		}
	}
	return Answer{}, false
}

// between tells what stands between the words of a log, as in "hr=0x8004231F,".
func between(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("()[]{}<>,;=\"'", r) }

// Find returns the page of a code of ours, or of the counterpart of the given
// code of another system.
func Find(word string) (Page, bool) {
	a, ok := Look(word)
	if !ok || a.Page == nil {
		return Page{}, false
	}
	return *a.Page, true
}

func look(pages []Page, all []Foreign, word string) (Answer, bool) {
	if p, ok := pageOf(pages, Code(strings.ToLower(word))); ok {
		return Answer{Page: p}, true
	}
	if i := slices.IndexFunc(all, func(f Foreign) bool { return f.named(word) }); i >= 0 {
		return answer(pages, all[i], ""), true
	}
	numbers := readings(word)
	for _, n := range numbers {
		if i := slices.IndexFunc(all, func(f Foreign) bool { return f.has(n) }); i >= 0 {
			return answer(pages, all[i], ""), true
		}
	}
	for _, n := range numbers {
		other := n ^ 0xa0000000 ^ 0xe0000000
		if i := slices.IndexFunc(all, func(f Foreign) bool { return twice(n) && f.has(other) }); i >= 0 {
			rule := fmt.Sprintf("0x%08X is not known, but 0x%08X is: with 0xA… and 0xE… before the same four digits Backup Exec has the same message in two severities", n, other)
			return answer(pages, all[i], rule), true
		}
	}
	return Answer{}, false
}

func answer(pages []Page, f Foreign, rule string) Answer {
	a := Answer{Foreign: &f, Rule: rule}
	if p, ok := pageOf(pages, f.Here); ok {
		a.Page = p
	}
	return a
}

func pageOf(pages []Page, code Code) (*Page, bool) {
	for i := range pages {
		if pages[i].Code == code {
			return &pages[i], true
		}
	}
	return nil, false
}

// trimmed is a word without what is around it, and with the hyphens of a keyboard for
// those that pages on the web and in books have.
func trimmed(word string) string {
	word = strings.Map(func(r rune) rune {
		if r == '\u2212' || unicode.Is(unicode.Pd, r) { // the sign of minus is no dash
			return '-'
		}
		return r
	}, word)
	return strings.Trim(strings.TrimSpace(word), "`'\"“”‘’„«»()[]{}<>.,;: \t")
}

// named tells whether word is a name of the code, with or without what its
// system puts before all of them, or a message that has no number.
func (f Foreign) named(word string) bool {
	word = strings.ToUpper(word)
	name := strings.Join(strings.FieldsFunc(word, func(r rune) bool { return r == '_' || r == '-' || r == ' ' }), "_")
	for _, c := range f.Codes {
		if message, ok := strings.CutPrefix(c, `"`); ok {
			message = strings.ToUpper(strings.TrimSuffix(message, `"`))
			if strings.Contains(word, message) || len(word) > 12 && strings.Contains(message, word) {
				return true
			}
			continue
		}
		if c == word || c == name {
			return true
		}
		for _, before := range []string{"VSS_E_", "VSS_S_", "VSS_WS_"} {
			if rest, ok := strings.CutPrefix(c, before); ok && rest == name {
				return true
			}
		}
	}
	return false
}

// has tells whether the code is the number.
func (f Foreign) has(n uint32) bool {
	for _, c := range f.Codes {
		if own := readings(c); len(own) > 0 && own[0] == n {
			return true
		}
	}
	return false
}

// readings are the numbers that a word may mean, the likeliest first: 32 bits,
// written in hexadecimal with or without 0x, in decimal with or without a sign,
// or in the two decimal halves of V-79-H-L.
func readings(word string) (all []uint32) {
	word = strings.ToLower(word)
	if i := strings.Index(word, "79-"); i >= 0 && strings.Trim(word[:i], "umi:v- ") == "" && i > 0 {
		high, low, _ := strings.Cut(word[i+3:], "-")
		h, errHigh := strconv.ParseUint(high, 10, 16)
		l, errLow := strconv.ParseUint(low, 10, 16)
		if errHigh == nil && errLow == nil {
			return []uint32{uint32(h<<16 | l)}
		}
		return nil
	}
	hex, isHex := hexadecimal(word)
	if isHex && (strings.HasPrefix(word, "0x") || len(word) == 8) {
		all = append(all, hex)
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err == nil && n >= math.MinInt32 && n <= math.MaxUint32 {
		all = append(all, uint32(n)) // the same bits, with and without a sign
	}
	if isHex && len(all) == 0 || isHex && err == nil {
		all = append(all, hex)
	}
	return all
}

func hexadecimal(word string) (uint32, bool) {
	word = strings.ToLower(word)
	rest := strings.TrimRight(strings.TrimPrefix(word, "0x"), "l") // 0x800423F2L, as in headers
	if len(rest) < 3 {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 16, 32)
	return uint32(n), err == nil
}

// Reading says what a number of Backup Exec is in its other form; empty if the
// word is none.
func Reading(word string) string {
	for _, n := range readings(trimmed(word)) {
		if n>>16 < 0x1000 {
			continue
		}
		if strings.HasPrefix(strings.ToLower(trimmed(word)), "v") {
			return fmt.Sprintf("0x%08X", n)
		}
		if twice(n) {
			return umi(n)
		}
	}
	return ""
}

// Nearest returns the known codes, ours and those of others, that look most like
// a word that is none: at most five, the nearest first.
func Nearest(word string) []string {
	word = strings.ToLower(trimmed(word))
	type near struct {
		code string
		far  int
	}
	var found []near
	see := func(code string) {
		lower := strings.ToLower(code)
		far := distance(word, lower)
		if len(word) > 3 && strings.Contains(lower, word) || len(word) > 5 && strings.Contains(word, lower) {
			far = min(far, 2)
		}
		if limit := max(2, min(len(word), len(lower))/3); far <= limit {
			found = append(found, near{code, far})
		}
	}
	for _, p := range Pages() {
		see(string(p.Code))
	}
	for _, f := range Known() {
		for _, c := range f.Codes {
			see(c)
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return cmp.Compare(a.far, b.far) })
	var codes []string
	for _, n := range found[:min(len(found), 5)] {
		codes = append(codes, n.code)
	}
	return codes
}

// distance is how many letters have to be changed, put in, or taken out, or
// changed with their neighbour, to make a of b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
