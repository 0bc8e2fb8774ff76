// Package doctor looks at a host for what would keep a backup from succeeding,
// or make it worse than it could be, before one is tried. Each check is a small
// unit that is given what it looks at, so that it can be shown a recorded host;
// it changes nothing, has a deadline, and says what it found, what that means
// for a backup and what to do. What can be mended without any danger brings its
// own mending, which is done on demand only. Some of the checks are cheap and
// about one plan: they are the preflight of a backup. The package knows neither
// how backups are made nor terminals.
package doctor
