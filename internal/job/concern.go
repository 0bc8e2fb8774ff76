package job

import (
	"encoding/json"

	"stillpoint/internal/problem"
)

// A Concern is something that was found before the job did anything, which did
// not keep it from being complete, and may the next time.
type Concern struct {
	Code    problem.Code `json:"code"`
	Subject string       `json:"subject,omitempty"` // a path, a process; may be empty
	Text    string       `json:"text"`
}

type (
	plainConcern Concern
	concernJSON  struct {
		*plainConcern
		SubjectBytes []byte `json:"subject_bytes,omitempty"`
	}
)

// MarshalJSON writes a warning as it is in a report.
func (w Concern) MarshalJSON() ([]byte, error) {
	return encode(concernJSON{(*plainConcern)(&w), NotText(w.Subject)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (w *Concern) UnmarshalJSON(b []byte) error {
	j := concernJSON{plainConcern: (*plainConcern)(w)}
	err := json.Unmarshal(b, &j)
	if len(j.SubjectBytes) > 0 {
		w.Subject = string(j.SubjectBytes)
	}
	return err
}
