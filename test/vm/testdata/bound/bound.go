// Package bound has what TestInside takes into a machine.
package bound

// Used is called by a test.
func Used() int {
	return 1
}

// Unused is called by none.
func Unused() int {
	return 2
}
