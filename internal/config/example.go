package config

import _ "embed" // for the example

// Example is a file that has every key, with what it means.
//
//go:embed example.yaml
var Example string
