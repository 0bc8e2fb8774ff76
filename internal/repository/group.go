package repository

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kopia/kopia/snapshot"

	"stillpoint/internal/problem"
	"stillpoint/internal/tree"
)

// group puts the manifests of one job together. Snapshots that the stock
// program made are backups with one path each.
func group(ms []*snapshot.Manifest, incomplete bool) ([]Backup, error) {
	by := map[string]*Backup{}
	for _, m := range ms {
		if m.IncompleteReason != "" && !incomplete {
			continue
		}
		id := m.Tags[tagJob]
		if id == "" {
			id = string(m.ID)
		}
		key := id
		if m.IncompleteReason != "" {
			key += " " + string(m.ID)
		}
		b := by[key]
		if b == nil {
			b = newBackup(id, m)
			by[key] = b
		}
		t, err := newTree(m)
		if err != nil {
			return nil, problem.New(problem.RepositoryDamaged, id, err)
		}
		b.Trees = append(b.Trees, t)
		b.manifests = append(b.manifests, m.ID)
		b.Files += int64(m.Stats.TotalFileCount)
		b.Bytes += m.Stats.TotalFileSize
		if t.Root.Type == tree.File {
			b.Files, b.Bytes = b.Files+1, b.Bytes+t.Root.Size
		}
	}
	out := make([]Backup, 0, len(by))
	for _, b := range by {
		slices.SortFunc(b.Trees, func(x, y Tree) int { return strings.Compare(x.Path, y.Path) })
		if !b.Incomplete() {
			b.Lost = max(0, b.Lost-len(b.Trees))
		}
		out = append(out, *b)
	}
	return newestFirst(out), nil
}

// newestFirst goes by the order of recording. What another program made has
// only a time: it comes between ours as if our clock had never been set back.
func newestFirst(bs []Backup) []Backup {
	slices.SortFunc(bs, func(x, y Backup) int {
		return cmp.Or(cmp.Compare(x.order, y.order), x.Started.Compare(y.Started), strings.Compare(x.ID, y.ID))
	})
	type dated struct {
		b  Backup
		at time.Time
	}
	all := make([]dated, len(bs))
	var latest time.Time
	for i, b := range bs {
		all[i] = dated{b, b.Started}
		if b.order > 0 && b.Started.After(latest) {
			latest = b.Started
		}
		if b.order > 0 {
			all[i].at = latest
		}
	}
	slices.SortStableFunc(all, func(x, y dated) int { return x.at.Compare(y.at) })
	for i, d := range all {
		bs[len(bs)-1-i] = d.b
	}
	return bs
}

func newBackup(id string, m *snapshot.Manifest) *Backup {
	b := &Backup{
		ID:       id,
		Host:     m.Source.Host,
		User:     m.Source.UserName,
		Started:  m.StartTime.ToTime(),
		Ended:    m.EndTime.ToTime(),
		Provider: m.Tags[tagProvider],
		Level:    m.Tags[tagLevel],
		Status:   m.Tags[tagStatus],
	}
	b.Instant = parseStamp(m.Tags[tagFirst], b.Started)
	b.Skew, _ = time.ParseDuration(m.Tags[tagSkew])
	b.order, _ = strconv.ParseInt(m.Tags[tagOrder], 10, 64)
	b.Exceptions, _ = strconv.Atoi(m.Tags[tagExceptions])
	b.Lost, _ = strconv.Atoi(m.Tags[tagOf]) // until its trees are counted
	b.Stored, _ = strconv.ParseInt(m.Tags[tagStored], 10, 64)
	if m.Tags[tagJob] == "" {
		b.Provider, b.Level, b.Status = "kopia", "live", "complete"
	}
	return b
}

func newTree(m *snapshot.Manifest) (Tree, error) {
	if m.RootEntry == nil {
		return Tree{}, fmt.Errorf("record %s has no root", m.ID)
	}
	t := Tree{
		Path:       m.Source.Path,
		Instant:    parseStamp(m.Tags[tagInstant], m.StartTime.ToTime()),
		Incomplete: m.IncompleteReason != "",
	}
	if m.Tags[tagJob] != "" {
		t.Path = tree.OriginalName(t.Path)
	}
	var err error
	if s := m.Tags[tagRoot]; s != "" {
		t.Root, err = decodeRoot(s)
	} else {
		j := record{Name: m.RootEntry.Name, Type: string(m.RootEntry.Type), Size: m.RootEntry.FileSize,
			ModTime: m.RootEntry.ModTime.ToTime(), UID: m.RootEntry.UserID, GID: m.RootEntry.GroupID}
		t.Root, err = j.toRecord()
		t.Root.Mode = modeFromKopia(fs.FileMode(m.RootEntry.Permissions))
	}
	t.Root.Object, t.Root.Summary = m.RootEntry.ObjectID.String(), m.RootEntry.DirSummary
	return t, err
}

func parseStamp(s string, otherwise time.Time) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return otherwise
	}
	return t
}
