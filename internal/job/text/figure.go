package text

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Printable shows what no terminal may interpret: names of files and texts
// made of them may hold control characters, or no text at all.
func Printable(s string) string {
	clean := true
	for _, r := range s {
		clean = clean && unicode.IsPrint(r) && r != utf8.RuneError
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// Clock is a time as clocks on this host show it.
func Clock(t time.Time) string {
	if t.IsZero() {
		return "no time"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// Length shows a time as people need it: two figures of its order.
func Length(d time.Duration) string {
	switch {
	case d == 0:
		return "0 ms"
	case d < 999500*time.Microsecond:
		return strconv.FormatFloat(float64(d.Round(time.Microsecond))/float64(time.Millisecond), 'g', 3, 64) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

func moved(bytes int64, took time.Duration) string {
	if took < time.Millisecond || bytes == 0 {
		return Size(bytes)
	}
	return fmt.Sprintf("%s, %s/s", Size(bytes), Size(int64(float64(bytes)/took.Seconds())))
}

// Size shows so many bytes as people need it.
func Size(bytes int64) string {
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	f := float64(bytes)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		f /= 1024
		if f < 999.5 || unit == "EiB" {
			digits := 1
			if f >= 99.95 {
				digits = 0
			}
			return strconv.FormatFloat(f, 'f', digits, 64) + " " + unit
		}
	}
	return ""
}

// Plural is a number with the word that fits it.
func Plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Thousands(n) + " " + many
}

// Thousands shows a number in groups of three digits.
func Thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
