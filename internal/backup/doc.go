// Package backup is one whole run and its reverse: plan, capture, store, ask
// every snapshot whether it stayed good, record, release; restore; verify;
// clean up what a killed run left. Policy lives here: what is demanded, what
// may be left out and by which rule, what ends a run. There is no silent
// fallback: whatever a backup is not, its report says. The package knows
// neither flags nor terminals.
package backup
