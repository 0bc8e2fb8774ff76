package job

import (
	"encoding/json"
	"fmt"
)

// A Span is one step of a backup with the time that it took, for the report's
// timeline. Times are counted from the begin of the job, by a clock that nobody
// sets back.
type Span struct {
	// Capture counts the captures of the job from 1 on, also those that failed;
	// 0 is for steps of the job as a whole.
	Capture int `json:"capture,omitempty"`

	// Step is plan, capture, store, record or release for the job as a whole;
	// in a capture quiet, and of a provider prepare, ready, hold, commit,
	// resume, and of an application prepare, freeze, rest, thaw.
	Step string `json:"step"`

	Provider    string   `json:"provider,omitempty"`
	Volumes     []string `json:"volumes,omitempty"` // identities of those that the provider took with this step
	Application string   `json:"application,omitempty"`

	At     Millis `json:"at_ms"`
	Took   Millis `json:"took_ms"`
	Failed bool   `json:"failed,omitempty"`
}

// End is when it was over.
func (s Span) End() Millis { return s.At + s.Took }

// A Directory says how much a backup holds below one directory, all that is
// nested in it included.
type Directory struct {
	Path  string
	Files int64
	Bytes int64
}

type directoryJSON struct {
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
	Files     int64  `json:"files"`
	Bytes     int64  `json:"bytes"`
}

// MarshalJSON writes a directory as it is in an event.
func (d Directory) MarshalJSON() ([]byte, error) {
	return encode(directoryJSON{d.Path, NotText(d.Path), d.Files, d.Bytes})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (d *Directory) UnmarshalJSON(b []byte) error {
	var j directoryJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*d = Directory{j.Path, j.Files, j.Bytes}
	if j.PathBytes != nil {
		d.Path = string(j.PathBytes)
	}
	return nil
}

// directories is the name in an event's Data under which they are.
const directories = "directories"

// DirectoriesEvent is the event that tells the sizes by directory: each after
// the one that it is in.
func DirectoriesEvent(all []Directory) Event {
	return Event{Step: StepRecord, Text: fmt.Sprintf("sizes of %d directories", len(all)), Data: map[string]any{directories: all}}
}

// Directories are the sizes by directory, if an event tells them.
func (j *Job) Directories() (all []Directory) {
	for _, e := range j.Events {
		if e.Step != StepRecord || e.Data[directories] == nil {
			continue
		}
		b, err := encode(e.Data[directories])
		if err != nil || json.Unmarshal(b, &all) != nil {
			return nil // not ours
		}
	}
	return all
}
