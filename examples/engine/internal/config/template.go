package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// messageVariables are what a Template can ask of a message: its number in the
// store, its MSH-10, the channel that took it in, when, and the message itself.
var messageVariables = []string{"id", "controlId", "channelId", "received", "raw"}

// A Template is a text in which ${message.…} stands for what a message has. What
// takes its place is never looked at again, whatever it holds. The zero value is
// the empty text.
type Template struct{ parts []part }

// rawTemplate is the message itself.
var rawTemplate = Template{[]part{{variable: "raw"}}}

// Empty tells whether nothing was written.
func (t Template) Empty() bool {
	return len(t.parts) == 0 || len(t.parts) == 1 && t.parts[0] == part{}
}

// Expand returns the text for one message. An error of value is returned as it is.
func (t Template) Expand(value func(variable string) (string, error)) (string, error) {
	var out strings.Builder
	for _, p := range t.parts {
		out.WriteString(p.text)
		if p.variable == "" {
			continue
		}
		text, err := value(p.variable)
		if err != nil {
			return "", err
		}
		out.WriteString(text)
	}
	return out.String(), nil
}

// usesRaw tells whether the template asks for the message itself.
func (t Template) usesRaw() bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.variable == "raw" })
}

// Addresses are templates of one address each, written in one text with commas
// between them. What a message puts into one is part of that one, commas and all.
type Addresses []Template

// Expand returns the addresses for one message.
func (a Addresses) Expand(value func(variable string) (string, error)) ([]string, error) {
	var all []string
	for _, t := range a {
		text, err := t.Expand(value)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}

// templated is what is read from a text with ${message.…} in it.
type templated interface{ fromParts(parts []part) }

func (t *Template) fromParts(parts []part) { t.parts = parts }

func (a *Addresses) fromParts(parts []part) {
	*a = nil
	var one Template
	for _, p := range parts {
		texts := strings.Split(p.text, ",")
		for i, text := range texts {
			if last := i == len(texts)-1; !last {
				one.parts = append(one.parts, part{text: text})
				*a = append(*a, one)
				one = Template{}
				continue
			}
			one.parts = append(one.parts, part{text, p.variable})
		}
	}
	*a = append(*a, one)
}

// template reads a text with ${message.…} in it.
func (d *decoder) template(node *yaml.Node, key string, into templated) {
	if node.ShortTag() != "!!str" {
		d.report(node.Line, key, "has the wrong type: write text, in quotes where it looks like a number or a date")
		return
	}
	parts, err := parse(node.Value, d.lookup)
	if err != nil {
		d.report(node.Line, key, "%v", err)
		return
	}
	for _, p := range parts {
		if p.variable != "" && !slices.Contains(messageVariables, p.variable) {
			d.report(node.Line, key, "of a message there are ${message.%s}: write $${ for the two characters themselves", strings.Join(messageVariables, "}, ${message."))
			return
		}
	}
	into.fromParts(parts)
}
