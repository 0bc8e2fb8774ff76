package job

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"stillpoint/internal/problem"
)

// settingsEvent is the event that keeps the settings of a job. Names of files are
// among them, so those that are no Unicode stand there as bytes besides.
func settingsEvent(settings map[string][]string) Event {
	var keys []string
	bytes := map[string][][]byte{}
	for key, texts := range settings {
		keys = append(keys, key)
		if b := NotTexts(texts); b != nil {
			bytes[key] = b
		}
	}
	slices.Sort(keys)
	var words []string
	for _, key := range keys {
		words = append(words, key+": "+strings.Join(settings[key], ", "))
	}
	data := map[string]any{"settings": settings}
	if len(bytes) > 0 {
		data["settings_bytes"] = bytes
	}
	return Event{Step: StepPlan, Text: "settings: " + strings.Join(words, "; "), Data: data}
}

// Settings are what the job was told to do, as its log keeps them.
func (j *Job) Settings() (map[string][]string, error) {
	for _, e := range j.Events {
		if e.Data["settings"] == nil {
			continue
		}
		var settings map[string][]string
		var bytes map[string][][]byte
		err := errors.Join(as(e.Data["settings"], &settings), as(e.Data["settings_bytes"], &bytes))
		if err != nil {
			return nil, problem.Newf(problem.StateLost, j.ID, "the settings in its log cannot be read: %w", err)
		}
		for key, b := range bytes {
			settings[key] = exact(settings[key], b)
		}
		return settings, nil
	}
	return nil, problem.Newf(problem.Usage, j.ID, "its log has no settings to run it again by")
}

// as reads what JSON was read into as something else.
func as(v, to any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}
