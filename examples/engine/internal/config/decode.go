package config

import (
	"encoding"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/carewire/carewire/mllp"
)

// decoder fills structs from YAML nodes by their yaml tags, and notes every
// mistake with its line rather than stop at the first. yaml's own strict mode
// stops at a repeated key, gives no path to a key, and quotes values.
type decoder struct {
	file   string // as the user named it
	lookup func(string) (string, bool)
	lines  map[string]int // key path -> line
	found  LineErrors
	// referred has secrets refused that are not in the environment or a file.
	referred bool
}

// nodeDecoder is a type that reads its own mapping because what is allowed in
// it depends on one of the values.
type nodeDecoder interface {
	decodeNode(d *decoder, node *yaml.Node, key string)
}

// secretKeys are the keys whose value may be given as file:PATH.
var secretKeys = []string{"passphrase", "keyPassphrase", "password", "hashSecret", "passcode", "keyStorePW", "keyPW", "trustStorePW"}

func (d *decoder) report(line int, key, format string, args ...any) {
	d.found = append(d.found, LineError{File: d.file, Line: line, Key: key, Text: fmt.Sprintf(format, args...)})
}

// at reports a mistake at the line of key, or of the nearest key around it.
func (d *decoder) at(key, format string, args ...any) {
	d.report(d.line(key), key, format, args...)
}

func (d *decoder) line(key string) int {
	for at := key; at != ""; {
		if line, ok := d.lines[at]; ok {
			return line
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	return 1
}

// has tells whether key stands in the file, with whatever value.
func (d *decoder) has(key string) bool {
	_, ok := d.lines[key]
	return ok
}

func (d *decoder) value(node *yaml.Node, key string, into reflect.Value) {
	if node.Kind == yaml.AliasNode {
		d.report(node.Line, key, "anchors and aliases are not supported: write the value out")
		return
	}
	if node.ShortTag() == "!!null" {
		d.report(node.Line, key, "has no value: give it one or remove the key")
		return
	}
	if custom, ok := reflect.TypeAssert[nodeDecoder](into.Addr()); ok {
		custom.decodeNode(d, node, key)
		return
	}
	if _, known := advice[into.Type()]; known {
		d.scalar(node, key, into)
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(into.Type().Elem())
		d.value(node, key, fresh.Elem())
		into.Set(fresh)
	case reflect.Struct:
		d.mapping(node, key, into)
	case reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			d.report(node.Line, key, "must be a list: write each entry on a line of its own after \"- \"")
			return
		}
		list := reflect.MakeSlice(into.Type(), len(node.Content), len(node.Content))
		for i, item := range node.Content {
			at := entry(key, i)
			d.lines[at] = item.Line
			d.value(item, at, list.Index(i))
		}
		into.Set(list)
	default:
		d.scalar(node, key, into)
	}
}

// mapping fills the fields of one or more structs, which share one mapping.
func (d *decoder) mapping(node *yaml.Node, key string, into ...reflect.Value) {
	if node.Kind != yaml.MappingNode {
		d.report(node.Line, key, "must be a group of keys: write them indented on the lines below, as key: value")
		return
	}
	fields := make(map[string]reflect.Value)
	for _, v := range into {
		collect(fields, v)
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		full := join(key, name.Value)
		field, known := fields[name.Value]
		switch {
		case !isKey(name):
			// It may be a value in the wrong place, so it is not shown.
			d.report(name.Line, key, "what stands before this colon is not a key: put values that contain one in quotes")
		case !known:
			d.report(name.Line, full, "not a key here; %s", hint(name.Value, fields))
		case d.has(full):
			d.report(name.Line, full, "stands here a second time, after line %d: remove one of the two", d.lines[full])
		default:
			d.lines[full] = name.Line
			d.value(value, full, field)
		}
	}
}

// collect notes the fields of a struct under their keys, and those of the structs
// that are inline in it.
func collect(fields map[string]reflect.Value, v reflect.Value) {
	for i := range v.NumField() {
		switch name, option, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ","); {
		case option == "inline":
			collect(fields, v.Field(i))
		case name != "" && name != "-":
			fields[name] = v.Field(i)
		}
	}
}

func isKey(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && len(node.Value) <= 40 && isVariable(node.Value)
}

func entry(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// hint tells what to write instead of an unknown key.
func hint(name string, fields map[string]reflect.Value) string {
	known := make([]string, 0, len(fields))
	for k := range fields {
		if strings.EqualFold(k, name) || oneSlip(strings.ToLower(name), strings.ToLower(k)) {
			return "did you mean " + k + "?"
		}
		known = append(known, k)
	}
	slices.Sort(known)
	return "the keys are " + strings.Join(known, ", ")
}

// oneSlip tells whether one wrong, missing, additional or swapped letter makes
// a of b.
func oneSlip(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	switch restA, restB := a[i:], b[i:]; len(restB) - len(restA) {
	case 0:
		return len(restA) > 0 && restA[1:] == restB[1:] ||
			len(restA) > 1 && restA[0] == restB[1] && restA[1] == restB[0] && restA[2:] == restB[2:]
	case 1:
		return restA == restB[1:]
	}
	return false
}

var durationType = reflect.TypeFor[time.Duration]()

// scalar fills a string, bool, int or duration.
func (d *decoder) scalar(node *yaml.Node, key string, into reflect.Value) {
	if node.Kind != yaml.ScalarNode {
		d.report(node.Line, key, "must be a single value: %s", wanted(into))
		return
	}
	text, isText := node.Value, node.ShortTag() == "!!str"
	if template, is := reflect.TypeAssert[templated](into.Addr()); is {
		d.template(node, key, template)
		return
	}
	fromFile := false
	if isText {
		if slices.Contains(secretKeys, lastName(key)) {
			text, fromFile = strings.CutPrefix(text, "file:")
			if d.referred && !fromFile && !isReference(text) {
				d.report(node.Line, key, "must not stand here itself: write ${NAME} or file:PATH, which the engine reads")
				return
			}
		}
		var err error
		if text, err = expand(text, d.lookup); err != nil {
			d.report(node.Line, key, "%v", err)
			return
		}
	}
	if fromFile {
		secret, err := readSecret(d.resolve(text))
		if err != nil {
			d.report(node.Line, key, "%v", err)
			return
		}
		text = secret
	}
	ok := false
	switch {
	case into.Type() == durationType:
		if v, err := d.duration(text, isText, key); err == nil {
			into.SetInt(int64(v))
			ok = true
		}
	case advice[into.Type()] != "":
		// In bytes, digits and an E may look like a number.
		if value, isIt := reflect.TypeAssert[encoding.TextUnmarshaler](into.Addr()); isIt && (isText || into.Type() == frameBytesType) {
			ok = value.UnmarshalText([]byte(text)) == nil // whose text may quote the value
		}
	case into.Kind() == reflect.String:
		if isText {
			into.SetString(text)
			ok = true
		}
	case into.Kind() == reflect.Bool:
		if text == "true" || text == "false" {
			into.SetBool(text == "true")
			ok = true
		}
	case into.CanInt():
		if v, err := strconv.ParseInt(text, 10, into.Type().Bits()); err == nil {
			into.SetInt(v)
			ok = true
		}
	}
	switch say := wanted(into); {
	case ok:
	case into.Type() == durationType && slices.Contains(millisecondKeys, lastName(key)):
		d.report(node.Line, key, "has the wrong type: %s, or, as in Mirth, milliseconds without a unit, 100 at least: fewer might be meant as seconds", say)
	case advice[into.Type()] != "":
		d.report(node.Line, key, "%s", say)
	default:
		d.report(node.Line, key, "has the wrong type: %s", say)
	}
}

// isReference tells whether text is nothing but one variable of the environment.
func isReference(text string) bool {
	name, ok := strings.CutPrefix(text, "${")
	name, closed := strings.CutSuffix(name, "}")
	return ok && closed && isVariable(name)
}

// millisecondKeys are the durations that Mirth has too, in milliseconds: a number
// without a unit stands for these.
var millisecondKeys = []string{
	"receiveTimeout", "responseTimeout", "sendTimeout", "timeout", "pollingFrequency",
	"requestTo", "idleTo", "connectTo", "acceptTo", "rspTo", "releaseTo",
}

// leastMilliseconds is the smallest number without a unit that is taken for
// milliseconds. No timeout is so short; who writes 30 means seconds.
const leastMilliseconds = 100

// duration reads 10s or, under the keys that Mirth has, a number of milliseconds.
func (d *decoder) duration(text string, isText bool, key string) (time.Duration, error) {
	if slices.Contains(millisecondKeys, lastName(key)) {
		if n, err := strconv.ParseInt(text, 10, 32); err == nil && (n == 0 || n >= leastMilliseconds) {
			return time.Duration(n) * time.Millisecond, nil
		}
	}
	if !isText {
		return 0, errSyntax
	}
	return time.ParseDuration(text)
}

var frameBytesType = reflect.TypeFor[mllp.FrameBytes]()

// advice is what to write for values that are read from text and are not words.
var advice = map[reflect.Type]string{
	frameBytesType:                  "is not bytes: write up to 32 in hexadecimal, such as 0B or 1C0D",
	reflect.TypeFor[mllp.Charset](): "is not a character set: write auto, raw, ASCII, UTF-8 or ISO-8859-1 to -9 and -15; for Mirth's DEFAULT_ENCODING remove the key",
	reflect.TypeFor[AddressRange](): "is neither an address nor a range such as 10.1.0.0/16, which has no bits set behind its length",
	reflect.TypeFor[Template]():     "has the wrong type: write text, in quotes where it looks like a number or a date",
	reflect.TypeFor[Addresses]():    "has the wrong type: write addresses in one text, with commas between them",
	reflect.TypeFor[HL7Path]():      "is not a field of a message: write it such as PID-3.1",
}

func wanted(into reflect.Value) string {
	switch {
	case advice[into.Type()] != "":
		return advice[into.Type()]
	case into.Type() == durationType:
		return "write a duration such as 10s or 5m"
	case into.Kind() == reflect.Bool:
		return "write true or false"
	case into.CanInt():
		return "write a whole number"
	default:
		return "write text, in quotes where it looks like a number or a date"
	}
}

func lastName(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// resolve makes a path absolute to the directory of the configuration file.
func (d *decoder) resolve(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(d.file), path)
}
