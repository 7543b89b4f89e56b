package api

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// The media types of the API.
const (
	typeJSON   = "application/json"
	typeText   = "text/plain"
	typeForm   = "application/x-www-form-urlencoded"
	typeXML    = "application/xml"
	typeYAML   = "application/yaml"
	typeBinary = "application/octet-stream"
	typeAny    = "*/*"
)

// typed refuses a body of a kind that a route does not read, and a client that would
// not understand the route's answer: one that wants XML, which Mirth has. What is plain
// text, or a message, is given to everybody, as are errors, and health, in JSON.
func typed(rule *route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case rule.gives != nil && !rule.health && !accepts(r.Header.Values("Accept"), typeJSON):
			answer(w, http.StatusNotAcceptable, failure{Error: "Not Acceptable", Message: "This is there as " + typeJSON + " only: say so in Accept, or leave it out"})
		case rule.body != nil && r.ContentLength != 0 && !rule.reads(r.Header.Get("Content-Type")):
			answer(w, http.StatusUnsupportedMediaType, failure{Error: "Unsupported Media Type", Message: "Send " + strings.Join(rule.body, " or ") + ", and say so in Content-Type"})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// reads tells whether a route reads bodies of a type.
func (r *route) reads(contentType string) bool {
	if slices.Contains(r.body, typeAny) {
		return true
	}
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && slices.Contains(r.body, kind)
}

// accepts tells whether the values of Accept take a type (RFC 9110, section 12.5.1).
// Without any, everything is taken. What cannot be read counts for nothing.
func accepts(values []string, kind string) bool {
	family, _, _ := strings.Cut(kind, "/")
	best, accepted, said := -1, false, false
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		said = true
		name, params, err := mime.ParseMediaType(item)
		if err != nil {
			continue
		}
		// The most exact range decides: a type can be left out of a range with q=0.
		exact := slices.Index([]string{typeAny, family + "/*", kind}, name)
		if exact > best {
			q, err := strconv.ParseFloat(params["q"], 64)
			best, accepted = exact, err != nil || q > 0
		}
	}
	return accepted || !said
}
