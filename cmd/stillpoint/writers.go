package main

import (
	"cmp"
	"errors"
	"time"

	"stillpoint/internal/config"
	"stillpoint/internal/quiesce"
	"stillpoint/internal/writer"
	"stillpoint/internal/writer/mariadb"
	"stillpoint/internal/writer/postgres"
	"stillpoint/internal/writer/redis"
	"stillpoint/internal/writer/script"
	"stillpoint/internal/writer/sqlite"
)

// configuration reads the file that STILLPOINT_CONFIG names, or the usual one if
// there is one.
func configuration(e *env) (*config.Config, error) {
	named := e.getenv("STILLPOINT_CONFIG")
	return config.Read(cmp.Or(named, config.Path), named != "")
}

// applications are the writers and what is done with them, as the configuration
// says.
func applications(e *env) (quiesce.Settings, error) {
	c, err := configuration(e)
	if err != nil {
		return quiesce.Settings{}, err
	}
	w := c.Writers
	s := quiesce.Settings{Retries: quiesce.Retries, Wait: quiesce.Wait, Window: time.Duration(w.Window), Policies: map[string]quiesce.Policy{}}
	if w.Retries != nil {
		s.Retries = *w.Retries
	}
	if w.RetryWait != 0 {
		s.Wait = time.Duration(w.RetryWait)
	}
	var errs []error
	add := func(of config.Common, made writer.Writer) {
		if !of.Off {
			s.Writers = append(s.Writers, made)
			s.Policies[made.Name()] = quiesce.Policy(of.Policy)
		}
	}
	secret := func(l config.Login) string {
		p, err := l.Password()
		errs = append(errs, err)
		return p
	}
	logins := []redis.Login{{Username: w.Redis.User, Password: secret(w.Redis.Login)}}
	for _, server := range w.Redis.Servers {
		logins = append(logins, redis.Login{Address: server.Address, Username: server.User, Password: secret(server.Login)})
	}
	add(w.PostgreSQL.Common, postgres.New(postgres.Options{Directories: w.PostgreSQL.Sockets, User: w.PostgreSQL.User, Password: secret(w.PostgreSQL.Login)}))
	add(w.MariaDB.Common, mariadb.New(mariadb.Options{Sockets: w.MariaDB.Sockets, User: w.MariaDB.User, Password: secret(w.MariaDB.Login), LockWait: time.Duration(w.MariaDB.LockWait)}))
	add(w.Redis.Common, redis.New(redis.Options{Logins: logins}))
	add(w.SQLite, sqlite.New(sqlite.Options{}))
	add(w.Script.Common, script.New(script.Options{Dir: w.Script.Dir, Limit: time.Duration(w.Script.Limit), Paths: w.Script.Paths}))
	return s, errors.Join(errs...)
}
