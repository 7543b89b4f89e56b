package store

import (
	"encoding/json"
	"fmt"
)

// A Source is a channel's source map: what the source noted of a message beside
// its content. It is encoded when it is made, so that what is the same for all
// messages of a connection is encoded once. The zero value has no notes.
// Immutable.
type Source struct {
	text string // a JSON object of strings, or empty
}

// NewSource returns the notes as a Source; bytes of the texts that are not UTF-8
// are replaced by U+FFFD.
func NewSource(notes map[string]string) Source {
	if len(notes) == 0 {
		return Source{}
	}
	text, err := json.Marshal(notes)
	if err != nil {
		return Source{} // no map of strings is refused
	}
	return Source{string(text)}
}

// KeptSource returns the Source whose Text a store has kept.
func KeptSource(text string) Source { return Source{text} }

// Text is the form in which a store keeps a Source; empty without notes.
func (s Source) Text() string { return s.text }

// Notes returns the notes, nil if there are none. The caller may change them. The
// error means that what a store kept was damaged.
func (s Source) Notes() (map[string]string, error) {
	if s.text == "" {
		return nil, nil
	}
	var notes map[string]string
	if err := json.Unmarshal([]byte(s.text), &notes); err != nil {
		return nil, fmt.Errorf("store: source map: %w", err)
	}
	return notes, nil
}

// With returns s with one more note, which takes the place of one of the same name.
func (s Source) With(name, value string) Source {
	more := NewSource(map[string]string{name: value})
	if s.text == "" {
		return more
	}
	// Of equal names in a JSON object the last one counts.
	return Source{s.text[:len(s.text)-1] + "," + more.text[1:]}
}
