package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/page"
)

// contract is an OpenAPI description, as far as answers can be compared with it.
type contract struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]schema }
}

type operation struct {
	Summary     string
	Responses   map[string]struct{ Content content }
	Security    []map[string]any
	Least       string `json:"x-least-role"`
	Parameters  []parameter
	RequestBody *struct{ Content content }
}

type content map[string]struct{ Schema *schema }

type parameter struct {
	Name, In string
	Required bool
	Schema   schema
}

// schema is a JSON schema, of the keywords that the description has and no others.
type schema struct {
	Ref        string            `json:"$ref"`
	Type       string            `json:"type"`
	Enum       []any             `json:"enum"`
	Items      *schema           `json:"items"`
	Properties map[string]schema `json:"properties"`
	Required   []string          `json:"required"`
	Others     *schema           `json:"additionalProperties"`
	Encoding   string            `json:"contentEncoding"`
	Minimum    *float64          `json:"minimum"`
	Maximum    *float64          `json:"maximum"`
}

// contracts are the descriptions of the servers of tests, and theirs are the tests.
var contracts, theirs sync.Map // of *api.Server

// contractOf returns what s says of itself.
func contractOf(t testing.TB, s *api.Server) *contract {
	t.Helper()
	if c, ok := contracts.Load(s); ok {
		return c.(*contract)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest("GET", "/api/openapi.json", nil))
	require.Equal(t, 200, w.Code)
	c := new(contract)
	dec := json.NewDecoder(w.Body)
	require.NoError(t, dec.Decode(c))
	contracts.Store(s, c)
	return c
}

// find returns the operation of a request; nil if there is none.
func (c *contract) find(method, path string) (*operation, string) {
	var found *operation
	var pattern string
	best := -1
	for p, of := range c.Paths {
		op, ok := of[strings.ToLower(method)]
		if score := match(p, path); ok && score > best {
			found, pattern, best = &op, p, score
		}
	}
	return found, pattern
}

// match tells how many parts of a path are as in the pattern; -1 if it does not match.
func match(pattern, path string) int {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return -1
	}
	score := 0
	for i, part := range want {
		switch {
		case part == got[i]:
			score++
		case !strings.HasPrefix(part, "{") || got[i] == "":
			return -1
		}
	}
	return score
}

// check compares an answer with what is described. What no route has is answered 404,
// in the same way as errors.
func (c *contract) check(r *http.Request, w *httptest.ResponseRecorder) error {
	op, _ := c.find(r.Method, r.URL.EscapedPath())
	if op == nil {
		if r.Method == http.MethodHead || r.Method == http.MethodOptions || w.Code == http.StatusNotFound || w.Code/100 == 3 || w.Code == http.StatusForbidden {
			return nil // CORS answers OPTIONS, ServeMux HEAD and paths that are not clean; a node is let in or not before there is a route
		}
		return fmt.Errorf("%d of a route that is not described", w.Code)
	}
	answer, ok := op.Responses[strconv.Itoa(w.Code)]
	if !ok {
		return fmt.Errorf("%d is not described: %s", w.Code, w.Body)
	}
	if len(answer.Content) == 0 {
		if w.Body.Len() > 0 {
			return fmt.Errorf("%d has a body: %s", w.Code, w.Body)
		}
		return nil
	}
	kind, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
	of, ok := answer.Content[kind]
	if !ok {
		return fmt.Errorf("%d with a body of type %q is not described", w.Code, kind)
	}
	if kind != "application/json" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	var value any
	if err := dec.Decode(&value); err != nil {
		return fmt.Errorf("%d is no JSON: %w", w.Code, err)
	}
	if of.Schema == nil {
		return fmt.Errorf("%d has JSON without a schema", w.Code)
	}
	if err := c.valid(of.Schema, value, "body"); err != nil {
		return fmt.Errorf("%d is not as described: %w", w.Code, err)
	}
	return nil
}

// valid compares a value with a schema. Properties that are not described are a mistake.
func (c *contract) valid(s *schema, v any, at string) error {
	fault := func(what string) error { return errors.New(at + " " + what) }
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		named, known := c.Components.Schemas[name]
		if !known {
			return fault("refers to nothing: " + s.Ref)
		}
		return c.valid(&named, v, at)
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		return fault("is none of the words")
	}
	switch v := v.(type) {
	case nil:
		if s.Type != "" {
			return fault("is null")
		}
	case string:
		if s.Type != "string" && s.Type != "" {
			return fault("is text")
		}
	case bool:
		if s.Type != "boolean" && s.Type != "" {
			return fault("is true or false")
		}
	case float64:
		if s.Type != "" && (s.Type != "integer" || v != math.Trunc(v)) {
			return fault("is a number")
		}
	case []any:
		if s.Type == "" {
			return nil
		}
		if s.Type != "array" {
			return fault("is a list")
		}
		for i, item := range v {
			if err := c.valid(s.Items, item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		if s.Type != "object" && s.Type != "" {
			return fault("is an object")
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fault("has no " + name)
			}
		}
		for name, value := range v {
			of, known := s.Properties[name]
			switch {
			case known:
			case s.Others != nil:
				of = *s.Others
			case s.Properties == nil:
				continue // any object
			default:
				return fault("has " + name + ", which is not described")
			}
			if err := c.valid(&of, value, at+"."+name); err != nil {
				return err
			}
		}
	}
	return nil
}

// hold fails the test if an answer is not what the server's description says. All
// answers that tests see come by here.
func hold(h http.Handler, r *http.Request, w *httptest.ResponseRecorder) {
	s, ok := h.(*api.Server)
	if site, is := h.(*site); is {
		s, ok = site.Server, true
	}
	t, known := theirs.Load(s)
	ofPage := r.URL.Path == "/" || slices.Contains(page.Paths(), r.URL.Path) // which is no part of the API
	if !ok || !known || ofPage {
		return
	}
	if err := contractOf(t.(*testing.T), s).check(r, w); err != nil {
		assert.Fail(t.(*testing.T), "not as the API describes it", "%s %.200s: %v", r.Method, r.URL, err)
	}
}

// The test of the tests: what is not as described is noticed.
func TestAnswersThatAreNotAsDescribedAreNoticed(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	c := contractOf(t, s)
	r := httptest.NewRequest("GET", "/api/users/current", nil)
	for text, good := range map[string]bool{
		`{"id": 1, "username": "x", "role": "admin", "strikeCount": 0}`:                true,
		`{"id": "1", "username": "x", "role": "admin", "strikeCount": 0}`:              false,
		`{"id": 1.5, "username": "x", "role": "admin", "strikeCount": 0}`:              false,
		`{"id": 1, "username": "x", "role": "god", "strikeCount": 0}`:                  false,
		`{"id": 1, "username": null, "role": "admin", "strikeCount": 0}`:               false,
		`{"id": 1, "role": "admin", "strikeCount": 0}`:                                 false,
		`{"id": 1, "username": "x", "role": "admin", "strikeCount": 0, "hash": "..."}`: false,
		`[]`: false, `nothing`: false, ``: false,
	} {
		for code, described := range map[int]bool{200: true, 404: false, 502: false} {
			w := httptest.NewRecorder()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			w.WriteString(text)
			assert.Equal(t, good && described, c.check(r, w) == nil, "%d %s", code, text)
		}
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "text/plain")
		w.WriteString(text)
		require.Error(t, c.check(r, w))
	}
}
