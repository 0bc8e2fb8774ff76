//go:build race

package backup

// raced: the race detector takes several times the memory and the time.
const raced = true
