package servertest

import (
	"os"
	"sync"
	"syscall"
)

// A template is the data of a server that was never started. It is made when it
// is needed first, and then copied, which takes a tenth of the time.
type template struct {
	prefix, user string
	make         func(as *syscall.Credential, data string) error

	once sync.Once
	dir  string
	err  error
}

var templates = []*template{postgreSQL, mariaDB}

// data is where it is.
func (m *template) data() (string, error) {
	m.once.Do(func() {
		as, err := credential(m.user)
		if err == nil {
			m.dir, err = ownedDir(m.prefix, as)
		}
		if err == nil {
			err = m.make(as, m.dir+"/data")
		}
		m.err = err
	})
	return m.dir + "/data", m.err
}

// Tests are all of a package, as a testing.M is.
type Tests interface{ Run() int }

// Tidy removes after all tests what they have shared. TestMain has to call it.
func Tidy(m Tests) Tests { return tidy{m} }

type tidy struct{ Tests }

func (t tidy) Run() int {
	code := t.Tests.Run()
	for _, m := range templates {
		if m.dir != "" {
			_ = os.RemoveAll(m.dir)
		}
	}
	return code
}

// create copies a template to where the server's data shall be.
func (s *server) create(of *template) {
	s.Helper()
	data, err := of.data()
	must(s, err)
	run(s, command(s.as, "/bin/cp", "-a", data, s.Data))
}
