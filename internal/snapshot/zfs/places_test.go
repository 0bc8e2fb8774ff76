//go:build !zfs

package zfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/volume"
)

// The recorded host is not in the machine that the tests with the tag zfs run in.

// noProbe answers nothing: what is mounted where is all that these tests need.
type noProbe struct{}

var errNoProbe = errors.New("nobody is asked")

func (noProbe) Locate(path string) (string, int, error) { return path, 0, nil }
func (noProbe) FileSystem(string, int) (volume.Facts, error) {
	return volume.Facts{}, errNoProbe
}
func (noProbe) Superblock(_, _ string) (uuid, label string, err error) { return "", "", errNoProbe }
func (noProbe) PartitionType(string, string, int) (string, error)      { return "", errNoProbe }

// recorded is the table of the host with ZFS that package volume has on record, with more mounts.
func recorded(t *testing.T, more ...string) *volume.Table {
	t.Helper()
	archive, err := txtar.ParseFile("../../volume/testdata/zfs.txtar")
	must1(t, err)
	dir := t.TempDir()
	for _, f := range archive.Files {
		text := string(f.Data)
		switch {
		case !strings.HasPrefix(f.Name, "proc/"):
			continue
		case f.Name == "proc/self/mountinfo":
			text += strings.Join(more, "")
		}
		must1(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, f.Name)), 0o755))
		must1(t, os.WriteFile(filepath.Join(dir, f.Name), []byte(text), 0o644))
	}
	table, err := volume.Read(t.Context(), volume.Roots{Proc: filepath.Join(dir, "proc"), Sys: dir, Dev: dir, Udev: dir, Probe: noProbe{}})
	must1(t, err)
	return table
}

func must1(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func at(t *testing.T, table *volume.Table, path string) volume.Volume {
	t.Helper()
	v, _, _, err := table.Find(path)
	must1(t, err)
	return v
}

func list(places []place) string {
	var all []string
	for _, p := range places {
		all = append(all, p.at+"="+p.dataset)
	}
	return strings.Join(all, ", ")
}

// What of the pool is mounted in a volume, at its place.
func TestPlaces(t *testing.T) {
	table := recorded(t,
		"60 48 0:60 / /srv/films/new rw - zfs tank/new rw\n",     // in a bind mount of a part
		"61 47 0:61 / /tank/My\\040Media/a rw - zfs tank/a rw\n", // below one that is nested
		"62 46 0:62 / /tank/tmp rw - tmpfs tmpfs rw\n", "63 62 0:63 / /tank/tmp/in rw - zfs tank/in rw\n",
		"64 46 0:51 /films /tank/films rw - zfs tank/My\\040Media rw\n",
		"65 46 0:65 / /tank/hidden rw - zfs tank/hidden rw\n", "66 65 0:66 / /tank/hidden rw - zfs tank/over rw\n",
	)
	for _, test := range []struct {
		path  string
		paths string
		want  string
	}{
		{"/", ".", ".=rpool/ROOT/pve-1, rpool=rpool, rpool/ROOT=rpool/ROOT, rpool/data=rpool/data, rpool/data/subvol-101-disk-0=rpool/data/subvol-101-disk-0, var/lib/vz=rpool/var-lib-vz"},
		{"/", "var", ".=rpool/ROOT/pve-1, var/lib/vz=rpool/var-lib-vz"},
		{"/", "rpool/data etc", ".=rpool/ROOT/pve-1, rpool=rpool, rpool/data=rpool/data, rpool/data/subvol-101-disk-0=rpool/data/subvol-101-disk-0"},
		{"/", "var/lib/vz", ".=rpool/ROOT/pve-1, var/lib/vz=rpool/var-lib-vz"},
		{"/", "var/lib/v", ".=rpool/ROOT/pve-1"},
		{"/rpool", ".", ".=rpool, ROOT=rpool/ROOT, data=rpool/data, data/subvol-101-disk-0=rpool/data/subvol-101-disk-0"},
		{"/tank", ".", ".=tank, My Media=tank/My Media, My Media/a=tank/a, My Media/films/new=tank/new, hidden=tank/over"},
		{"/srv/films", "films", ".=tank/My Media, films/new=tank/new"},
		{"/srv/legacy", ".", ".=tank/legacy"},
	} {
		got := list(places(table, at(t, table, test.path), strings.Fields(test.paths)))
		if got != test.want {
			t.Errorf("%s, %s:\n%s, want\n%s", test.path, test.paths, got, test.want)
		}
	}
}

// Which datasets that are not mounted are missed, where, and how badly.
func TestUnmounted(t *testing.T) {
	table := recorded(t)
	all := []dataset{
		{"tank", true, "on", "-", "/tank"},
		{"tank/My Media", true, "on", "-", "/tank/My Media"},
		{"tank/off", false, "off", "-", "/tank/off"},
		{"tank/noauto", false, "noauto", "-", "/tank/sub/noauto"},
		{"tank/forgotten", false, "on", "-", "/tank/My Media/forgotten"},
		{"tank/secret", false, "on", "unavailable", "/tank/secret"},
		{"tank/elsewhere", false, "on", "-", "/mnt/elsewhere"},
		{"tank/none", false, "on", "-", "none"},
		{"tank/legacy", false, "on", "-", "legacy"},
		{"tank/other", false, "noauto", "-", "/tank"},
		{"tank/covered", false, "noauto", "-", "/tank/My Media"},
	}
	v := at(t, table, "/tank")
	for paths, want := range map[string]string{
		".":        "off::empty sub/noauto: My Media/forgotten:volume-lost secret:volume-lost",
		"sub":      "sub/noauto:",
		"My Media": "My Media/forgotten:volume-lost",
		"none":     "",
	} {
		selected := []string{paths}
		var got []string
		for _, m := range unmounted(table, all, v, selected, places(table, v, selected)) {
			text := fmt.Sprintf("%s:%s", m.at, m.Code)
			if m.onlyEmpty {
				text += ":empty"
			}
			if m.Reason == "" || m.Path != m.at {
				t.Errorf("%+v", m)
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", paths, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for path, want := range map[string]string{".": ".", "a/../b": "b", "a/": "a", "/a": "", "..": "", "../a": "", "": ""} {
		got, err := clean(snapshot.Target{Paths: []string{path}})
		if want == "" && err == nil || want != "" && (err != nil || got[0] != want) {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
	if _, err := clean(snapshot.Target{}); err == nil {
		t.Error("no path is none")
	}
}
