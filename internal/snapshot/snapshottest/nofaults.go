//go:build !faults

package snapshottest

const withFaults = false
