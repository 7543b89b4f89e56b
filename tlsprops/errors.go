package tlsprops

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
)

var (
	// ErrDisabled is returned by Load for properties with enabled false, so that
	// nobody takes a nil configuration for a secure one.
	ErrDisabled = errors.New("tlsprops: enabled is false: set it to true, or do not ask for TLS")
	// ErrKeyMismatch is returned when no certificate belongs to the private key.
	ErrKeyMismatch = errors.New("the private key and the certificate do not belong together")
)

// FieldError says which setting, and which file, cannot be honoured, why, and
// what to do. Its text is one line and holds no content of any file.
type FieldError struct {
	Field string // as in JSON and YAML: "trustStorePath"
	Path  string // the file or the offending word; empty if there is none
	Err   error
}

// Error returns "tlsprops: field path: reason".
func (e *FieldError) Error() string {
	var b strings.Builder
	b.WriteString("tlsprops: ")
	b.WriteString(e.Field)
	if e.Path != "" {
		b.WriteByte(' ')
		b.WriteString(oneLine(e.Path))
	}
	b.WriteString(": ")
	b.WriteString(e.Err.Error())
	return b.String()
}

// oneLine returns a path as it is, or quoted if it would break the line.
func oneLine(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(path)
	}
	return path
}

// Unwrap returns the reason.
func (e *FieldError) Unwrap() error { return e.Err }
