package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// section is one YAML mapping while it is read. An accessor takes a field by
// name, stores its value if the field is there, and reports a value of the
// wrong kind; close then reports the fields that nobody took.
type section struct {
	report *report
	path   string
	names  []string // in the order of the file
	fields map[string]ast.Node
	known  []string
}

// parseDocument returns the mapping at the top of the file, or nil after a
// report of why there is none.
func parseDocument(data []byte, r *report) *section {
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, text := 0, err.Error()
		if syntax := (*yaml.SyntaxError)(nil); errors.As(err, &syntax) {
			line, text = syntax.Token.Position.Line, syntax.Message
		}
		r.at(line, "", "not YAML: %s%s", text, urlHint(data, line))
		return nil
	}
	switch {
	case len(file.Docs) == 0 || file.Docs[0].Body == nil:
		r.at(0, "", "empty: write at least listen, etcd, keks and keyring")
		return nil
	case len(file.Docs) > 1:
		r.at(0, "", "%d YAML documents: keep one", len(file.Docs))
		return nil
	}
	return newSection(file.Docs[0].Body, "", r)
}

// urlHint is a hint for a line that is no YAML to go-yaml, which does not take every
// URL without quotes between brackets or braces.
func urlHint(data []byte, line int) string {
	lines := bytes.Split(data, []byte("\n"))
	if line < 1 || line > len(lines) || !bytes.Contains(lines[line-1], []byte("://")) {
		return ""
	}
	return "; if it is about a URL, put that in quotes"
}

// newSection reads the mapping at node, or returns nil after a report.
func newSection(node ast.Node, path string, r *report) *section {
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		r.kind(path, "want a section of fields, got %s", kind(node))
		return nil
	}
	s := &section{report: r, path: path, fields: map[string]ast.Node{}}
	for _, entry := range mapping.Values {
		key, ok := entry.Key.(*ast.StringNode)
		if !ok {
			r.at(line(entry.Key), path, "want a plain name for each field, got %s", kind(entry.Key))
			continue
		}
		name := key.Value
		if _, twice := s.fields[name]; twice {
			r.at(line(key), s.join(name), "given twice: keep one (the other is on line %d)", r.lines[s.join(name)])
			continue
		}
		r.lines[s.join(name)] = line(key)
		s.names = append(s.names, name)
		s.fields[name] = entry.Value
	}
	return s
}

// join returns the path of a field of the section. A name that could not be one
// is quoted, so that it cannot pass for another path or break the line.
func (s *section) join(name string) string {
	if !nameForm.MatchString(name) {
		name = strconv.Quote(name)
	}
	if s.path == "" {
		return name
	}
	return s.path + "." + name
}

// take returns the value of a field, and false if it is not given or null.
func (s *section) take(name string) (ast.Node, bool) {
	s.known = append(s.known, name)
	node, ok := s.fields[name]
	if !ok || isNull(node) {
		return nil, false
	}
	return node, true
}

// given says whether a field is there and not null.
func (s *section) given(name string) bool { return !isNull(s.fields[name]) }

// isNull says whether a field is written without a value.
func isNull(node ast.Node) bool { return node == nil || node.Type() == ast.NullType }

// close reports the fields of the section that no accessor took.
func (s *section) close() {
	for _, name := range s.names {
		if !slices.Contains(s.known, name) {
			s.report.add(s.join(name), "unknown field; known here: %s", strings.Join(s.known, ", "))
		}
	}
}

// sub reads a nested section if it is there.
func (s *section) sub(name string, read func(*section)) {
	node, ok := s.take(name)
	if !ok {
		return
	}
	if nested := newSection(node, s.join(name), s.report); nested != nil {
		read(nested)
		nested.close()
	}
}

// list returns the elements of a list; given is false if the field is absent
// or not a list.
func (s *section) list(name string) (elements []ast.Node, given bool) {
	node, ok := s.take(name)
	if !ok {
		return nil, false
	}
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		s.report.kind(s.join(name), "want a list, got %s", kind(node))
		return nil, false
	}
	for i, element := range sequence.Values {
		s.report.lines[index(s.join(name), i)] = line(element)
	}
	return sequence.Values, true
}

// text stores a string.
func (s *section) text(name string, to *string) {
	if node, ok := s.take(name); ok {
		readText(node, s.join(name), s.report, to)
	}
}

// texts stores a list of strings.
func (s *section) texts(name string, to *[]string) {
	elements, _ := s.list(name)
	for i, element := range elements {
		var value string
		if readText(element, index(s.join(name), i), s.report, &value) {
			*to = append(*to, value)
		} else {
			s.report.unread[s.join(name)] = true
		}
	}
}

// flag stores true or false.
func (s *section) flag(name string, to *bool) {
	node, ok := s.take(name)
	if !ok {
		return
	}
	value, ok := node.(*ast.BoolNode)
	if !ok {
		s.report.kind(s.join(name), "want true or false, got %s", kind(node))
		return
	}
	*to = value.Value
}

// number stores an integer between least and most.
func (s *section) number(name string, to *int, least, most uint64) {
	node, ok := s.take(name)
	if !ok {
		return
	}
	// go-yaml gives unsigned integers unless there is a minus sign.
	integer, _ := node.(*ast.IntegerNode)
	if integer != nil {
		if value, ok := integer.Value.(uint64); ok && value >= least && value <= most {
			*to = int(value)
			return
		}
	}
	s.report.kind(s.join(name), "want a whole number from %d to %d, got %s", least, most, kind(node))
}

// duration stores a duration between least and most, written as in 1m30s.
func (s *section) duration(name string, to *time.Duration, least, most time.Duration) {
	node, ok := s.take(name)
	if !ok {
		return
	}
	if value, ok := node.(*ast.StringNode); ok {
		if d, err := time.ParseDuration(value.Value); err == nil && d >= least && d <= most {
			*to = d
			return
		}
	}
	s.report.kind(s.join(name), "want a duration from %v to %v with its unit, as in 5s or 1m30s, got %s", least, most, kind(node))
}

// choice stores one of a closed set of words.
func choice[T ~string](s *section, name string, to *T, allowed ...T) {
	node, ok := s.take(name)
	if !ok {
		return
	}
	if value, ok := node.(*ast.StringNode); ok && slices.Contains(allowed, T(value.Value)) {
		*to = T(value.Value)
		return
	}
	words := make([]string, len(allowed))
	for i, word := range allowed {
		words[i] = string(word)
	}
	s.report.kind(s.join(name), "want %s, got %s", strings.Join(words, " or "), kind(node))
}

// readText stores a string, or reports what is there instead.
func readText(node ast.Node, path string, r *report, to *string) bool {
	value, ok := node.(*ast.StringNode)
	if !ok {
		hint := ""
		switch node.Type() {
		case ast.IntegerType, ast.FloatType, ast.BoolType:
			hint = ": put it in quotes"
		case ast.MappingType: // as go-yaml takes host:port in brackets inside of braces
			hint = ": if it is one text with a colon in it, as a URL is, put it in quotes"
		}
		r.kind(path, "want text, got %s%s", kind(node), hint)
		return false
	}
	*to = value.Value
	return true
}

// index returns the path of an element of a list.
func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// line returns the line on which a node stands.
func line(node ast.Node) int {
	if node == nil || node.GetToken() == nil {
		return 0
	}
	return node.GetToken().Position.Line
}

// longestQuote is the longest text, in bytes, that an error repeats.
const longestQuote = 100

// kind describes a node in an error: short scalars by their text, the rest by
// what it is.
func kind(node ast.Node) string {
	switch n := node.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.StringNode:
		if len(n.Value) > longestQuote {
			return fmt.Sprintf("a text of %d bytes", len(n.Value))
		}
		return fmt.Sprintf("%q", n.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value
	case *ast.MappingNode:
		return "a section of fields"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return "an anchor or alias, which is not read here: write the value out"
	case *ast.TagNode:
		return "a tag, which is not read here: leave it out"
	case *ast.LiteralNode:
		return "a block of text: write it on one line"
	}
	return "something else (" + node.Type().String() + ")"
}
