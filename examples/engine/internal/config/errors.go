package config

import (
	"fmt"
	"strings"
)

// A LineError is one mistake in a configuration. It never holds a value, only keys.
type LineError struct {
	File string
	Line int    // 1 is the first; 0: the file as a whole
	Key  string // such as channels[0].source.port; empty: the file as a whole
	Text string // what is wrong and what to do
}

// Error returns "file:line: key: text" in one line.
func (p LineError) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Text)
	// One mistake is one line, whatever an error from below contains.
	return strings.Join(strings.Fields(b.String()), " ")
}

// LineErrors are the error of Load: all mistakes, in the order of their lines.
type LineErrors []LineError

// Error returns the mistakes, one a line.
func (ps LineErrors) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}
