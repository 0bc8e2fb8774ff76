package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// A reader goes through a file by the types that it is read into, and finds all
// mistakes; the decoder would stop at the first.
type reader struct {
	anchors  map[string]ast.Node
	places   map[string]ast.Node // of all keys that are there
	merging  []ast.Node          // whose entries are being merged, the outermost first
	job      string              // which is being read; empty outside of them
	mistakes []error
}

func (r *reader) wrong(n ast.Node, key, format string, args ...any) {
	m := &Mistake{Job: r.job, Key: key, Text: fmt.Sprintf(format, args...)}
	if n != nil && n.GetToken() != nil {
		m.Line, m.Column = n.GetToken().Position.Line, n.GetToken().Position.Column
	}
	r.mistakes = append(r.mistakes, m)
}

// of does something for a job, whose mistakes are its own.
func (r *reader) of(job string, do func()) {
	r.job = job
	defer func() { r.job = "" }()
	do()
}

// lines are those of all places.
func (r *reader) lines() map[string]int {
	all := map[string]int{}
	for key, n := range r.places {
		if n != nil && n.GetToken() != nil {
			all[key] = n.GetToken().Position.Line
		}
	}
	return all
}

// A nodeReader is a type that reads itself.
type nodeReader interface {
	read(r *reader, n ast.Node, key string)
}

// value reads a node into v.
func (r *reader) value(n ast.Node, v reflect.Value, key string) {
	n = r.real(n)
	if n == nil || n.Type() == ast.NullType {
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch own := v.Addr().Interface().(type) {
	case nodeReader:
		own.read(r, n, key)
		return
	case yaml.NodeUnmarshaler:
		if err := own.UnmarshalYAML(n); err != nil {
			r.wrong(n, key, "%s", bare(err))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		r.fields(n, v, key)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, e := range r.entries(n, key) {
			inner := reflect.New(v.Type().Elem()).Elem()
			r.of(nameOf(e), func() { r.value(e.Value, inner, join(key, nameOf(e))) })
			v.SetMapIndex(reflect.ValueOf(nameOf(e)), inner)
		}
	case reflect.Slice:
		r.list(n, v, key)
	default:
		if err := yaml.NodeToValue(n, v.Addr().Interface()); err != nil {
			r.wrong(n, key, "%sis no %s", shown(n, key), kinds[v.Kind()])
		}
	}
}

var kinds = map[reflect.Kind]string{reflect.Bool: "true or false", reflect.Int: "number", reflect.String: "text"}

func (r *reader) list(n ast.Node, v reflect.Value, key string) {
	all, ok := n.(*ast.SequenceNode)
	if !ok {
		r.wrong(n, key, "%sis no list: write [A, B]", shown(n, key))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(all.Values), len(all.Values)))
	for i, e := range all.Values {
		r.value(e, v.Index(i), fmt.Sprintf("%s[%d]", key, i))
	}
}

// fields reads a mapping whose keys are the fields of a structure.
func (r *reader) fields(n ast.Node, v reflect.Value, key string) {
	known := map[string]reflect.Value{}
	fieldsOf(v, known)
	for _, e := range r.entries(n, key) {
		f, ok := known[nameOf(e)]
		if !ok {
			r.unknown(e, key, known)
			continue
		}
		r.value(e.Value, f, join(key, nameOf(e)))
	}
}

// unknown complains of a key that nobody knows, with all that are known.
func (r *reader) unknown(e *ast.MappingValueNode, key string, known map[string]reflect.Value) {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	r.wrong(e.Key, join(key, nameOf(e)), "is unknown; there are %s", strings.Join(names, ", "))
}

func fieldsOf(v reflect.Value, known map[string]reflect.Value) {
	for i := range v.NumField() {
		name, option, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if option == "inline" {
			fieldsOf(v.Field(i), known)
		} else if name != "" && name != "-" {
			known[name] = v.Field(i)
		}
	}
}

// entries are those of a mapping, with what is merged into it.
func (r *reader) entries(n ast.Node, key string) (all []*ast.MappingValueNode) {
	var values []*ast.MappingValueNode
	switch m := r.real(n).(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	case *ast.NullNode:
	default:
		r.wrong(n, key, "%sis no mapping: write KEY: VALUE", shown(n, key))
	}
	seen := map[string]bool{}
	for _, e := range values {
		if e.Key.Type() != ast.MergeKeyType {
			seen[nameOf(e)] = true
			r.places[join(key, nameOf(e))] = e.Value
			all = append(all, e)
		}
	}
	own := r.real(n)
	for _, e := range values {
		if e.Key.Type() != ast.MergeKeyType {
			continue
		}
		if slices.Contains(r.merging, own) {
			r.wrong(e.Key, key, "a mapping is merged into itself")
			break
		}
		r.merging = append(r.merging, own)
		for _, in := range r.entries(e.Value, key) {
			if !seen[nameOf(in)] {
				all = append(all, in)
			}
		}
		r.merging = r.merging[:len(r.merging)-1]
	}
	return all
}

// real is what an alias or an anchor stands for.
func (r *reader) real(n ast.Node) ast.Node {
	for range 100 { // an alias may be its own
		switch of := n.(type) {
		case *ast.AnchorNode:
			n = of.Value
		case *ast.TagNode:
			n = of.Value
		case *ast.AliasNode:
			n = r.anchors[of.Value.GetToken().Value]
		default:
			return n
		}
	}
	return nil
}

// Visit notes the anchors.
func (r *reader) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok {
		r.anchors[a.Name.GetToken().Value] = a.Value
	}
	return r
}

func nameOf(e *ast.MappingValueNode) string { return e.Key.GetToken().Value }

func textOf(n ast.Node) string {
	if l, ok := n.(*ast.LiteralNode); ok {
		return strings.TrimRight(l.Value.GetToken().Value, "\n")
	}
	if s, ok := n.(ast.ScalarNode); ok {
		return s.GetToken().Value
	}
	return strings.TrimSpace(n.String())
}

// shown is a text that stands where something else must, to be followed by what is
// wrong with it. Whoever is told how jobs end may be told by what is secret, a
// command or a URL: that is not shown.
func shown(n ast.Node, key string) string {
	if strings.HasPrefix(key, "notify") {
		return ""
	}
	return fmt.Sprintf("%q ", textOf(n))
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
