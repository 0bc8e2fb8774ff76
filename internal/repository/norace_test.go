//go:build !race

package repository

const raced = false
