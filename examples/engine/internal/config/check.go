package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/carewire/carewire/keystore"
	"github.com/carewire/carewire/tlsprops"
)

func (s *Source) decodeNode(d *decoder, node *yaml.Node, key string) {
	kind, ok := d.connectorType(node, key, "tcp", "dicom", "http", "mesh", "channel")
	if !ok {
		return
	}
	own := reflect.ValueOf(s).Elem()
	switch kind {
	case "tcp":
		s.TCP = new(TCPSource)
		d.mapping(node, key, own, reflect.ValueOf(s.TCP).Elem())
	case "dicom":
		s.DICOM = new(DICOMSource)
		d.mapping(node, key, own, reflect.ValueOf(s.DICOM).Elem())
	case "http":
		s.HTTP = new(HTTPSource)
		d.mapping(node, key, own, reflect.ValueOf(s.HTTP).Elem())
	case "mesh":
		s.MESH = new(MESHSource)
		d.mapping(node, key, own, reflect.ValueOf(s.MESH).Elem())
	case "channel":
		d.mapping(node, key, own)
	}
}

func (dest *Destination) decodeNode(d *decoder, node *yaml.Node, key string) {
	kind, ok := d.connectorType(node, key, "tcp", "dicom", "http", "smtp", "mesh", "file", "channel")
	if !ok {
		return
	}
	own := reflect.ValueOf(dest).Elem()
	switch kind {
	case "tcp":
		dest.TCP = new(TCPDestination)
		d.mapping(node, key, own, reflect.ValueOf(dest.TCP).Elem())
	case "dicom":
		dest.DICOM = new(DICOMDestination)
		d.mapping(node, key, own, reflect.ValueOf(dest.DICOM).Elem())
	case "http":
		dest.HTTP = new(HTTPDestination)
		d.mapping(node, key, own, reflect.ValueOf(dest.HTTP).Elem())
	case "smtp":
		dest.SMTP = new(SMTPDestination)
		d.mapping(node, key, own, reflect.ValueOf(dest.SMTP).Elem())
	case "mesh":
		dest.MESH = new(MESHDestination)
		d.mapping(node, key, own, reflect.ValueOf(dest.MESH).Elem())
	case "file":
		dest.File = new(FileDestination)
		d.mapping(node, key, own, reflect.ValueOf(dest.File).Elem())
	case "channel":
		dest.Channel = new(ChannelDestination)
		d.mapping(node, key, own, reflect.ValueOf(dest.Channel).Elem())
	}
}

// connectorType reads the key "type" of a connector ahead of the others, since
// they depend on it. Where it is not one of known, that is the one mistake
// reported for the connector: nobody can say which other keys it may have.
func (d *decoder) connectorType(node *yaml.Node, key string, known ...string) (kind string, ok bool) {
	if node.Kind != yaml.MappingNode {
		d.mapping(node, key) // reports it
		return "", false
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		if name.Value != "type" {
			continue
		}
		kind := ""
		before := len(d.found)
		d.value(value, join(key, "type"), reflect.ValueOf(&kind).Elem())
		switch {
		case len(d.found) > before:
			return "", false
		case slices.Contains(known, kind):
			return kind, true
		default:
			d.report(value.Line, join(key, "type"), "is not a type: the types are %s", strings.Join(known, ", "))
		}
		return "", false
	}
	d.at(join(key, "type"), "is missing: the types are %s", strings.Join(known, ", "))
	return "", false
}

// check finds what is wrong with values that are each well formed.
func (d *decoder) check(cfg *Config) {
	if d.has("store") && d.clean("store") && cfg.Store != "sqlite" {
		d.at("store", "only sqlite is in this version of the engine: remove the key or write sqlite")
	}
	if d.has("certificateCheckInterval") && d.clean("certificateCheckInterval") && cfg.CertificateCheckInterval < 100*time.Millisecond {
		d.at("certificateCheckInterval", "must be at least 100ms, such as 10s")
	}
	if len(cfg.Channels) == 0 && !d.has("channels") {
		d.at("channels", "is missing: an engine needs at least one")
	} else if len(cfg.Channels) == 0 && d.clean("channels") {
		d.at("channels", "must list at least one channel")
	}
	d.users(cfg)
	d.retention("", cfg.Retention, Retention{})
	d.backup(cfg)
	d.encryption(&cfg.Encryption)
	ids, names := make(map[string]string), make(map[string]string)
	var listeners []listener
	directories := make(map[string]string)
	for i := range cfg.Channels {
		ch, key := &cfg.Channels[i], fmt.Sprintf("channels[%d]", i)
		d.unique(ids, key, "id", ch.ID)
		if ch.Name != "" {
			d.distinct(names, join(key, "name"), ch.Name)
		}
		d.initialState(key, ch)
		d.expected(join(key, "expected"), ch.Expected)
		d.retention(key, ch.Retention, cfg.Retention)
		listeners = d.source(key, &ch.Source, listeners, directories)
		d.objects(cfg, i, directories)
		d.destinations(key, ch, directories)
	}
	d.targets(cfg, ids)
	d.inboxes(cfg)
	d.alerts(cfg)
}

// unique checks an identifier that the store keeps: required, of a few safe
// characters, and different from those seen.
func (d *decoder) unique(seen map[string]string, parent, name, value string) {
	key := join(parent, name)
	switch {
	case value == "" && d.clean(key):
		d.at(key, "is missing: messages are stored under it")
	case value != "" && !validID(value):
		d.at(key, "may have letters, digits, -, _ and . only, 64 at most, and must begin with a letter or digit")
	case value != "":
		d.distinct(seen, key, value)
	}
}

// clean tells that nothing has been reported about key yet, nor about a key
// around it.
func (d *decoder) clean(key string) bool {
	return !slices.ContainsFunc(d.found, func(p LineError) bool {
		return p.Key == key || p.Key != "" && (strings.HasPrefix(key, p.Key+".") || strings.HasPrefix(key, p.Key+"["))
	})
}

func (d *decoder) distinct(seen map[string]string, key, value string) {
	if first, dup := seen[value]; dup {
		d.at(key, "is the same as %s: each needs its own", d.place(first))
		return
	}
	seen[value] = key
}

// otherChannel begins what stands in the place of a key for what another file has.
const otherChannel = "that of channel "

// place tells where a key is.
func (d *decoder) place(key string) string {
	if strings.HasPrefix(key, otherChannel) {
		return key
	}
	return fmt.Sprintf("%s in line %d", key, d.line(key))
}

func (d *decoder) initialState(channel string, ch *Channel) {
	d.oneOf(join(channel, "initialState"), ch.InitialState, "STARTED", "PAUSED", "STOPPED")
}

func validID(id string) bool {
	if len(id) > 64 || strings.ContainsRune("-_.", rune(id[0])) {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})
}

func (d *decoder) destinations(channel string, ch *Channel, directories map[string]string) {
	list := join(channel, "destinations")
	if len(ch.Destinations) == 0 {
		if !d.has(list) {
			d.at(list, "is missing: the channel would acknowledge messages and deliver them nowhere")
		} else if d.clean(list) {
			d.at(list, "must list at least one: the channel would acknowledge messages and deliver them nowhere")
		}
		return
	}
	names := make(map[string]string)
	for i := range ch.Destinations {
		dest, key := &ch.Destinations[i], fmt.Sprintf("%s[%d]", list, i)
		if dest.Type == "" {
			continue // reported when it was read
		}
		d.unique(names, key, "name", dest.Name)
		if dest.Queue.RetryInterval < 0 || dest.Queue.RetryInterval == 0 && d.has(join(key, "queue.retryInterval")) && d.clean(join(key, "queue.retryInterval")) {
			d.at(join(key, "queue.retryInterval"), "must be longer than nothing, such as 10s")
		}
		if dest.Queue.MaxAttempts < 0 {
			d.at(join(key, "queue.maxAttempts"), "must not be negative; 0 tries for ever")
		}
		d.oneOf(join(key, "queue.onPoison"), dest.Queue.OnPoison, "block", "skip", "deadletter")
		if dest.Queue.MaxMessages < 0 {
			d.at(join(key, "queue.maxMessages"), "must not be negative; 0 is without a bound")
		}
		d.carries(key, &ch.Source, dest)
		switch {
		case dest.TCP != nil:
			d.tcpDestination(key, dest.TCP)
		case dest.DICOM != nil:
			d.dicomDestination(key, dest.DICOM)
		case dest.HTTP != nil:
			d.httpDestination(key, dest.HTTP)
		case dest.SMTP != nil:
			d.smtpDestination(key, dest.SMTP)
		case dest.MESH != nil:
			d.meshDestination(key, dest.MESH)
		case dest.File != nil:
			d.directory(join(key, "directory"), dest.File.Directory, directories)
		}
	}
}

func (d *decoder) oneOf(key, value string, words ...string) {
	if d.has(key) && d.clean(key) && !slices.Contains(words, value) {
		d.at(key, "must be one of %s", strings.Join(words, ", "))
	}
}

func (d *decoder) directory(key, directory string, seen map[string]string) {
	switch {
	case directory == "" && d.clean(key):
		d.at(key, "is missing: a file destination needs the directory to write to")
	case strings.Contains(directory, "${message."):
		d.at(key, "is fixed when the engine starts: per-message values cannot stand here")
	case directory != "":
		// Two queues that write the same message would write the same file.
		d.distinct(seen, key, filepath.Clean(directory))
	}
}

// tls checks one TLS block, files and all, in the role it is for.
func (d *decoder) tls(key string, p tlsprops.TlsProperties, role tlsprops.Role, host string) {
	if !d.cleanUnder(key) {
		return // what is wrong already would only be reported again in other words
	}
	p.Decoder = keystore.Decoder // as the engine sets it
	err := p.ValidateFor(role)
	if err == nil && p.Enabled {
		err = loadTLS(p, role, host)
	}
	if err == nil {
		return
	}
	if fe, ok := errors.AsType[*tlsprops.FieldError](err); ok {
		text := fe.Err.Error()
		if strings.HasSuffix(fe.Field, "Path") || strings.HasSuffix(fe.Field, "Paths") || strings.HasSuffix(fe.Field, "File") {
			text = strings.TrimPrefix(fe.Path+": "+text, ": ") // of other fields it would be a value
		}
		d.at(join(key, fe.Field), "%s", text)
		return
	}
	d.at(key, "%v", err)
}

func loadTLS(p tlsprops.TlsProperties, role tlsprops.Role, host string) error {
	source, err := tlsprops.Load(p)
	if err != nil {
		return err
	}
	if role == tlsprops.Listener {
		_, err = source.ServerConfig()
	} else {
		_, err = source.ClientConfig(host)
	}
	return err
}

// cleanUnder tells that nothing has been reported about key or what is in it.
func (d *decoder) cleanUnder(key string) bool {
	return !slices.ContainsFunc(d.found, func(p LineError) bool { return p.Key == key || strings.HasPrefix(p.Key, key+".") })
}

// targets checks that channel destinations lead somewhere and never in a ring:
// in a ring one message would go round for ever.
func (d *decoder) targets(cfg *Config, ids map[string]string) {
	type edge struct {
		to  string
		key string
	}
	edges := make(map[string][]edge)
	for i := range cfg.Channels {
		for j, dest := range cfg.Channels[i].Destinations {
			if dest.Channel == nil {
				continue
			}
			key := fmt.Sprintf("channels[%d].destinations[%d].channelId", i, j)
			target := dest.Channel.ChannelID
			switch _, known := ids[target]; {
			case target == "" && d.clean(key):
				d.at(key, "is missing: name the channel that gets the messages")
			case target != "" && !known:
				d.at(key, "no channel has this id")
			case target != "":
				edges[cfg.Channels[i].ID] = append(edges[cfg.Channels[i].ID], edge{target, key})
			}
		}
	}
	if len(ids) < len(cfg.Channels) {
		return // where an id is missing or stands twice nobody can say what leads where
	}
	const visiting, finished = 1, 2
	state := make(map[string]int)
	var visit func(id string)
	visit = func(id string) {
		state[id] = visiting
		for _, e := range edges[id] {
			switch state[e.to] {
			case visiting:
				d.at(e.key, "closes a ring of channels, in which a message would go round for ever")
			case 0:
				visit(e.to)
			}
		}
		state[id] = finished
	}
	for i := range cfg.Channels {
		if state[cfg.Channels[i].ID] == 0 {
			visit(cfg.Channels[i].ID)
		}
	}
}
