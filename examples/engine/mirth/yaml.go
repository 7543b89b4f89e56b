package mirth

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A block is a group of keys in the order in which they are written.
type block []member

// A member's value is a string, which stands for itself; a template; an int, a bool, a
// time.Duration; a block; or a list of blocks.
type member struct {
	key   string
	value any
}

// A template is text for the configuration as it is written there, with ${…}.
type template string

func (b *block) set(key string, value any) { *b = append(*b, member{key, value}) }

// literal is text that the configuration takes for itself.
func literal(s string) template { return template(strings.ReplaceAll(s, "${", "$${")) }

func yamlNode(value any) *yaml.Node {
	scalar := func(tag, text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text} }
	switch v := value.(type) {
	case string:
		return yamlNode(literal(v))
	case template:
		n := scalar("!!str", string(v))
		if strings.ContainsAny(n.Value, "\r\n\t") {
			n.Style = yaml.DoubleQuotedStyle
		}
		return n
	case int:
		return scalar("!!int", strconv.Itoa(v))
	case bool:
		return scalar("!!bool", strconv.FormatBool(v))
	case time.Duration:
		return scalar("!!str", v.String())
	case block:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, m := range v {
			n.Content = append(n.Content, scalar("!!str", m.key), yamlNode(m.value))
		}
		return n
	case []block:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, b := range v {
			n.Content = append(n.Content, yamlNode(b))
		}
		return n
	}
	return scalar("!!null", "") // which the engine refuses
}

// yaml writes the configuration: channels that are not imported, and findings, as
// comments.
func (im *importer) yaml() ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("# Imported from Mirth. What was not carried over is said in comments.\n")
	writeFindings(&out, im.findings)
	var on, off []*channel
	for _, ch := range im.channels {
		if ch.state() == Imported {
			on = append(on, ch)
		} else {
			off = append(off, ch)
		}
	}
	if len(on) > 0 {
		out.WriteString("channels:\n")
	}
	for _, ch := range on {
		if err := ch.write(&out, "  "); err != nil {
			return nil, err
		}
	}
	if len(off) > 0 {
		out.WriteString("\n# Not imported. A channel comes to life without the marks in front of its lines,\n# under \"channels:\".\n")
	}
	for _, ch := range off {
		if err := ch.write(&out, "#   "); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func writeFindings(out *bytes.Buffer, findings []Finding) {
	for _, f := range findings {
		fmt.Fprintf(out, "# %s: ", f.Severity)
		if f.Connector != "" {
			fmt.Fprintf(out, "%q: ", f.Connector)
		}
		fmt.Fprintf(out, "%s: %s\n", comment(f.What), comment(f.Why))
	}
}

// comment is text that stays in one line.
func comment(s string) string {
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func (ch *channel) write(out *bytes.Buffer, prefix string) error {
	fmt.Fprintf(out, "\n# %q: %s\n", ch.name, ch.state())
	writeFindings(out, ch.findings)
	b := block{{"id", ch.id}, {"name", ch.name}}
	if ch.initial != "" {
		b.set("initialState", ch.initial)
	}
	b.set("source", ch.source)
	var dests []block
	for _, d := range ch.dests {
		dests = append(dests, d.out)
	}
	b.set("destinations", dests)
	var text bytes.Buffer
	enc := yaml.NewEncoder(&text)
	enc.SetIndent(2)
	if err := enc.Encode(yamlNode([]block{b})); err != nil {
		return fmt.Errorf("channel %q: %w", ch.name, err)
	}
	for line := range strings.Lines(text.String()) {
		out.WriteString(prefix + line)
	}
	return nil
}
