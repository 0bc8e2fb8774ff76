package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A Row is one value of the file that belongs to no job.
type Row struct {
	Key   string
	Value Value
}

// Rows are all keys of the sections that belong to no job, with what holds for
// them: secrets are not among them, only the files that they are in.
func (c *Config) Rows() (all []Row) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name != "" && name != "-" && name != "jobs" && name != "defaults" {
			all = append(all, c.rows(v.Field(i), v.Type().Field(i).Tag.Get("default"), name)...)
		}
	}
	slices.SortStableFunc(all, func(a, b Row) int { return strings.Compare(a.Key, b.Key) })
	return all
}

func (c *Config) rows(v reflect.Value, otherwise, key string) (all []Row) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() && v.Type().Elem().Kind() == reflect.Struct {
			return nil // a way of several that is not chosen
		}
		if v.IsNil() {
			return []Row{{key, Value{Texts: []string{otherwise}, From: FromDefault}}}
		}
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if option == "inline" {
				all = append(all, c.rows(v.Field(i), "", key)...)
			} else if name != "-" {
				rows := c.rows(v.Field(i), f.Tag.Get("default"), join(key, name))
				if f.Tag.Get("secret") != "" && rows[0].Value.From == FromFile {
					rows[0].Value.Texts = []string{"(not shown)"}
				}
				all = append(all, rows...)
			}
		}
		return all
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		for i := range v.Len() {
			all = append(all, c.rows(v.Index(i), "", fmt.Sprintf("%s[%d]", key, i))...)
		}
		return all
	}
	line, there := c.lines[key]
	row := Row{key, Value{Texts: texts(v), From: FromFile, Line: line, Where: fmt.Sprintf("%s:%d", c.File, line)}}
	if !there {
		row.Value = Value{From: FromDefault}
		if otherwise != "" {
			row.Value.Texts = []string{otherwise}
		}
	}
	return []Row{row}
}

func texts(v reflect.Value) (all []string) {
	switch x := v.Interface().(type) {
	case []string:
		return x
	case Duration:
		return []string{time.Duration(x).String()}
	}
	return []string{fmt.Sprint(v.Interface())}
}
