package meshclient

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Shape is the form of an answer that is an error.
type Shape string

// The shapes of errors. MESH's gateways answer what they like.
const (
	ShapeList       Shape = "list"       // version 2: {"detail":[{"event","code","msg"}]}
	ShapeSingle     Shape = "single"     // version 1: {"errorEvent","errorCode","errorDescription"}
	ShapeValidation Shape = "validation" // {"detail":[{"loc","msg","type"}]}
	ShapeMessage    Shape = "message"    // {"message"}
	ShapeHTML       Shape = "html"
	ShapeSOAP       Shape = "soap" // or any other XML
	ShapeEmpty      Shape = "empty"
	ShapeOther      Shape = "other" // text, JSON of another form, or what was cut off
)

const (
	maxErrorBody   = 64 << 10 // of which more is not read
	maxDescription = 4 << 10
	maxCode        = 40 // the longest that is known has 27
)

// A problem is what the body of an error says.
type problem struct {
	shape                 Shape
	code, event, text, id string
	aboutCertificate      bool
}

// errorBody is the union of the forms in JSON.
type errorBody struct {
	MessageID   string          `json:"message_id"`
	MessageIDv1 string          `json:"messageID"`
	Detail      json.RawMessage `json:"detail"`
	Event       string          `json:"errorEvent"`
	Code        json.RawMessage `json:"errorCode"`
	Description string          `json:"errorDescription"`
	Message     string          `json:"message"`
}

type errorDetail struct {
	Event string          `json:"event"`
	Code  json.RawMessage `json:"code"`
	Msg   string          `json:"msg"`
	Type  string          `json:"type"`
	Loc   json.RawMessage `json:"loc"`
}

// parseProblem makes what can be made of the body of an error. It is decided by
// what is there: the content type says what it likes.
func parseProblem(body []byte) problem {
	trimmed := bytes.TrimSpace(body)
	switch {
	case len(trimmed) == 0 || string(trimmed) == "null":
		return problem{shape: ShapeEmpty}
	case trimmed[0] == '<':
		return parseMarkup(trimmed)
	}
	p := problem{shape: ShapeOther, text: describe(trimmed)}
	var b errorBody
	if trimmed[0] != '{' || json.Unmarshal(trimmed, &b) != nil {
		return p
	}
	p.id = word(b.MessageID, maxID)
	if p.id == "" {
		p.id = word(b.MessageIDv1, maxID)
	}
	switch {
	case len(b.Detail) > 0 && b.Detail[0] == '[':
		parseDetail(&p, b.Detail)
	case len(b.Detail) > 0 && b.Detail[0] == '{':
		parseDetail(&p, append(append(json.RawMessage("["), b.Detail...), ']'))
	case len(b.Detail) > 0:
		var text string
		if json.Unmarshal(b.Detail, &text) == nil {
			p.shape, p.text = ShapeMessage, describe([]byte(text))
		}
	case b.Event != "" || b.Description != "" || scalar(b.Code) != "":
		p.shape, p.code, p.event, p.text = ShapeSingle, scalar(b.Code), word(b.Event, maxCode), describe([]byte(b.Description))
	case b.Message != "":
		p.shape, p.text = ShapeMessage, describe([]byte(b.Message))
	}
	return p
}

// parseDetail reads a list of details, of which the first with a code counts.
func parseDetail(p *problem, list json.RawMessage) {
	var details []errorDetail
	if json.Unmarshal(list, &details) != nil || len(details) == 0 {
		return
	}
	p.shape = ShapeList
	var texts []string
	for _, d := range details {
		if p.code == "" && p.event == "" {
			p.code, p.event = scalar(d.Code), word(d.Event, maxCode)
		}
		if len(d.Loc) > 0 && scalar(d.Code) == "" {
			p.shape = ShapeValidation
		}
		if d.Msg != "" {
			texts = append(texts, d.Msg)
		}
	}
	p.text = describe([]byte(strings.Join(texts, "; ")))
}

// parseMarkup reads a page or SOAP.
func parseMarkup(body []byte) problem {
	p := problem{shape: ShapeSOAP, text: describe(body)}
	lower := strings.ToLower(string(body[:min(len(body), maxDescription)]))
	if strings.Contains(lower, "<html") || strings.HasPrefix(lower, "<!doctype html") || strings.Contains(lower, "<body") {
		p.shape = ShapeHTML
		p.aboutCertificate = strings.Contains(lower, "certificate")
	}
	return p
}

// scalar returns a code, which some write as a number.
func scalar(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return word(s, maxCode)
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return word(n.String(), maxCode)
	}
	return ""
}

// word returns s if it is a word or a few: what is shown of an answer is not to
// be a place for anything else.
func word(s string, limit int) string {
	if len(s) > limit {
		return ""
	}
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == ' ', r == '.':
		default:
			return ""
		}
	}
	return s
}

// describe returns a text that is harmless to show on a screen.
func describe(b []byte) string {
	b = b[:min(len(b), maxDescription)]
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return ' '
		}
		return r
	}, string(b))
	return clip(clean, maxDescription)
}

// clip returns the first n bytes of s at most, with whole characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
