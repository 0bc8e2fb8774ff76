//go:build vm

package vm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"stillpoint/test/vm"
)

// exclude leaves out what is large and never written to: an emulated processor stores
// two megabytes a second of it.
const exclude = " --exclude /usr/lib/x86_64-linux-gnu --exclude /usr/lib/modules"

// TestRoot is the root file system itself, on a machine that has no other: it is
// watched from boot on by the agent as systemd starts it, and all is done to it that
// no test may do to the machine it runs on.
func TestRoot(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			r := newRig(t, vm.Backports, fs)
			r.sub("boot", (*rig).boot)
			r.must("mkdir -p /var/busy /var/backups && stillpoint init && systemd-run --quiet --unit=busy guest busy /var/busy")
			r.soon("guest figures | grep -v '\"Payments\":0'")
			r.sub("backup", (*rig).backup)
			r.sub("run", (*rig).program)
			r.sub("snapshot", (*rig).snapshot)
			r.sub("killed", func(r *rig) { r.agentEnds("KILL") })
			r.sub("stopped", func(r *rig) { r.agentEnds("STOP") })
			r.sub("restart", (*rig).restart)
			r.sub("power", (*rig).power)
		})
	}
}

// The agent was there before all that writes.
func (r *rig) boot() {
	r.must("systemctl is-active stillpoint-agent.service")
	out := r.must("stillpoint agent status")
	for line := range strings.Lines(out) {
		// journald is there before any file system is.
		if strings.Contains(line, "(pid ") && !strings.Contains(line, "systemd-journal") {
			r.Errorf("was there before the agent: %s", line)
		}
	}
	if !strings.Contains(out, " / ") || !strings.Contains(out, " idle ") {
		r.Errorf("/ is not watched:\n%s", out)
	}
	if out := r.must("stillpoint providers /"); !strings.Contains(out, "cow       chosen") {
		r.Errorf("%s", out)
	}
}

// A backup of / is of one moment, whatever is written meanwhile, and nobody waits for it.
func (r *rig) backup() {
	before := r.figures()
	out := r.mustWithin(6*time.Minute, "stillpoint backup / --require one-instant"+exclude)
	after := r.figures()
	r.Logf("%s", out)
	r.goesOnWith("backup of /", after)
	r.mustWithin(4*time.Minute, "stillpoint restore latest:/var/busy --to /var/restored")
	r.Logf("%s", r.must(fmt.Sprintf("guest check /var/restored/var/busy %d %d", before.Records, after.Records+1)))
	// Of what nobody writes all is there, as it is.
	r.must("stillpoint restore latest:/etc --to /var/restored && diff -r --no-dereference /etc /var/restored/etc")
	r.must("stillpoint ls latest:/ | grep -q usr && ! stillpoint ls latest:/proc | grep -q .")
	r.must("rm -r /var/restored")
}

// A program sees the snapshot as its root, with the kernel's file systems on it.
func (r *rig) program() {
	before := r.figures()
	r.must(`stillpoint run / -- sh -ec 'mkdir /run/copy; cp -a /var/busy/. /run/copy; test -e /proc/self; test -c /dev/null; ! touch /var/new; touch /run/new' 2>/run/said || { cat /run/said >&2; exit 1; }`)
	after := r.figures()
	r.goesOnWith("run / -- PROGRAM", after)
	r.Logf("%s", r.must(fmt.Sprintf("guest check /run/copy %d %d && rm -r /run/copy", before.Records, after.Records+1)))
	r.nothingLeft()
}

// A snapshot of / that is mounted is a stack of mounts, which goes as a whole.
func (r *rig) snapshot() {
	before := r.figures()
	r.must("stillpoint snapshot create / >/run/id && stillpoint snapshot mount $(cat /run/id) /mnt")
	after := r.figures()
	r.goesOnWith("snapshot create /", after)
	r.must("test -x /mnt/usr/local/bin/stillpoint && ! touch /mnt/new && cp -a /mnt/var/busy /run/copy")
	r.Logf("%s", r.must(fmt.Sprintf("guest check /run/copy %d %d && rm -r /run/copy", before.Records, after.Records+1)))
	r.must("stillpoint snapshot delete $(cat /run/id)")
	r.nothingLeft()
	r.goesOn("snapshot delete")
}

// An agent that is killed, or stands still, takes its snapshot of / with it and
// nothing else: the system goes on, and systemd starts another one.
func (r *rig) agentEnds(signal string) {
	r.must("stillpoint snapshot create / >/run/id && stillpoint snapshot mount $(cat /run/id) /mnt && test -e /mnt/etc/fstab")
	r.figures()
	r.nextAgent(signal)
	r.goesOn("agent ended by SIG" + signal)
	if out := r.must("stillpoint snapshot list"); out != "no snapshots" {
		r.Errorf("there still are:\n%s", out)
	}
	r.nothingLeft()
	r.filterOutlives("SIG" + signal)
	r.must("stillpoint snapshot create / >/run/id && stillpoint snapshot delete $(cat /run/id)")
	r.goesOn("the next snapshot")
}

// nextAgent ends the agent by a signal, and waits for the one that systemd starts.
func (r *rig) nextAgent(signal string) {
	r.Helper()
	pid := r.must("systemctl show --property=MainPID --value stillpoint-agent")
	r.must("kill -" + signal + " " + pid)
	r.soon("p=$(systemctl show --property=MainPID --value stillpoint-agent); test $p != 0 && test $p != " + pid + " && timeout 20 stillpoint agent status")
}

// filterOutlives wants that the next agent sees what was opened under the eyes of the
// one before.
func (r *rig) filterOutlives(what string) {
	r.Helper()
	if out := r.must("timeout 20 stillpoint agent status"); strings.Contains(out, " guest (pid ") {
		r.Errorf("%s: what was opened before is not seen any more:\n%s", what, out)
	}
}

// The agent can be restarted, stopped and started; what it kept is gone then.
func (r *rig) restart() {
	r.must("stillpoint snapshot create / && systemctl restart stillpoint-agent && timeout 20 stillpoint agent status")
	r.goesOn("systemctl restart")
	r.nothingLeft()
	r.filterOutlives("systemctl restart")
	r.must("stillpoint snapshot create / && systemctl stop stillpoint-agent")
	r.goesOn("systemctl stop")
	r.must("! readlink /proc/[0-9]*/exe | grep bin/stillpoint && ! ls -A /run/stillpoint 2>/dev/null | grep .")
	r.nothingLeft()
	r.must("systemctl start stillpoint-agent && timeout 20 stillpoint agent status")
	r.goesOn("systemctl start")
}

// The power fails while a backup of / is stored. After the next boot nothing is left
// of it but a job that died, and the next backup is as good as any.
func (r *rig) power() {
	r.must("head -c 100000000 /dev/urandom >/var/much") // so that storing takes a while
	r.must("systemd-run --quiet --unit=backup --setenv=STILLPOINT_REPO=$STILLPOINT_REPO --setenv=STILLPOINT_PASSWORD=\"$STILLPOINT_PASSWORD\" --setenv=HOME=/root stillpoint backup /" + exclude)
	r.soon("timeout 20 stillpoint agent status | grep ' cow .* process '")
	r.m.Cut()
	r.start()
	r.nothingLeft()
	if out := r.must("stillpoint clean --dry-run --json"); strings.Count(out, `"what"`) != 1 || !strings.Contains(out, `"what": "job"`) {
		r.Errorf("left are:\n%s", out)
	}
	r.must("stillpoint clean")
	if out := r.must("stillpoint clean --dry-run --json"); out != "[]" {
		r.Errorf("left after clean:\n%s", out)
	}
	r.mustWithin(6*time.Minute, "stillpoint backup /"+exclude+" && stillpoint verify")
	r.nothingLeft()
}

// nothingLeft wants no trace of a snapshot.
func (r *rig) nothingLeft() {
	r.Helper()
	if out := r.must("grep -i -e stillpoint -e ' /mnt ' /proc/self/mountinfo || true"); out != "" {
		r.Errorf("mounts are left:\n%s", out)
	}
	if out := r.must("stillpoint agent status --json 2>/dev/null | grep '\"state\": \"armed\"' || true"); out != "" {
		r.Errorf("the filter still asks:\n%s", out)
	}
	if out := r.must("ls -A / | grep -i stillpoint || true"); out != "" {
		r.Errorf("left in /: %s", out)
	}
}
