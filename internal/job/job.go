// Package job knows what a job is and keeps its log: one file per job,
// append-only lines of JSON, synced before each step that changes the host, so
// that it doubles as the record of intent for cleaning up. The first line
// describes the job, each further line is an event, and the last one is the
// report. A log without a report whose lock nobody holds belongs to a job that
// died. Nothing is ever dropped: what cannot be written is kept and tried again.
//
// The package knows nothing about how backups work, and package text shows
// events and reports to people.
package job

import (
	"time"

	"stillpoint/internal/problem"
)

// Kind says what a job was asked to do.
type Kind string

// The kinds.
const (
	Backup  Kind = "backup"
	Restore Kind = "restore"
	Verify  Kind = "verify"
	Clean   Kind = "clean"
)

// Status says how far a job is, or how it ended.
type Status string

// The statuses. Running and Died are never written: they are what a log without
// a report means.
const (
	Running                Status = "running"
	Complete               Status = "complete"
	CompleteWithExceptions Status = "complete-with-exceptions"
	Failed                 Status = "failed"
	Cancelled              Status = "cancelled"
	Died                   Status = "died"
)

// Level is what a backup promises.
type Level string

// The levels, best first.
const (
	Application Level = "application" // the applications were at rest
	FileSystem  Level = "filesystem"  // the file systems were at rest
	Crash       Level = "crash"       // as after a power cut
	Live        Level = "live"        // read while everything went on
)

// Severity says how much an event matters.
type Severity string

// The severities.
const (
	Info    Severity = "info"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Step names the part of a job that an event belongs to.
type Step string

// The steps, in the order of a backup; then those of other jobs.
const (
	StepPlan      Step = "plan"
	StepPreflight Step = "preflight"
	StepQuiesce   Step = "quiesce" // applications
	StepCapture   Step = "capture"
	StepStore     Step = "store"
	StepAsk       Step = "ask"
	StepRecord    Step = "record"
	StepRelease   Step = "release"
	StepRestore   Step = "restore"
	StepVerify    Step = "verify"
	StepClean     Step = "clean"
	StepRetry     Step = "retry"
	StepLog       Step = "log"    // about the log itself
	StepNotify    Step = "notify" // telling others how it ended
)

// A Header is the first line of a log.
type Header struct {
	Format  int       `json:"format"` // of the log: 1
	ID      string    `json:"id"`     // ten letters and digits
	Kind    Kind      `json:"kind"`
	Started time.Time `json:"started"`
	Host    string    `json:"host"`
	User    string    `json:"user"`
	Command []string  `json:"command"` // without secrets

	// CommandBytes is NotTexts of Command.
	CommandBytes [][]byte `json:"command_bytes,omitempty"`

	Name    string `json:"name,omitempty"`     // in the configuration
	RetryOf string `json:"retry_of,omitempty"` // the job that was run again

	Version string `json:"version"`
	PID     int    `json:"pid"`
	BootID  string `json:"boot_id"` // /proc/sys/kernel/random/boot_id
}

// An Event is one thing that happened in a job.
type Event struct {
	Time     time.Time // the log sets it where it is zero
	Severity Severity  // the log sets Info where it is empty
	Step     Step
	Volume   string // identity of the volume it concerns; may be empty
	Path     string // the live path it concerns, any bytes; may be empty
	Code     problem.Code
	Text     string // for people, without Path; a line for each of several errors

	// Intent names a change to the host that is about to be made, so that
	// it can be undone after a crash: any word that is unique in the job.
	// Done names an intent of which nothing is left to undo.
	Intent string
	Done   string

	// Data holds details for programs, by snake_case names. Numbers come
	// back as json.Number.
	Data map[string]any
}

// A Summary is one job in a list.
type Summary struct {
	Header
	Status     Status       `json:"status"`
	Level      Level        `json:"level,omitempty"`
	Code       problem.Code `json:"code,omitempty"`
	Backup     string       `json:"backup,omitempty"` // ID of the backup it made
	Ended      time.Time    `json:"ended,omitzero"`   // zero while it runs
	Took       Millis       `json:"took_ms"`
	Exceptions int64        `json:"exceptions"`

	// OpenIntents are the events whose Intent no later event has Done. List
	// fills it only for jobs that died.
	OpenIntents []Event `json:"open_intents,omitempty"`
}

// A Job is everything that its log tells.
type Job struct {
	Summary
	Events    []Event `json:"events"`
	TornLines int     `json:"torn_lines"` // that could not be read; each is an event, too
	Report    *Report `json:"report"`     // nil while there is none
}
