package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// errSyntax is for texts of a type whose advice says all that can be said without
// quoting them.
var errSyntax = errors.New("config: syntax")

// An HL7Path names a part of a message: a field of the first segment of a kind,
// or a component or subcomponent of its first repetition. The zero value names
// nothing.
type HL7Path struct {
	Segment                        string // such as PID
	Field, Component, Subcomponent int    // from 1; 0: the whole
}

var hl7Path = regexp.MustCompile(`^([A-Z][A-Z0-9]{2})-([1-9][0-9]{0,2})(?:\.([1-9][0-9]{0,2})(?:\.([1-9][0-9]{0,2}))?)?$`)

// UnmarshalText reads PID-3, PID-3.1 or PID-3.4.2.
func (p *HL7Path) UnmarshalText(text []byte) error {
	m := hl7Path.FindSubmatch(text)
	if m == nil {
		return errSyntax
	}
	number := func(digits []byte) int {
		n, _ := strconv.Atoi(string(digits)) // at most three, by the expression
		return n
	}
	*p = HL7Path{Segment: string(m[1]), Field: number(m[2]), Component: number(m[3]), Subcomponent: number(m[4])}
	return nil
}

// String returns the path as it is written, and nothing for the zero value.
func (p HL7Path) String() string {
	if p.Segment == "" {
		return ""
	}
	text := fmt.Sprintf("%s-%d", p.Segment, p.Field)
	if p.Component > 0 {
		text = fmt.Sprintf("%s.%d", text, p.Component)
	}
	if p.Subcomponent > 0 {
		text = fmt.Sprintf("%s.%d", text, p.Subcomponent)
	}
	return text
}
