package backup

import "context"

// Foresee makes the plan of a backup into the repository at a folder, and changes
// nothing: its error is the one that would end the backup before anything is taken.
func (e *Engine) Foresee(ctx context.Context, folder string, o Options) error {
	t, err := volumes(ctx)
	if err != nil {
		return err
	}
	rules, err := newRules(o.Exclude, placeOf(folder, t))
	if err != nil {
		return err
	}
	_, err = makePlan(ctx, t, e.Providers, o, rules)
	return err
}
