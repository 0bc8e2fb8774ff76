package agent

import (
	"net/url"

	"stillpoint/internal/problem"
	"stillpoint/internal/snapshot"
)

// query asks for a session.
func query(provider string, cache snapshot.CacheChoice) string {
	return url.Values{"provider": {provider}, "cache-dir": {cache.Dir}, "cache-max": {cache.Maximum}}.Encode()
}

func choiceOf(q url.Values) snapshot.CacheChoice {
	return snapshot.CacheChoice{Dir: q.Get("cache-dir"), Maximum: q.Get("cache-max")}
}

// chosen is a provider with a client's choice.
func chosen(p snapshot.Provider, cache snapshot.CacheChoice) (snapshot.Provider, error) {
	if cache == (snapshot.CacheChoice{}) {
		return p, nil
	}
	c, ok := p.(snapshot.CacheChooser)
	if !ok {
		return nil, problem.Newf(problem.Usage, "", "%s has no cache files, for which a place or a size could be chosen", p.Name())
	}
	return c.WithCache(cache)
}

// withCache are providers of which those that have cache files have the choice.
func withCache(ps []snapshot.Provider, cache snapshot.CacheChoice) ([]snapshot.Provider, error) {
	var all []snapshot.Provider
	for _, p := range ps {
		if _, ok := p.(snapshot.CacheChooser); ok {
			var err error
			if p, err = chosen(p, cache); err != nil {
				return nil, err
			}
		}
		all = append(all, p)
	}
	return all, nil
}
