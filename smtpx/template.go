package smtpx

import (
	"errors"
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"
)

// Expand replaces each ${name} in text by vars[name], in one pass: what has been
// put in is not looked at again, whatever it holds. $${ stands for ${ itself. A
// name that vars does not have, or a ${ without its }, is an error, which holds
// neither text nor values.
//
// It serves settings as well, such as password: ${SMTP_PASSWORD}.
func Expand(text string, vars map[string]string) (string, error) {
	return expand(text, vars, func(s string) string { return s })
}

func expand(text string, vars map[string]string, escape func(string) string) (string, error) {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "${")
		if !found {
			out.WriteString(text)
			return out.String(), nil
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			out.WriteString(literal + "${")
			text = after
			continue
		}
		out.WriteString(before)
		name, rest, closed := strings.Cut(after, "}")
		if !closed {
			return "", errors.New("smtpx: a ${ without its }: close it, or write $${ for the two characters themselves")
		}
		value, known := vars[name]
		if !known {
			return "", fmt.Errorf("smtpx: ${%s} has no value", printableName(name))
		}
		out.WriteString(escape(value))
		text = rest
	}
}

// printableName returns name if it is the name of a variable, as far as can be
// told: what stands between braces by accident may be part of a message.
func printableName(name string) string {
	if name == "" || len(name) > 64 {
		return "…"
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if strings.Trim(name, letters) != "" {
		return "…"
	}
	return name
}

// Expand returns a copy of m with each ${name} in its texts replaced, as the
// function Expand does it: in all fields but the names of headers and the Data of
// attachments. In HTML a value stands for its characters, and cannot bring markup
// with it. In a Path it is what it is, so no message should choose what file is
// read. m is not changed.
//
// The values go through every check of Send: none can add a header or, since
// each address is one address, a recipient.
func (m *Message) Expand(vars map[string]string) (*Message, error) {
	var first error
	text := func(s string) string {
		out, err := Expand(s, vars)
		if err != nil && first == nil {
			first = err
		}
		return out
	}
	list := func(in []string) []string {
		out := slices.Clone(in)
		for i := range out {
			out[i] = text(out[i])
		}
		return out
	}
	c := *m
	c.From, c.EnvelopeFrom = text(m.From), text(m.EnvelopeFrom)
	c.To, c.Cc, c.Bcc, c.ReplyTo = list(m.To), list(m.Cc), list(m.Bcc), list(m.ReplyTo)
	c.Recipients = list(m.Recipients)
	c.Subject, c.Text, c.ID = text(m.Subject), text(m.Text), text(m.ID)
	c.Charset, c.Importance, c.DSN.ID = text(m.Charset), Importance(text(string(m.Importance))), text(m.DSN.ID)
	body, err := expand(m.HTML, vars, html.EscapeString)
	if err != nil && first == nil {
		first = err
	}
	c.HTML = body
	c.Headers = maps.Clone(m.Headers)
	for name, value := range c.Headers {
		c.Headers[name] = text(value)
	}
	c.Attachments = slices.Clone(m.Attachments)
	for i := range c.Attachments {
		a := &c.Attachments[i]
		a.Name, a.Path, a.ContentType, a.ContentID = text(a.Name), text(a.Path), text(a.ContentType), text(a.ContentID)
	}
	if first != nil {
		return nil, first
	}
	return &c, nil
}
