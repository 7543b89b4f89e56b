package engine

import (
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/mllp"
)

// An unsendableError is a message of which the destination's templates make
// nothing that can be sent. However often it is tried, that remains so.
type unsendableError struct{ err error }

func (e *unsendableError) Error() string        { return "the message cannot be sent so: " + e.err.Error() }
func (e *unsendableError) Unwrap() error        { return e.err }
func (e *unsendableError) MaybeDelivered() bool { return false }
func (e *unsendableError) Retryable() bool      { return false }
func (e *unsendableError) Code() string         { return "unsendable" }

var (
	errNoText   = errors.New("what came in is not text in a known character set")
	errVariable = errors.New("unknown variable") // package config lets none through
)

// valuesOf returns what a message has for templates.
func valuesOf(m *store.Message) config.Values {
	return config.Values{
		Text: func(variable string) (string, error) {
			if variable == "raw" {
				return textOf(m)
			}
			return valueOf(m, variable)
		},
		Bytes: func(variable string) (string, error) {
			if variable == "raw" {
				return string(m.Raw), nil
			}
			return valueOf(m, variable)
		},
	}
}

func valueOf(m *store.Message, variable string) (string, error) {
	switch variable {
	case "id":
		return strconv.FormatInt(m.ID, 10), nil
	case "controlId":
		if !utf8.ValidString(m.ControlID) {
			return "", &unsendableError{errNoText}
		}
		return m.ControlID, nil
	case "channelId":
		return m.Channel, nil
	case "received":
		return m.Received.UTC().Format(time.RFC3339), nil
	}
	return "", &unsendableError{errVariable}
}

// textOf returns the message as UTF-8. HL7 is converted from its own set; of what
// is not HL7 nobody knows the set.
func textOf(m *store.Message) (string, error) {
	var h mllp.Header
	if h.Parse(m.Raw) != nil {
		if !utf8.Valid(m.Raw) {
			return "", &unsendableError{errNoText}
		}
		return string(m.Raw), nil
	}
	text, err := convert(m, mllp.CharsetUTF8)
	return string(text), err
}
