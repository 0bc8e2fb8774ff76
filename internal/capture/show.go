package capture

import (
	"cmp"
	"errors"
	"os"

	"stillpoint/internal/sys/mount"
)

// Show puts the pieces of the snapshots where they belong, in place of what is
// mounted there, and on them again what is mounted below the paths and not
// covered, for the programs that live in a namespace.
func (s *Set) Show(private *mount.Private) error {
	pieces := map[string]Piece{}
	for _, p := range s.Pieces() {
		pieces[p.Path] = p
	}
	ms := make([]*os.File, len(s.Places))
	defer func() {
		for _, m := range ms {
			if m != nil {
				m.Close()
			}
		}
	}()
	var err error
	for i, pl := range s.Places {
		if p, ok := pieces[pl.Path]; ok {
			if ms[i], err = clone(p); err != nil {
				err = cmp.Or(s.Err(), err) // nothing is there where a snapshot could not be shown
			}
		} else {
			ms[i], err = private.Clone(pl.Path)
		}
		if err != nil {
			return err
		}
	}
	for _, path := range s.Paths {
		if path == "/" {
			continue // Attach leaves nothing
		}
		if err := private.Clear(path); err != nil {
			return err
		}
	}
	for i, pl := range s.Places {
		if err := private.Attach(ms[i], pl.Path); err != nil {
			return err
		}
	}
	return nil
}

// clone makes a mount of a piece. Of a snapshot nothing is to be executed, but these
// programs are to find all that they find on the live volume: they lie on it themselves,
// with their libraries, where that is "/".
func clone(p Piece) (*os.File, error) {
	m, err := mount.Clone(p.Root, p.Rel)
	if err != nil {
		return nil, err
	}
	able, err := mount.Executable(p.Path)
	if err == nil && able {
		err = mount.MakeExecutable(m)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		err = nil // before Linux 5.12 there is no such call: who executes something there is told that it is not permitted
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}
