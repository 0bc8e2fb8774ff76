package cow

import "errors"

// close closes what a shield needs. Nobody uses it any more.
func (t *target) close() error {
	var errs []error
	if t.shield != nil {
		t.shield.Close()
	}
	if t.flags != nil {
		errs = append(errs, t.flags.Close())
	}
	if t.touched != nil {
		errs = append(errs, t.touched.Close())
	}
	if t.index != nil {
		errs = append(errs, t.index.Close())
	} else if t.builder != nil {
		errs = append(errs, t.builder.Close())
	}
	if t.keeper != nil {
		errs = append(errs, t.keeper.Close())
	}
	if t.cache != nil {
		errs = append(errs, t.cache.Close())
	}
	if t.filter != nil {
		errs = append(errs, t.set.p.giveBack(t.Volume(), t.filter))
	}
	return errors.Join(errs...)
}
