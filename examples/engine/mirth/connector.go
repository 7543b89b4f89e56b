package mirth

import (
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A connector is one connector, on its way from its properties to a block. What is
// taken from the properties is marked, so that in the end it is known what nobody
// has looked at.
type connector struct {
	ch      *channel
	name    string // in Mirth
	props   *node
	used    map[*node]bool
	out     block
	mode    string // of TCP: how messages are told apart
	refused bool   // it cannot be expressed here
}

func (c *connector) lost(what, why string)    { c.ch.note(c.name, what, why, Lost) }
func (c *connector) changed(what, why string) { c.ch.note(c.name, what, why, Changed) }
func (c *connector) info(what, why string)    { c.ch.note(c.name, what, why, Info) }

func (c *connector) refuse(what, why string) {
	c.lost(what, why)
	c.refused = true
}

// take returns the text of a property, without blanks around it.
func (c *connector) take(path string) string { return strings.TrimSpace(c.raw(path)) }

// raw returns the text of a property as it is.
func (c *connector) raw(path string) string {
	n := c.props.at(path)
	if n == nil {
		return ""
	}
	c.used[n] = true
	return n.text
}

// skip marks properties, and what is in them, that change nothing here.
func (c *connector) skip(paths ...string) {
	for _, path := range paths {
		if n := c.props.at(path); n != nil {
			c.used[n] = true
		}
	}
}

// flag returns a property that is true or false.
func (c *connector) flag(path string, otherwise bool) bool {
	switch text := strings.ToLower(c.take(path)); text {
	case "":
		return otherwise
	case "true", "false":
		return text == "true"
	}
	c.refuse(path, "is neither true nor false")
	return otherwise
}

// number returns a property that is a whole number from least to most. Where it is
// anything else, such as a variable, the connector is refused.
func (c *connector) number(path string, otherwise, least, most int) int {
	text := c.take(path)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		c.refuse(path, "is not a number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most)+", which it must be when the engine starts")
		return otherwise
	}
	return n
}

// millis returns a property in milliseconds. One above most becomes most, and that is
// said.
func (c *connector) millis(path string, otherwise, most time.Duration) time.Duration {
	n := c.number(path, int(otherwise/time.Millisecond), 0, 1<<31-1)
	d := time.Duration(n) * time.Millisecond
	if d > most {
		c.changed(path, "is limited to "+most.String()+" here")
		return most
	}
	return d
}

// expect notes a property that has a value other than those which change nothing.
func (c *connector) expect(severity Severity, path, why string, same ...string) {
	if v := c.take(path); v != "" && !slices.Contains(same, v) {
		c.ch.note(c.name, path, why, severity)
	}
}

// fixed returns a property that may hold no variable and no control characters.
func (c *connector) fixed(path string) string {
	text := c.take(path)
	if hasReference(text) || strings.ContainsFunc(text, isControl) {
		c.refuse(path, "is fixed here when the engine starts: variables of Mirth cannot stand in it")
		return ""
	}
	return text
}

// host returns a host name or an address, which must be there.
func (c *connector) host(path string) string {
	text := c.fixed(path)
	if !validHost(text) {
		if !c.refused {
			c.refuse(path, "is neither a host name nor an address")
		}
		return ""
	}
	return text
}

func validHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host != "" && len(host) <= 253 && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

// isLoopback tells whether a host is this machine.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }

// reference is what Mirth replaces in a text, or runs as a directive of Velocity.
var reference = regexp.MustCompile(`\$!?\{|\$!?[A-Za-z_]|#[A-Za-z{#*\[@]`)

// hasReference tells whether Mirth would change a text. It leaves one without $
// alone.
func hasReference(text string) bool {
	return strings.Contains(text, "$") && reference.MatchString(text)
}

// templateOf turns a template of Mirth into one of ours. It may hold the message
// itself, under the names that say so, and nothing else that varies.
func templateOf(text string) (template, bool) {
	const mark = "\x00"
	if strings.Contains(text, mark) {
		return "", false
	}
	for _, name := range []string{"${message.encodedData}", "${message.rawData}"} {
		text = strings.ReplaceAll(text, name, mark)
	}
	if strings.Contains(text, mark) && reference.MatchString(text) || hasReference(text) || strings.Contains(text, "$"+mark) {
		return "", false // the last would be an escape here
	}
	return template(strings.ReplaceAll(string(literal(text)), mark, "${message.raw}")), true
}

// wholeMessage checks that a template is the message and nothing else.
func (c *connector) wholeMessage(path string, also ...string) {
	text := c.take(path)
	if t, ok := templateOf(text); ok && t == "${message.raw}" || slices.Contains(also, text) {
		return
	}
	c.lost(path, "is more than the message itself: here the message goes as it came")
}

// secret sets a key to an environment variable, whose name it makes of the channel's
// and the destination's.
func (c *connector) secret(path, key string) {
	if c.take(path) == "" {
		return
	}
	name := "MIRTH_" + c.ch.id + "_" + c.name + "_" + key
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
	// Two destinations with one variable would get each other's passwords.
	free := name
	for i := 2; c.ch.variables[free]; i++ {
		free = name + "_" + strconv.Itoa(i)
	}
	name = free
	c.ch.variables[name] = true
	c.out.set(key, template("${"+name+"}"))
	c.info(path, "is not copied: set the environment variable "+name+", or write file: and the path of a file with it")
}

// rest notes every property that nobody has looked at and that holds something.
func (c *connector) rest() {
	if c.props != nil {
		c.leftover(c.props, "")
	}
}

// leftover reports the outermost elements of which nothing is known.
func (c *connector) leftover(n *node, at string) {
	for _, k := range n.kids {
		path := strings.TrimPrefix(at+"."+k.name, ".")
		switch {
		case c.used[k] || k.empty() || slices.Contains([]string{"false", "0"}, k.str()) && len(k.kids) == 0:
		case c.anyUsed(k):
			c.leftover(k, path)
		case k.name == "resourceIds":
			// Libraries for scripts, which are reported where there are some.
		default:
			c.lost(path, unknown)
		}
	}
}

func (c *connector) anyUsed(n *node) bool {
	return slices.ContainsFunc(n.kids, func(k *node) bool { return c.used[k] || c.anyUsed(k) })
}

// directoryOf returns a directory of this machine.
func (c *connector) directoryOf(at string) string {
	dir := c.fixed(at)
	windows := len(dir) > 1 && dir[1] == ':' || strings.HasPrefix(dir, `\\`)
	if windows || dir == "" {
		if !c.refused {
			c.refuse(at, "is not a directory of this system: write the path to use here")
		}
		return ""
	}
	return path.Clean(dir)
}
