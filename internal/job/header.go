package job

import (
	"os"
	"os/user"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// NewHeader is the first line of a log that nobody keeps.
func NewHeader(id string, s Start) Header { return newHeader(id, s, time.Now()) }

func newHeader(id string, s Start, now time.Time) Header {
	h := Header{
		Format: 1, ID: id, Kind: s.Kind, Started: stamp(now),
		User: strconv.Itoa(os.Geteuid()), Command: redact(s.Args), Version: s.Version,
		PID: os.Getpid(), BootID: bootID(), Name: s.Name, RetryOf: s.RetryOf,
	}
	if u, err := user.Current(); err == nil {
		h.User = u.Username
	}
	h.CommandBytes = NotTexts(h.Command)
	// A host without a name is no reason not to log.
	h.Host, _ = os.Hostname()
	return h
}

// bootID is another one after each start of the host; empty where /proc is not
// to be had.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

var (
	secretFlag = regexp.MustCompile(`(?i)^--?[a-z0-9-]*(password|passwd|passphrase|secret|token|credential|key)s?$`)
	secretWord = regexp.MustCompile(`(?i)^[a-z0-9_]*(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIAL|KEY)S?$`)
)

const hidden = "***"

// redact returns args without the secrets in them: values of flags and
// variables whose names say that they are secret, and passwords in URLs. Flags
// that name a file with a secret (--password-file) are no secrets.
func redact(args []string) []string {
	out := make([]string, len(args))
	next := false // the value of a secret flag
	for i, a := range args {
		name, value, assigned := strings.Cut(a, "=")
		switch {
		case next:
			out[i] = hidden
		case assigned && (secretFlag.MatchString(name) || secretWord.MatchString(name)):
			out[i] = name + "=" + hidden
		case assigned:
			out[i] = name + "=" + redactURL(value)
		default:
			out[i] = redactURL(a)
		}
		next = !next && secretFlag.MatchString(a)
	}
	return out
}

// secretURL is a URL with a password, up to the host.
var secretURL = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9+.-]*://[^/:@]*:)[^/]*@`)

func redactURL(s string) string {
	return secretURL.ReplaceAllString(s, "${1}"+hidden+"@")
}
