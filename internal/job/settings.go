package job

import (
	"encoding/json"
	"slices"
	"strings"

	"stillpoint/internal/problem"
)

// settingsEvent is the event that keeps the settings of a job. Names of files are
// among them, so those that are no Unicode stand there as bytes besides.
func settingsEvent(settings map[string][]string) Event {
	var keys []string
	all := map[string]any{}
	for key, texts := range settings {
		keys = append(keys, key)
		all[key] = texts
		if b := NotTexts(texts); b != nil {
			all[key+inBytes] = b
		}
	}
	slices.Sort(keys)
	var words []string
	for _, key := range keys {
		words = append(words, key+": "+strings.Join(settings[key], ", "))
	}
	return Event{Step: StepPlan, Text: "settings: " + strings.Join(words, "; "), Data: map[string]any{"settings": all}}
}

// inBytes ends the name of what holds the real names beside their approximation.
const inBytes = "_bytes"

// Settings are what the job was told to do, as its log keeps them.
func (j *Job) Settings() (map[string][]string, error) {
	for _, e := range j.Events {
		if e.Data["settings"] == nil {
			continue
		}
		settings, err := settingsOf(e.Data["settings"])
		if err != nil {
			return nil, problem.Newf(problem.StateLost, j.ID, "the settings in its log cannot be read: %w", err)
		}
		return settings, nil
	}
	return nil, problem.Newf(problem.Usage, j.ID, "its log has no settings to run it again by")
}

func settingsOf(data any) (map[string][]string, error) {
	b, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	settings := map[string][]string{}
	for key, raw := range all {
		if strings.HasSuffix(key, inBytes) {
			continue
		}
		var texts []string
		var bytes [][]byte
		err := json.Unmarshal(raw, &texts)
		if in, there := all[key+inBytes]; err == nil && there {
			err = json.Unmarshal(in, &bytes)
		}
		if err != nil {
			return nil, err
		}
		settings[key] = exact(texts, bytes)
	}
	return settings, nil
}
