//go:build race

package repository

// raced: the race detector takes several times the memory and the time.
const raced = true
