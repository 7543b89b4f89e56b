package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// storedSuffix is that of the files with one channel each.
const storedSuffix = ".yaml"

// StoredPath is where the channel with an id is kept in dir.
func StoredPath(dir, id string) string { return filepath.Join(dir, id+storedSuffix) }

// LoadStored reads the channels that were made over the API, each from a file of its
// own in dir, and puts them behind those of cfg. A dir that is not there has none. The
// error is a LineErrors that holds every mistake in every file.
func LoadStored(dir string, cfg *Config, lookup func(string) (string, bool)) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("channels of the API: %w", err)
	}
	var found LineErrors
	var decoders []*decoder
	var fresh []*Channel
	others := pointers(cfg.Channels)
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), storedSuffix)
		if !ok || strings.HasPrefix(id, ".") {
			continue
		}
		d := newStoredDecoder(filepath.Join(dir, e.Name()), lookup)
		decoders = append(decoders, d)
		data, err := readBounded(d.file)
		if err != nil {
			d.report(0, "", "%v", err)
		} else if root, ok := d.parse(data); ok {
			ch := d.channel(root, others)
			if len(d.found) == 0 && ch.ID != id {
				d.at("id", "is not the name of the file: a channel's file is its id and %s", storedSuffix)
			}
			others, fresh = append(others, ch), append(fresh, ch)
		}
		found = append(found, d.sorted()...)
	}
	if len(found) > 0 {
		return found
	}
	for i, ch := range fresh { // they may lead to each other
		decoders[i].leads(ch, others)
		found = append(found, decoders[i].sorted()...)
	}
	if len(found) > 0 {
		return found
	}
	for _, ch := range fresh {
		cfg.Channels = append(cfg.Channels, *ch)
	}
	return nil
}

// ParseStored reads one channel in YAML or, with asJSON, in JSON with the same keys,
// which is to be kept as path, and checks it beside the others that there are. The
// error is a LineErrors that holds every mistake. text is what is to be written there:
// LoadStored makes the same channel of it.
func ParseStored(path string, data []byte, asJSON bool, others []*Channel, lookup func(string) (string, bool)) (_ *Channel, text []byte, _ error) {
	d := newStoredDecoder(path, lookup)
	read := d.parse
	if asJSON {
		read = d.parseJSON
	}
	root, ok := read(data)
	if !ok {
		return nil, nil, d.found
	}
	ch := d.channel(root, others)
	if len(d.found) == 0 {
		d.leads(ch, others)
	}
	if len(d.found) > 0 {
		return nil, nil, d.sorted()
	}
	if !asJSON {
		return ch, data, nil
	}
	text, err := yaml.Marshal(root)
	if err != nil {
		return nil, nil, fmt.Errorf("writing %s as YAML: %w", filepath.Base(path), err)
	}
	again, _, err := ParseStored(path, text, false, others, lookup)
	if err != nil || !reflect.DeepEqual(again, ch) {
		return nil, nil, errors.Join(errors.New("this JSON cannot be kept as YAML: send YAML"), err)
	}
	return ch, text, nil
}

// newStoredDecoder returns one for a file with one channel.
func newStoredDecoder(path string, lookup func(string) (string, bool)) *decoder {
	return &decoder{file: path, lookup: lookup, lines: make(map[string]int), referred: true}
}

// dataDir is the data directory: a stored channel's file is in a directory of it.
func (d *decoder) dataDir() string { return filepath.Dir(filepath.Dir(d.file)) }

func (d *decoder) sorted() LineErrors {
	slices.SortStableFunc(d.found, func(a, b LineError) int { return a.Line - b.Line })
	return d.found
}

func pointers(channels []Channel) []*Channel {
	list := make([]*Channel, len(channels))
	for i := range channels {
		list[i] = &channels[i]
	}
	return list
}

// channel reads and checks one channel beside others, but for where it leads.
func (d *decoder) channel(root *yaml.Node, others []*Channel) *Channel {
	cfg := Config{Channels: make([]Channel, 1)}
	ch := &cfg.Channels[0]
	d.value(root, "", reflect.ValueOf(ch).Elem())
	d.resolvePaths(&cfg)
	seen := d.beside(others)
	d.unique(seen.ids, "", "id", ch.ID)
	if ch.Name != "" {
		d.distinct(seen.names, "name", ch.Name)
	}
	d.initialState("", ch)
	d.expected("expected", ch.Expected)
	d.retention("", ch.Retention, Retention{})
	d.source("", &ch.Source, seen.listeners, seen.directories)
	d.destinations("", ch, seen.directories)
	if dicom := ch.Source.DICOM; dicom != nil && dicom.Dest == "" && d.has("source.dest") {
		d.at("source.dest", "is empty: name the directory of the objects, or remove the key")
	} else if dicom != nil && ch.ID != "" {
		d.distinct(seen.directories, "source.dest", filepath.Clean(dicom.Directory(d.dataDir(), ch.ID)))
	}
	if m := ch.Source.MESH; m != nil && m.Mailbox.Mailbox != "" && d.clean("source.mailbox") {
		d.distinct(seen.inboxes, "source.mailbox", m.inbox())
	}
	cfg.setDefaults()
	ch.Stored = true
	return ch
}

// taken is what only one channel can have, and which has it.
type taken struct {
	ids, names, directories map[string]string
	inboxes                 map[string]string
	listeners               []listener
}

// beside finds what others have. They were checked when they came: their files are
// not looked at again. What listens or writes into a directory must be here; of a port
// that is missing the opening would tell.
func (d *decoder) beside(others []*Channel) taken {
	all := taken{ids: make(map[string]string), names: make(map[string]string), directories: make(map[string]string), inboxes: make(map[string]string)}
	for _, ch := range others {
		name := otherChannel + ch.ID
		all.ids[ch.ID], all.names[ch.Name] = name, name
		if tcp := ch.Source.TCP; tcp != nil {
			if !tcp.Dials() {
				all.listeners = append(all.listeners, listener{tcp.Host, tcp.Port, name})
			}
			if tcp.Quarantine != nil {
				all.directories[filepath.Clean(tcp.Quarantine.Directory)] = name
			}
		}
		if h := ch.Source.HTTP; h != nil {
			all.listeners = append(all.listeners, listener{h.Host, h.Port, name})
		}
		if m := ch.Source.MESH; m != nil {
			all.inboxes[m.inbox()] = name
		}
		if dicom := ch.Source.DICOM; dicom != nil {
			all.listeners = append(all.listeners, listener{dicom.Host, dicom.Port, name})
			all.directories[filepath.Clean(dicom.Directory(d.dataDir(), ch.ID))] = name
		}
		for _, dest := range ch.Destinations {
			if dest.File != nil {
				all.directories[filepath.Clean(dest.File.Directory)] = name
			}
		}
	}
	return all
}

// leads checks that the channel's destinations lead to channels that there are, and
// never back to it.
func (d *decoder) leads(ch *Channel, others []*Channel) {
	to := make(map[string][]string) // by id; a channel's own is always in it
	for _, c := range append(slices.Clip(others), ch) {
		to[c.ID] = nil
		for _, dest := range c.Destinations {
			if dest.Channel != nil {
				to[c.ID] = append(to[c.ID], dest.Channel.ChannelID)
			}
		}
	}
	var reaches func(from string, visited map[string]bool) bool
	reaches = func(from string, visited map[string]bool) bool {
		if from == ch.ID || visited[from] {
			return from == ch.ID
		}
		visited[from] = true
		return slices.ContainsFunc(to[from], func(next string) bool { return reaches(next, visited) })
	}
	for i, dest := range ch.Destinations {
		if dest.Channel == nil {
			continue
		}
		key, target := entry("destinations", i)+".channelId", dest.Channel.ChannelID
		switch _, known := to[target]; {
		case target == "":
			d.at(key, "is missing: name the channel that gets the messages")
		case !known:
			d.at(key, "no channel has this id")
		case reaches(target, make(map[string]bool)):
			d.at(key, "closes a ring of channels, in which a message would go round for ever")
		}
	}
}

// parseJSON returns the only value in data as nodes with their lines. Keys that stand
// twice stay, so that they are found.
func (d *decoder) parseJSON(data []byte) (*yaml.Node, bool) {
	if !utf8.Valid(data) {
		d.report(0, "", "is not UTF-8: send it in that encoding")
		return nil, false
	}
	p := &jsonParser{dec: json.NewDecoder(bytes.NewReader(data)), data: data}
	p.dec.UseNumber()
	root, err := p.value(0)
	if err == nil {
		if _, err = p.dec.Token(); errors.Is(err, io.EOF) {
			return root, true
		}
		err = errors.New("more follows after the channel")
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		err = errors.New("look at brackets, quotes and commas") // what it says may quote the text
		p.at = syntax.Offset
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends too early")
	}
	d.report(p.line(), "", "is not JSON: %v", err)
	return nil, false
}

// maxDepth bounds how deep JSON is nested; a configuration has six levels.
const maxDepth = 32

// jsonParser makes YAML nodes of JSON.
type jsonParser struct {
	dec  *json.Decoder
	data []byte
	at   int64 // where the last token ends
}

func (p *jsonParser) line() int {
	return 1 + bytes.Count(p.data[:min(p.at, int64(len(p.data)))], []byte("\n"))
}

func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	token, err := p.dec.Token()
	p.at = p.dec.InputOffset()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errors.New("it is nested too deeply")
	}
	scalar := func(tag, text string) *yaml.Node {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text, Line: p.line()}
	}
	switch t := token.(type) {
	case string:
		return scalar("!!str", t), nil
	case json.Number:
		if strings.ContainsAny(t.String(), ".eE") {
			return scalar("!!float", t.String()), nil
		}
		return scalar("!!int", t.String()), nil
	case bool:
		return scalar("!!bool", fmt.Sprint(t)), nil
	case nil:
		return scalar("!!null", "null"), nil
	}
	node := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: p.line()}
	if token == json.Delim('[') {
		node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
	}
	for p.dec.More() { // the decoder sees to it that keys are text
		item, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, item)
	}
	_, err = p.dec.Token() // the closing bracket
	p.at = p.dec.InputOffset()
	return node, err
}
