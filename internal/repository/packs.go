package repository

import (
	"os"
	"slices"
	"sync"
)

// packsOpen is how many packs that nobody reads just now stay open.
const packsOpen = 8

// openPacks keeps packs open that were read, because contents that are read
// one after the other lie one after the other. What a pack holds never changes
// and its name never comes again, so an open one is as good as the name.
type openPacks struct {
	mu   sync.Mutex
	open []*openPack // the last used last
}

type openPack struct {
	path  string
	f     *os.File
	users int
}

func (p *openPacks) take(path string) (*openPack, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.open, func(o *openPack) bool { return o.path == path })
	if i < 0 {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		p.open = append(p.open, &openPack{path: path, f: f})
		i = len(p.open) - 1
	}
	o := p.open[i]
	p.open = append(slices.Delete(p.open, i, i+1), o)
	o.users++
	return o, nil
}

func (p *openPacks) give(o *openPack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.users--
	p.keep(packsOpen)
}

// keep closes packs that nobody reads, the longest unused first, until there
// are no more than n open. mu is held.
func (p *openPacks) keep(n int) {
	surplus := len(p.open) - n
	p.open = slices.DeleteFunc(p.open, func(o *openPack) bool {
		if surplus <= 0 || o.users > 0 {
			return false
		}
		surplus--
		o.f.Close() // it was only read
		return true
	})
}

func (p *openPacks) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(0)
}
