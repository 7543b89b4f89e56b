package mirth

import (
	"path"
	"slices"
	"strings"
)

// importer is one run of Import.
type importer struct {
	accept    bool
	ids       map[string]bool // taken
	names     map[string]bool
	variables map[string]bool // of the environment, for passwords
	channels  []*channel
	findings  []Finding // about no channel
}

// channel is one channel, on its way.
type channel struct {
	key       string // its id in Mirth
	id, name  string
	off       bool // in Mirth
	accept    bool
	refused   bool
	lost      bool
	source    block
	initial   string // state, if it is not STARTED
	kind      string // of the source: tcp, dicom, http, channel
	port      int    // that it listens on; 0: none
	directory string // of its objects; empty: none of its own
	dests     []*destination
	findings  []Finding
	variables map[string]bool // the importer's
}

type destination struct {
	name      string // in the configuration
	kind      string // tcp, http, dicom, smtp, file, channel
	out       block
	directory string   // of a File Writer
	target    string   // of a Channel Writer: the id in Mirth
	to        *channel // and the channel, if it is there
}

func (ch *channel) note(connector, what, why string, severity Severity) {
	ch.findings = append(ch.findings, Finding{Channel: ch.name, Connector: connector, What: what, Why: why, Severity: severity})
	ch.lost = ch.lost || severity == Lost
}

func (ch *channel) refuse(connector, what, why string) {
	ch.note(connector, what, why, Lost)
	ch.refused = true
}

func (ch *channel) state() State {
	switch {
	case ch.refused:
		return Refused
	case ch.lost && !ch.accept:
		return Held
	case ch.off:
		return Off
	}
	return Imported
}

// channelsIn returns the channels in n. In a group of a server's configuration
// there are but their numbers, which are none.
func channelsIn(n *node, depth int) []*node {
	if n.child("sourceConnector") != nil {
		return []*node{n}
	}
	var found []*node
	for _, k := range n.kids {
		if depth < 6 && slices.Contains(containers, k.name) {
			found = append(found, channelsIn(k, depth+1)...)
		}
	}
	return found
}

// server notes what a server's configuration has beside channels.
func (im *importer) server(root *node, channels []*channel) {
	conf := root.child("serverConfiguration")
	if conf == nil {
		return
	}
	for _, entry := range conf.at("globalScripts").entries() {
		if !isDefaultScript(entry.value) {
			for _, ch := range channels {
				ch.note("", "global script "+entry.key, "scripts are not run here", Lost)
			}
		}
	}
	for _, k := range conf.kids {
		if !slices.Contains([]string{"channels", "channelGroups", "globalScripts", "date"}, k.name) && !k.empty() {
			im.findings = append(im.findings, Finding{What: k.name, Why: "only channels are imported: set up by hand what of this is needed", Severity: Info})
		}
	}
}

// A pair is an entry of a map in an export.
type pair struct{ key, value string }

// entries returns the map in n: entries of two strings, or of a string and a list of
// them, which is several pairs. JSON of Node.js has an object.
func (n *node) entries() []pair {
	if n == nil {
		return nil
	}
	var all []pair
	for _, e := range n.kids {
		if e.name != "entry" {
			all = append(all, pair{e.name, e.text})
			continue
		}
		var texts []string
		for _, k := range e.kids {
			if k.name != "string" && k.kids != nil {
				for _, item := range k.kids {
					texts = append(texts, item.text)
				}
			} else {
				texts = append(texts, k.text)
			}
		}
		if len(texts) == 1 {
			texts = append(texts, "")
		}
		for i := 1; i < len(texts); i++ {
			all = append(all, pair{texts[0], texts[i]})
		}
	}
	return all
}

// isDefaultScript tells whether a script does nothing: comments, and the return that
// every new channel has.
func isDefaultScript(text string) bool {
	var rest strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "//") {
			rest.WriteString(line + " ")
		}
	}
	return slices.Contains([]string{"", "return;", "return", "return message;", "return message"}, strings.TrimSpace(rest.String()))
}

// connect gives Channel Writers the ids of their channels, and refuses what could
// not run beside the others: a channel that listens where another one does, that
// leads into one that is not there, or into a ring.
func (im *importer) connect() {
	byKey := make(map[string]*channel)
	for _, ch := range im.channels {
		if _, twice := byKey[ch.key]; !twice {
			byKey[ch.key] = ch
		}
	}
	for _, ch := range im.channels {
		for _, d := range ch.dests {
			if d.to = byKey[d.target]; d.target != "" && d.to != nil {
				d.out.set("channelId", d.to.id)
			}
		}
	}
	im.places()
	im.orphans("leads to a channel that is not imported: import that one too, or remove the destination")
	for _, ch := range im.channels {
		if ch.state() == Imported && ch.reaches(ch) {
			ch.refuse("", "channelId", "is part of a ring of channels, in which a message would go round for ever")
		}
	}
	im.orphans("leads into a ring of channels, which is not imported")
}

// orphans refuses who leads to a channel that is not imported, until all that are
// left lead somewhere.
func (im *importer) orphans(why string) {
	for again := true; again; {
		again = false
		for _, ch := range im.channels {
			for _, d := range ch.dests {
				if ch.state() == Imported && d.target != "" && (d.to == nil || d.to.state() != Imported) {
					ch.refuse(d.name, "channelId", why)
					again = true
				}
			}
		}
	}
}

// reaches tells whether a message of ch comes to other.
func (ch *channel) reaches(other *channel) bool {
	seen := make(map[*channel]bool)
	for next := []*channel{ch}; len(next) > 0; {
		at := next[0]
		next = next[1:]
		for _, d := range at.dests {
			if d.to != nil && !seen[d.to] {
				seen[d.to] = true
				next = append(next, d.to)
			}
		}
	}
	return seen[other]
}

// places refuses the later of two channels that listen on one port, and of two
// destinations that write into one directory.
func (im *importer) places() {
	ports, directories := make(map[int]bool), make(map[string]bool)
	for _, ch := range im.channels {
		if ch.state() != Imported {
			continue
		}
		if ch.port != 0 && ports[ch.port] {
			ch.refuse("", "listenerConnectorProperties.port", "another channel of these listens on the same port: change it, or import one of the two")
			continue
		}
		mine := make(map[string]bool)
		if ch.directory != "" {
			mine[path.Clean(ch.directory)] = true
		}
		for _, d := range ch.dests {
			if d.directory != "" && mine[path.Clean(d.directory)] {
				ch.refuse(d.name, "host", "another one writes into the same directory: each needs its own here")
			} else if d.directory != "" {
				mine[path.Clean(d.directory)] = true
			}
		}
		for dir := range mine {
			if directories[dir] {
				ch.refuse("", "host", "another channel of these writes into the same directory: each needs its own here")
			}
		}
		if ch.state() != Imported {
			continue
		}
		ports[ch.port] = true
		for dir := range mine {
			directories[dir] = true
		}
	}
}
