package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration file.
type Problem struct {
	// Path is the field, as in rules[0].kek; empty for the file as a whole.
	Path string
	// Line is the line of the field, or of the section where it is missing,
	// counted from 1; 0 when there is none.
	Line int
	// Text says what is wrong and what to do.
	Text string
}

// String returns the problem on one line.
func (p Problem) String() string {
	switch {
	case p.Path == "" && p.Line == 0:
		return p.Text
	case p.Path == "":
		return fmt.Sprintf("line %d: %s", p.Line, p.Text)
	case p.Line == 0:
		return fmt.Sprintf("%s: %s", p.Path, p.Text)
	}
	return fmt.Sprintf("%s (line %d): %s", p.Path, p.Line, p.Text)
}

// Error holds everything that is wrong with one file, in the file's order.
type Error struct {
	// File is the file's name as it was given; empty if there was none.
	File string
	// Problems has at least one element.
	Problems []Problem
}

// Error returns the problems, one indented line for each after a first line
// that counts them.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s: ", e.File)
	}
	if n := len(e.Problems); n == 1 {
		b.WriteString("1 problem")
	} else {
		fmt.Fprintf(&b, "%d problems", n)
	}
	for _, p := range e.Problems {
		b.WriteString("\n  ")
		b.WriteString(p.String())
	}
	return b.String()
}

// report collects problems and knows on which line each field stands.
type report struct {
	problems []Problem
	lines    map[string]int
	unread   map[string]bool // fields that are there and could not be read
}

// add notes a problem of the field at path.
func (r *report) add(path, format string, args ...any) {
	r.problems = append(r.problems, Problem{Path: path, Line: r.line(path), Text: fmt.Sprintf(format, args...)})
}

// kind notes that the field at path has a value of the wrong kind.
func (r *report) kind(path, format string, args ...any) {
	r.unread[path] = true
	r.add(path, format, args...)
}

// missing notes that the field at path is not given, unless it or a section
// around it is there and has been reported as unreadable.
func (r *report) missing(path, format string, args ...any) {
	if !r.isUnread(path) {
		r.add(path, "missing: "+format, args...)
	}
}

// isUnread says whether the field at path, or a section around it, could not be
// read.
func (r *report) isUnread(path string) bool {
	for ; path != ""; path = parent(path) {
		if r.unread[path] {
			return true
		}
	}
	return false
}

// at notes a problem that stands on a line of its own.
func (r *report) at(line int, path, format string, args ...any) {
	r.problems = append(r.problems, Problem{Path: path, Line: line, Text: fmt.Sprintf(format, args...)})
}

// line returns the line of the field at path, or of the nearest section around
// it that is in the file.
func (r *report) line(path string) int {
	for path != "" {
		if n, ok := r.lines[path]; ok {
			return n
		}
		path = parent(path)
	}
	return 0
}

// parent returns the path of the section or list around a field.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// err returns the problems as an *Error in the order of the file, those of the
// file as a whole first, or nil if there are none.
func (r *report) err(file string) error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &Error{File: file, Problems: r.problems}
}
