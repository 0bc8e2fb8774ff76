//go:build faults

package snapshottest

const withFaults = true
