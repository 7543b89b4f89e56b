package engine

import (
	"bytes"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/mllp"
)

// orderKey returns the function that finds what path names in a message. It
// returns nil where there is nothing, for messages that must be taken in by
// themselves.
func orderKey(path config.HL7Path) func(*mllp.Request) []byte {
	return func(r *mllp.Request) []byte { return find(r.Message, &r.Header, path) }
}

// find returns a part of a message, as it stands, escape sequences and all; nil if
// it is empty or absent. Of a field that repeats it is in the first repetition.
func find(msg []byte, h *mllp.Header, path config.HL7Path) []byte {
	if h.FieldSeparator == 0 || len(h.EncodingChars) == 0 {
		return nil
	}
	prefix := append([]byte(path.Segment), h.FieldSeparator)
	for rest := msg; len(rest) > 0; {
		segment := rest
		if end := bytes.IndexAny(rest, "\r\n"); end >= 0 {
			segment, rest = rest[:end], rest[end+1:]
		} else {
			rest = nil
		}
		if !bytes.HasPrefix(segment, prefix) {
			continue
		}
		n := path.Field
		if path.Segment == "MSH" {
			n-- // MSH-1 is the separator itself
		}
		part := nth(segment, h.FieldSeparator, n)
		if len(h.EncodingChars) > 1 {
			part = nth(part, h.EncodingChars[1], 0)
		}
		if path.Component > 0 {
			part = nth(part, h.EncodingChars[0], path.Component-1)
		}
		if path.Subcomponent > 0 && len(h.EncodingChars) > 3 {
			part = nth(part, h.EncodingChars[3], path.Subcomponent-1)
		}
		if len(part) == 0 {
			return nil
		}
		return part
	}
	return nil
}

// nth returns the n-th part of text, from 0, between separators.
func nth(text []byte, separator byte, n int) []byte {
	for range n {
		_, after, found := bytes.Cut(text, []byte{separator})
		if !found {
			return nil
		}
		text = after
	}
	part, _, _ := bytes.Cut(text, []byte{separator})
	return part
}
