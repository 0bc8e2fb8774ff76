package main

import (
	"strings"
	"testing"

	"stillpoint/internal/backup"
	"stillpoint/internal/config"
	"stillpoint/internal/problem"
)

// A folder for cache files is refused where nothing has any.
func TestCacheDirOfNothing(t *testing.T) {
	for _, one := range []struct {
		providers []string
		from      config.Origin
		refused   bool
	}{
		{[]string{"lvm"}, config.FromFlag, true},
		{[]string{"lvm", "/mnt=none"}, config.FromFlag, true},
		{[]string{"lvm", "/home=dm"}, config.FromFlag, false},
		{[]string{"/srv=lvm"}, config.FromFlag, false},
		{[]string{"dm"}, config.FromFlag, false},
		{nil, config.FromFlag, false},
		{[]string{"lvm"}, config.FromFile, false}, // which is for all jobs
		{[]string{"lvm"}, config.FromEnvironment, false},
	} {
		s := config.Settings{
			"provider":  {Texts: one.providers, From: config.FromFlag},
			"cache_dir": {Texts: []string{"/var/tmp"}, From: one.from},
		}
		err := chooseProviders(s, &backup.Options{})
		if one.refused != (problem.CodeOf(err) == problem.Usage) || one.refused && !strings.Contains(err.Error(), "--cache-dir") || !one.refused && err != nil {
			t.Errorf("%v, from %s: %v", one.providers, one.from, err)
		}
	}
}
