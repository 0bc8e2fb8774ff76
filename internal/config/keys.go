package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Key is one setting of a job: the same word in the file, in a log and, with
// - in place of _, on the command line. The table Keys is all that is known of
// them; reading, showing and the flags of the command follow it.
type Key struct {
	Name    string // a dot stands between a key and one that is in it: retry.times
	Flag    string // on the command line; empty where it has none
	Short   string // the same in one letter
	Type    Type
	Path    bool     // of a file or folder: in the file it begins with a slash
	Words   []string // all that may stand there
	Default string
	Env     string // variable that stands for it
	Usage   string // for people; empty where there is no flag

	check  func(text string) error // more than the type says
	refuse string                  // what is said of a wrong word, in place of the usual
}

// A Type says what a value looks like.
type Type int

// The types.
const (
	Text Type = iota
	Bool
	Count // 0, 1, 2 …
	Time  // 500ms, 30s, 2m
	List  // of texts; in the file a single one may stand by itself
)

// Classes of failures that may pass, each with a rule of its own for trying
// again.
var Classes = []string{"resources", "timeout", "retryable"}

// Keys are all settings of a job.
func Keys() []Key {
	return []Key{
		{Name: "paths", Type: List, Path: true},
		{Name: "exclude", Flag: "exclude", Short: "e", Type: List, Usage: "leave out what fits this pattern; may be given several times"},
		{Name: "exclude_file", Flag: "exclude-file", Type: List, Path: true, Usage: "leave out what fits a pattern in this file, one per line, # for comments"},
		{Name: "one_file_system", Flag: "one-file-system", Short: "x", Type: Bool, Default: "false", Usage: "leave out what is mounted below the paths"},
		{Name: "repo", Flag: "repo", Short: "r", Path: true, Env: "STILLPOINT_REPO", Usage: "folder of the repository (default $STILLPOINT_REPO)"},
		{Name: "password_file", Flag: "password-file", Path: true, Env: "STILLPOINT_PASSWORD_FILE", Usage: "file that holds the password (default $STILLPOINT_PASSWORD_FILE)"},
		{Name: "provider", Flag: "provider", Type: List, Default: "auto", check: provider, Usage: "snapshot provider: auto, none (read live), or one of those that the command providers lists; PATH=NAME for a path of its own; may be given several times"},
		{Name: "open_files", Flag: "open-files", Default: "fail", check: openFiles, Usage: "what becomes of volumes that no snapshot can be taken of: fail, or read live and, of files that are open for writing, skip, wait:30s, lock, read"},
		{Name: "require", Flag: "require", Type: List, Words: []string{"one-instant", "application"}, refuse: "cannot be required; one-instant and application can", Usage: "fail where this cannot be had: one-instant, application; may be given several times"},
		{Name: "exceptions", Flag: "exceptions", Words: []string{"allow", "none"}, Default: "allow", Usage: "what a backup with exceptions is: allow, or none: then the job has failed, and the backup is kept"},
		{Name: "one_at_a_time", Flag: "one-at-a-time", Type: Bool, Default: "false", Usage: "take one volume after the other, each at an instant of its own"},
		{Name: "quiet", Flag: "quiet", Type: Time, Default: "0s", Usage: "wait until nobody has written to the volumes for so long; 0 waits for nothing"},
		{Name: "quiet_timeout", Flag: "quiet-timeout", Type: Time, Default: "30s", check: positive, Usage: "how long to wait for that"},
		{Name: "no_quiet", Flag: "no-quiet", Words: []string{"fail", "continue", "one-at-a-time"}, Default: "fail", Usage: "what to do if it does not come: fail, continue (without), one-at-a-time"},
		{Name: "policy", Flag: "policy", Type: List, check: policy, Usage: "NAME=POLICY for applications that cannot be brought to rest: a writer's name, and exclude, crash or fail; may be given several times"},
		{Name: "cache_dir", Flag: "cache-dir", Path: true, Env: "STILLPOINT_CACHE_DIR", Usage: "folder for the cache files of cow, which have no name there (default $STILLPOINT_CACHE_DIR, or the volume with most room)"},
		{Name: "cache_max", Flag: "cache-max", Env: "STILLPOINT_CACHE_MAX", Usage: "how large each may become: bytes, 500M, 20G, or a share of the free space, 25% (default $STILLPOINT_CACHE_MAX, or 30% of what is used on the volume, all of it up to 1G)"},
		{Name: "notify", Type: List},
		{Name: "checkpoint", Flag: "checkpoint", Type: Time, Default: "5m", Usage: "how often an unfinished backup is made resumable; 0 for never"},
		{Name: "retry.times", Flag: "retry", Type: Count, Usage: "how often a backup is tried again that failed with what may pass (of a job in the configuration 3, else 0)"},
		{Name: "retry.wait", Flag: "retry-wait", Type: Time, Usage: "how long to wait before that (default 30s, or 1m where room or memory was short)"},
		{Name: "retry.resources.times", Type: Count, Default: "3"},
		{Name: "retry.resources.wait", Type: Time, Default: "1m"},
		{Name: "retry.timeout.times", Type: Count, Default: "3"},
		{Name: "retry.timeout.wait", Type: Time, Default: "30s"},
		{Name: "retry.retryable.times", Type: Count, Default: "3"},
		{Name: "retry.retryable.wait", Type: Time, Default: "30s"},
	}
}

// KeyOf finds a key by its name.
func KeyOf(name string) (Key, bool) {
	for _, k := range Keys() {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

// Check tells what is wrong with one text, and what is allowed.
func (k Key) Check(text string) error {
	switch k.Type {
	case Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case Count:
		if n, err := strconv.Atoi(text); err != nil || n < 0 {
			return fmt.Errorf("%q is no number: write 0, 1, 2 …", text)
		}
	case Time:
		if d, err := time.ParseDuration(text); err != nil || d < 0 {
			return fmt.Errorf("%q is no duration: write 500ms, 30s or 2m", text)
		}
	default:
		if text == "" {
			return fmt.Errorf("is empty")
		}
	}
	if k.Words != nil && !slices.Contains(k.Words, text) {
		if k.refuse != "" {
			return fmt.Errorf("%q %s", text, k.refuse)
		}
		return fmt.Errorf("%q is none of %s", text, strings.Join(k.Words, ", "))
	}
	if k.check != nil {
		return k.check(text)
	}
	return nil
}

func positive(text string) error {
	if d, err := time.ParseDuration(text); err != nil || d == 0 {
		return fmt.Errorf("%q is no time to wait: write 500ms, 30s or 2m", text)
	}
	return nil
}

// ProviderOf takes PATH=PROVIDER apart. There may be more of these signs in a path; in
// the name of a provider there is none.
func ProviderOf(text string) (path, name string, of bool) {
	at := strings.LastIndex(text, "=")
	if at < 0 {
		return "", text, false
	}
	return text[:at], text[at+1:], true
}

func provider(text string) error {
	path, name, of := ProviderOf(text)
	if of && (!filepath.IsAbs(path) || name == "") {
		return fmt.Errorf("%q is neither a provider nor PATH=PROVIDER with a path that begins with a slash", text)
	}
	return nil
}

var waits = regexp.MustCompile(`^wait:(.+)$`)

func openFiles(text string) error {
	if m := waits.FindStringSubmatch(text); m != nil {
		return positive(m[1])
	}
	words := []string{"fail", "skip", "lock", "read"}
	if !slices.Contains(words, text) {
		return fmt.Errorf("%q is none of fail, skip, wait:30s, lock, read", text)
	}
	return nil
}

// writers have policies; the configuration has a section for each.
var writers = []string{"postgresql", "mariadb", "redis", "sqlite", "script"}

func policy(text string) error {
	name, word, _ := strings.Cut(text, "=")
	if !slices.Contains(writers, name) || !slices.Contains(policies, word) {
		return fmt.Errorf("%q is not NAME=POLICY, with %s, and %s", text, strings.Join(writers, ", "), strings.Join(policies, ", "))
	}
	return nil
}

var policies = []string{"exclude", "crash", "fail"}
