// Package mirth turns channels that were exported from Mirth Connect, Open
// Integration Engine or the Node.js Mirth into configuration of this engine.
//
// It is pure: exports in, YAML and findings out; it opens no file and no
// connection. What it cannot carry over it says, and a channel that would deliver
// something else than it did, because a filter, a transformer or a script is
// missing, comes out as comments, so that nobody runs it by mistake.
//
// Findings name properties, connectors and channels, never their values. Passwords
// are not copied: in their place is the name of an environment variable to set.
//
// # What it reads
//
// XML as the Administrator and the API export it (channel, list, channelGroup,
// serverConfiguration), and JSON as the API gives it, with the marks of the Java
// class names or without. There are no entities but XML's own five, a document type
// is refused, and depth, size and number of elements are bounded.
package mirth

import (
	"bytes"
	"errors"
	"fmt"
)

// A Severity says what a finding means for who runs the channel.
type Severity string

// The severities, worst first.
const (
	// Lost: the channel would not do what it did. It is imported only if the loss is
	// accepted.
	Lost Severity = "lost behaviour"
	// Changed: the channel is imported, and does something in another way.
	Changed Severity = "changed meaning"
	// Info: worth knowing, or to do by hand.
	Info Severity = "informational"
)

// A Finding is one thing that was not carried over as it stood. The names in it come
// from the export: whoever prints them must quote them.
type Finding struct {
	Channel   string   `json:"channel,omitempty"`   // its name; empty: the export as a whole
	Connector string   `json:"connector,omitempty"` // its name; empty: the channel as a whole
	What      string   `json:"what"`                // the property, as Mirth names it
	Why       string   `json:"why"`                 // what is different, and what to do
	Severity  Severity `json:"severity"`
}

// A State says what became of a channel.
type State string

// The states.
const (
	// Imported: it is in the configuration.
	Imported State = "imported"
	// Off: it was disabled in Mirth, and is in the configuration as comments.
	Off State = "off"
	// Held: something of its behaviour is lost, and nobody has accepted that. It is in
	// the configuration as comments.
	Held State = "held"
	// Refused: it cannot run here. What could be made of it is there as comments.
	Refused State = "refused"
)

// A Channel is what became of one channel of an export.
type Channel struct {
	ID    string `json:"id"`   // in the configuration
	Name  string `json:"name"` // in Mirth
	State State  `json:"state"`
}

// An Export is one file.
type Export struct {
	Name string // for errors
	Data []byte
}

// Options say what to make of losses. The zero value is the careful one.
type Options struct {
	// AcceptLosses imports channels without what was lost.
	AcceptLosses bool
}

// Result is what came of an import.
type Result struct {
	// YAML is a configuration of the engine, with the findings as comments. Where no
	// channel could be imported, it is nothing but comments.
	YAML     []byte
	Channels []Channel // in the order of the exports
	Findings []Finding // channel by channel
}

// Complete tells whether every channel that was on in Mirth is imported.
func (r *Result) Complete() bool {
	for _, ch := range r.Channels {
		if ch.State == Held || ch.State == Refused {
			return false
		}
	}
	return true
}

// What is read and written at most.
const (
	maxExportBytes = 32 << 20
	maxNodes       = 400_000
	maxDepth       = 64
	maxChannels    = 5_000
	maxConfigBytes = 8 << 20 // what the engine reads
)

// Import makes one configuration of all exports. The error is for what cannot be
// read at all; everything else is a finding.
func Import(exports []Export, opts Options) (*Result, error) {
	im := &importer{accept: opts.AcceptLosses, ids: make(map[string]bool), names: make(map[string]bool), variables: make(map[string]bool)}
	for _, e := range exports {
		if err := im.read(e.Data); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
	}
	if len(im.channels) == 0 {
		return nil, errors.New("there is no channel in it")
	}
	im.connect()
	text, err := im.yaml()
	if err != nil {
		return nil, err
	}
	if len(text) > maxConfigBytes {
		return nil, fmt.Errorf("the configuration would have more than the %d bytes that the engine reads: import fewer channels at a time", maxConfigBytes)
	}
	res := &Result{YAML: text, Findings: im.findings}
	for _, ch := range im.channels {
		res.Channels = append(res.Channels, Channel{ID: ch.id, Name: ch.name, State: ch.state()})
		res.Findings = append(res.Findings, ch.findings...)
	}
	return res, nil
}

// read adds the channels of one export.
func (im *importer) read(data []byte) error {
	if len(data) > maxExportBytes {
		return fmt.Errorf("has more than %d bytes: it is not an export of channels", maxExportBytes)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	parse := parseXML
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) > 0 && (text[0] == '{' || text[0] == '[') {
		parse = parseJSON
	}
	root, err := parse(data)
	if err != nil {
		return err
	}
	found := channelsIn(root, 0)
	if len(found) == 0 {
		return errors.New("holds no channel: export channels as XML or JSON")
	}
	if len(im.channels)+len(found) > maxChannels {
		return fmt.Errorf("has more than %d channels: import fewer at a time", maxChannels)
	}
	first := len(im.channels)
	for _, n := range found {
		im.channel(n)
	}
	im.server(root, im.channels[first:])
	return nil
}
