package mariadb

import (
	"strconv"
	"strings"

	"stillpoint/internal/problem"
)

// A way is what brings a kind of server to rest, step by step.
type way struct {
	prepare, freeze, thaw []string

	// flushes says that a query that runs for long is in the way, and others
	// then wait for it even when our statement is ended.
	flushes bool

	// rights are what the user must have one of each of.
	rights []string
}

var (
	// BACKUP STAGE, since MariaDB 10.4.1. From FLUSH on, changes of tables
	// without transactions wait.
	stages = way{
		prepare: []string{"BACKUP STAGE START"},
		freeze:  []string{"BACKUP STAGE FLUSH", "BACKUP STAGE BLOCK_DDL", "BACKUP STAGE BLOCK_COMMIT"},
		thaw:    []string{"BACKUP STAGE END"},
		rights:  []string{"RELOAD"},
	}
	// LOCK INSTANCE FOR BACKUP, since MySQL 8.0, keeps tables from being made,
	// changed and dropped; the read lock keeps rows.
	locks = way{
		prepare: []string{"LOCK INSTANCE FOR BACKUP"},
		freeze:  []string{"FLUSH TABLES WITH READ LOCK"},
		thaw:    []string{"UNLOCK TABLES", "UNLOCK INSTANCE"},
		flushes: true,
		rights:  []string{"RELOAD", "BACKUP_ADMIN", "PROCESS"},
	}
)

// wayOf chooses by a version such as 10.11.6-MariaDB-1 or 8.0.36.
func wayOf(version string) (way, error) {
	numbers := strings.SplitN(version, ".", 3)
	major, _ := strconv.Atoi(numbers[0])
	minor := 0
	if len(numbers) > 1 {
		minor, _ = strconv.Atoi(numbers[1])
	}
	if strings.Contains(version, "MariaDB") {
		if major > 10 || major == 10 && minor >= 4 {
			return stages, nil
		}
	} else if major >= 8 {
		return locks, nil
	}
	return way{}, problem.Newf(problem.WriterFailed, "", "version %s is not supported: MariaDB 10.4 and MySQL 8.0 and later are", version)
}

// lacks is a right that none of the lines of SHOW GRANTS gives for all tables,
// or "".
func (w way) lacks(grants []string) string {
	has := map[string]bool{}
	for _, g := range grants {
		g = strings.TrimPrefix(g, "GRANT ")
		rights, _, ok := strings.Cut(g, " ON *.*")
		if !ok {
			continue
		}
		for _, r := range strings.Split(rights, ",") {
			has[strings.TrimSpace(r)] = true
		}
	}
	if has["ALL PRIVILEGES"] {
		return ""
	}
	for _, r := range w.rights {
		if !has[r] {
			return r
		}
	}
	return ""
}
