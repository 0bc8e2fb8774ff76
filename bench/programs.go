package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A command is one call of a program.
type command struct {
	args []string
	env  []string
	dir  string
}

// A program is one of those that are compared. All that it writes lies in the
// folder it is given: the repository in "repo", caches and settings beside it.
type program struct {
	name     string
	path     string
	version  []string // arguments that make it print its version
	settings string   // for the reader of the table

	init    func(p *program, dir string) []command
	backup  func(p *program, dir, source string, n int) command
	restore func(p *program, dir, source, target string, n int) command
}

const password = "correct horse battery staple"

func repo(dir string) string { return filepath.Join(dir, "repo") }

// programs finds or builds what is compared.
func programs(ctx context.Context, o *options, bin string) ([]*program, error) {
	var out []*program
	for _, name := range o.only {
		var p *program
		var err error
		switch name {
		case "restic":
			p = restic()
			p.path, err = exec.LookPath("restic")
		case "borg":
			p = borg()
			p.path, err = exec.LookPath("borg")
		case "kopia", "kopia-plain":
			p = kopia(name)
			p.path, err = built(ctx, o.kopia, bin, "github.com/kopia/kopia", "-tags", "nohtmlui")
		case "stillpoint":
			p = stillpoint(name, o.provider)
			p.path, err = built(ctx, o.stillpoint, bin, "stillpoint/cmd/stillpoint")
		case "stillpoint-live":
			p = stillpoint(name, "none")
			p.path, err = built(ctx, o.stillpoint, bin, "stillpoint/cmd/stillpoint")
		default:
			err = fmt.Errorf("unknown program %q", name)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// built returns the program that was named, or builds one.
func built(ctx context.Context, named, bin, pkg string, flags ...string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	path := filepath.Join(bin, filepath.Base(pkg))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	say("building %s …", pkg)
	args := append([]string{"build", "-trimpath", "-o", path}, flags...)
	c := exec.CommandContext(ctx, "go", append(args, pkg)...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return path, nil
}

func (p *program) describe(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, p.path, p.version...).Output()
	if err != nil {
		return fmt.Sprintf("%s (version unknown: %v): %s", p.name, err, p.settings)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return fmt.Sprintf("%s (%s): %s", p.name, line, p.settings)
}

func restic() *program {
	env := func(dir string) []string {
		return []string{"RESTIC_REPOSITORY=" + repo(dir), "RESTIC_PASSWORD=" + password, "RESTIC_CACHE_DIR=" + filepath.Join(dir, "cache")}
	}
	return &program{
		name:     "restic",
		version:  []string{"version"},
		settings: "AES-256-CTR with Poly1305, zstd (`--compression auto`)",
		init: func(p *program, dir string) []command {
			return []command{{args: []string{p.path, "init"}, env: env(dir)}}
		},
		backup: func(p *program, dir, source string, _ int) command {
			return command{args: []string{p.path, "backup", "--quiet", source}, env: env(dir)}
		},
		restore: func(p *program, dir, _, target string, _ int) command {
			return command{args: []string{p.path, "restore", "latest", "--quiet", "--target", target}, env: env(dir)}
		},
	}
}

func borg() *program {
	env := func(dir string) []string {
		return []string{"BORG_REPO=" + repo(dir), "BORG_PASSPHRASE=" + password, "BORG_BASE_DIR=" + filepath.Join(dir, "base")}
	}
	archive := func(n int) string { return fmt.Sprintf("::run-%d", n) }
	return &program{
		name:     "borg",
		version:  []string{"--version"},
		settings: "`repokey-blake2`, AES-256-CTR with BLAKE2b, lz4",
		init: func(p *program, dir string) []command {
			return []command{{args: []string{p.path, "init", "--encryption", "repokey-blake2"}, env: env(dir)}}
		},
		backup: func(p *program, dir, source string, n int) command {
			return command{args: []string{p.path, "create", archive(n), source}, env: env(dir)}
		},
		restore: func(p *program, dir, _, target string, n int) command {
			return command{args: []string{p.path, "extract", archive(n)}, env: env(dir), dir: target}
		},
	}
}

func kopia(name string) *program {
	env := func(dir string) []string {
		return []string{
			"KOPIA_PASSWORD=" + password, "KOPIA_CONFIG_PATH=" + filepath.Join(dir, "config"), "KOPIA_CACHE_DIRECTORY=" + filepath.Join(dir, "cache"),
			"KOPIA_LOG_DIR=" + filepath.Join(dir, "log"), "KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_USE_KEYRING=false",
		}
	}
	settings := "AES-256-GCM, "
	if name == "kopia" {
		settings += "zstd-fastest by policy"
	} else {
		settings += "no compression, which is its default"
	}
	return &program{
		name:     name,
		version:  []string{"--version"},
		settings: settings,
		init: func(p *program, dir string) []command {
			cs := []command{{args: []string{p.path, "repository", "create", "filesystem", "--path", repo(dir)}, env: env(dir)}}
			if name == "kopia" {
				cs = append(cs, command{args: []string{p.path, "policy", "set", "--global", "--compression=zstd-fastest"}, env: env(dir)})
			}
			return cs
		},
		backup: func(p *program, dir, source string, _ int) command {
			return command{args: []string{p.path, "snapshot", "create", "--no-progress", source}, env: env(dir)}
		},
		restore: func(p *program, dir, source, target string, _ int) command {
			return command{args: []string{p.path, "snapshot", "restore", "--no-progress", source, target}, env: env(dir)}
		},
	}
}

func stillpoint(name, provider string) *program {
	env := func(dir string) []string {
		return []string{"STILLPOINT_REPO=" + repo(dir), "STILLPOINT_PASSWORD=" + password, "STILLPOINT_STATE=" + filepath.Join(dir, "state")}
	}
	return &program{
		name:     name,
		version:  []string{"version"},
		settings: "AES-256-GCM, zstd-fastest, zstd for what is small; `--provider " + provider + "`",
		init: func(p *program, dir string) []command {
			return []command{{args: []string{p.path, "init"}, env: env(dir)}}
		},
		backup: func(p *program, dir, source string, _ int) command {
			return command{args: []string{p.path, "backup", "--provider", provider, source}, env: env(dir)}
		},
		restore: func(p *program, dir, source, target string, _ int) command {
			return command{args: []string{p.path, "restore", "latest:" + source, "--to", target}, env: env(dir)}
		},
	}
}
