package mirth

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A node is an element of an export, from XML or JSON. In JSON a list is several
// nodes of one name, as it is in XML.
type node struct {
	name, class string
	text        string // of one that has no kids
	kids        []*node
}

// child returns the first kid of that name, or nil. It may be called on nil.
func (n *node) child(name string) *node {
	if n != nil {
		for _, k := range n.kids {
			if k.name == name {
				return k
			}
		}
	}
	return nil
}

// at follows a path of names with dots between them.
func (n *node) at(path string) *node {
	for name := range strings.SplitSeq(path, ".") {
		n = n.child(name)
	}
	return n
}

// str is the text without blanks around it; of nil it is empty.
func (n *node) str() string {
	if n == nil {
		return ""
	}
	return strings.TrimSpace(n.text)
}

// empty tells whether nothing stands in n, however deep.
func (n *node) empty() bool {
	if n == nil {
		return true
	}
	for _, k := range n.kids {
		if !k.empty() {
			return false
		}
	}
	return n.str() == ""
}

var errDeep = fmt.Errorf("is nested more than %d deep: it is not an export of channels", maxDepth)

// tree builds nodes within the limits.
type tree struct {
	open  []*node  // from the root to where we are
	texts [][]byte // of each of them, in XML
	lists int      // in JSON, around where we are
	count int
}

func (t *tree) begin(name string) error {
	if t.count++; t.count > maxNodes {
		return fmt.Errorf("has more than %d elements: it is not an export of channels", maxNodes)
	}
	if len(t.open)+t.lists > maxDepth {
		return errDeep
	}
	n := &node{name: name}
	parent := t.top()
	parent.kids = append(parent.kids, n)
	t.open, t.texts = append(t.open, n), append(t.texts, nil)
	return nil
}

func (t *tree) end() {
	t.open, t.texts = t.open[:len(t.open)-1], t.texts[:len(t.texts)-1]
}

func (t *tree) top() *node { return t.open[len(t.open)-1] }

// parseXML returns a node around the root element.
func parseXML(data []byte) (*node, error) {
	t := &tree{open: []*node{{}}, texts: make([][]byte, 1)}
	root := t.top()
	dec := xml.NewDecoder(bytes.NewReader(data)) // strict, and with no entities but XML's own
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, _ := dec.InputPos()
			return nil, fmt.Errorf("line %d: is not XML in UTF-8, nor JSON, as Mirth exports it", line)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if err := t.begin(token.Name.Local); err != nil {
				return nil, err
			}
			for _, a := range token.Attr {
				if a.Name.Local == "class" {
					t.top().class = a.Value
				}
			}
		case xml.EndElement:
			t.top().text = string(t.texts[len(t.texts)-1])
			t.end()
		case xml.CharData:
			if last := len(t.texts) - 1; last > 0 {
				t.texts[last] = append(t.texts[last], token...)
			}
		case xml.Directive:
			return nil, errors.New("has a document type, which no export of Mirth has: it is refused")
		}
	}
	return root, nil
}

// parseJSON returns a node around the root value.
func parseJSON(data []byte) (*node, error) {
	t := &tree{open: []*node{{}}, texts: make([][]byte, 1)}
	root := t.top()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	bad := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if _, syntax := errors.AsType[*json.SyntaxError](err); syntax || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("is not JSON as of byte %d", dec.InputOffset())
		}
		return err
	}
	if err := jsonValue(dec, t, ""); err != nil {
		return nil, bad(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something behind its JSON")
	}
	return root, nil
}

// jsonValue reads one value as a kid called name of where we are, a list as
// several.
func jsonValue(dec *json.Decoder, t *tree, name string) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	if token == json.Delim('[') {
		if t.lists++; len(t.open)+t.lists > maxDepth {
			return errDeep
		}
		defer func() { t.lists-- }()
		for dec.More() {
			if err := jsonValue(dec, t, name); err != nil {
				return err
			}
		}
		_, err := dec.Token()
		return err
	}
	if err := t.begin(name); err != nil {
		return err
	}
	defer t.end()
	n := t.top()
	switch v := token.(type) {
	case string:
		n.text = v
	case json.Number:
		n.text = v.String()
	case bool:
		n.text = fmt.Sprint(v)
	case json.Delim:
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string) // a key is always one
			if err := jsonValue(dec, t, name); err != nil {
				return err
			}
		}
		if _, err := dec.Token(); err != nil {
			return err
		}
		n.attributes()
	}
	return nil
}

// attributes takes what was an attribute, or the text beside one, out of the kids.
func (n *node) attributes() {
	kids := n.kids[:0]
	for _, k := range n.kids {
		switch {
		case k.name == "@class":
			n.class = k.text
		case k.name == "$":
			n.text = k.text
		case !strings.HasPrefix(k.name, "@"):
			kids = append(kids, k)
		}
	}
	n.kids = kids
}

// containers are the elements around channels.
var containers = []string{"", "list", "channel", "channels", "channelGroup", "channelGroups", "serverConfiguration"}
