package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// read is what a job, or the defaults of all, are read by: the table of keys says
// what may stand there.
func (s *Settings) read(r *reader, n ast.Node, key string) {
	*s = Settings{}
	s.level(r, n, key, "")
}

// level reads the keys that begin with a prefix.
func (s *Settings) level(r *reader, n ast.Node, key, prefix string) {
	for _, e := range r.entries(n, key) {
		name, at := prefix+nameOf(e), join(key, nameOf(e))
		k, known := KeyOf(name)
		switch inner := r.real(e.Value); {
		case known && (inner == nil || inner.Type() == ast.NullType):
			r.wrong(e.Key, at, "has no value")
		case known:
			s.set(r, k, inner, at)
		case slices.ContainsFunc(Keys(), func(k Key) bool { return strings.HasPrefix(k.Name, name+".") }):
			s.level(r, e.Value, at, name+".")
		default:
			r.unknown(e, key, names(prefix))
		}
	}
}

// names are the keys that may follow a prefix.
func names(prefix string) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	for _, k := range Keys() {
		if rest, ok := strings.CutPrefix(k.Name, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			all[name] = reflect.Value{}
		}
	}
	return all
}

// set reads the value of a key.
func (s *Settings) set(r *reader, k Key, n ast.Node, at string) {
	position := n.GetToken().Position
	v := Value{From: FromFile, Line: position.Line, Column: position.Column}
	take := func(n ast.Node) {
		n = r.real(n)
		if _, scalar := n.(ast.ScalarNode); !scalar {
			r.wrong(n, at, "is no single value")
			return
		}
		text := textOf(n)
		if err := k.Check(text); err != nil {
			r.wrong(n, at, "%v", err)
		} else if k.Path && !filepath.IsAbs(text) {
			r.wrong(n, at, "%s", relative(at, text))
		}
		v.Texts = append(v.Texts, text)
	}
	all, several := n.(*ast.SequenceNode)
	switch {
	case !several:
		take(n)
	case k.Type != List:
		r.wrong(n, at, "is a list, and must be one value")
	default:
		for _, e := range all.Values {
			take(e)
		}
	}
	(*s)[k.Name] = v
}
