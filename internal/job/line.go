package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"stillpoint/internal/problem"
)

// Types of lines, the value of "type" in each.
const (
	lineJob    = "job"
	lineEvent  = "event"
	lineReport = "report"
)

// encodeLine makes one line of a log: the fields of v, an object, after a
// field "type" that says what they are.
func encodeLine(kind string, v any) ([]byte, error) {
	body, err := encode(v)
	if err != nil {
		return nil, err
	}
	line := append([]byte(`{"type":"`), kind...)
	line = append(line, `",`...)
	return append(append(line, body[1:]...), '\n'), nil
}

// encode is json.Marshal, but leaves <, > and & as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// NotText returns a name where JSON, which only knows Unicode, shows but an
// approximation of it, and else nil: what a field NAME_bytes holds.
func NotText(name string) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(name)
}

// NotTexts is NotText for a list: all its names, where one is no Unicode.
func NotTexts(names []string) [][]byte {
	if !slices.ContainsFunc(names, func(n string) bool { return !utf8.ValidString(n) }) {
		return nil
	}
	all := make([][]byte, len(names))
	for i, n := range names {
		all[i] = []byte(n)
	}
	return all
}

// exact undoes NotTexts.
func exact(names []string, all [][]byte) []string {
	if all == nil {
		return names
	}
	names = make([]string, len(all))
	for i, n := range all {
		names[i] = string(n)
	}
	return names
}

// eventJSON is an event as a line has it.
type eventJSON struct {
	Time      time.Time      `json:"time"`
	Severity  Severity       `json:"severity"`
	Step      Step           `json:"step"`
	Volume    string         `json:"volume,omitempty"`
	Path      string         `json:"path,omitempty"`
	PathBytes []byte         `json:"path_bytes,omitempty"`
	Code      problem.Code   `json:"code,omitempty"`
	Text      string         `json:"text"`
	Intent    string         `json:"intent,omitempty"`
	Done      string         `json:"done,omitempty"`
	Data      map[string]any `json:"data,omitempty"`
}

// MarshalJSON writes an event as it is in a log.
func (e Event) MarshalJSON() ([]byte, error) {
	j := eventJSON{
		Time: stamp(e.Time), Severity: e.Severity, Step: e.Step, Volume: e.Volume, Path: e.Path,
		PathBytes: NotText(e.Path), Code: e.Code, Text: e.Text, Intent: e.Intent, Done: e.Done, Data: e.Data,
	}
	return encode(j)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Event) UnmarshalJSON(b []byte) error {
	var j eventJSON
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&j); err != nil {
		return err
	}
	*e = Event{
		Time: j.Time, Severity: j.Severity, Step: j.Step, Volume: j.Volume, Path: j.Path,
		Code: j.Code, Text: j.Text, Intent: j.Intent, Done: j.Done, Data: j.Data,
	}
	if j.PathBytes != nil {
		e.Path = string(j.PathBytes)
	}
	return nil
}

// stamp brings a time into the form all lines have. JSON knows years of four
// digits only; a clock beyond them must not cost the line.
func stamp(t time.Time) time.Time {
	t = t.Round(0).UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// Millis is a length of time that JSON shows as milliseconds, with decimals
// down to the microsecond.
type Millis time.Duration

// MarshalJSON writes milliseconds.
func (m Millis) MarshalJSON() ([]byte, error) {
	us := time.Duration(m).Round(time.Microsecond).Microseconds()
	return strconv.AppendFloat(nil, float64(us)/1000, 'f', -1, 64), nil
}

// UnmarshalJSON reads milliseconds.
func (m *Millis) UnmarshalJSON(b []byte) error {
	ms, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return fmt.Errorf("milliseconds: %w", err)
	}
	*m = Millis(time.Duration(ms * float64(time.Millisecond)).Round(time.Microsecond))
	return nil
}
