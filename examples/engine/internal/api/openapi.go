package api

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

type object = map[string]any

// openAPI answers with the OpenAPI 3.1 description of the API, made of the table of
// routes: there is no second list to keep up to date.
func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	paths, defined := make(object), &schemas{named: make(object)}
	for _, r := range s.routes() {
		if r.access == nodes && s.cluster == nil || r.page {
			continue
		}
		of, known := paths[r.pattern].(object)
		if !known {
			of = make(object)
			paths[r.pattern] = of
		}
		of[strings.ToLower(r.method)] = describeRoute(&r, defined)
	}
	answer(w, http.StatusOK, object{
		"openapi": "3.1.0",
		"info":    object{"title": "carewire engine", "version": mirthVersion},
		"paths":   paths,
		"components": object{
			"securitySchemes": object{
				"cookie":  object{"type": "apiKey", "in": "cookie", "name": sessionCookie},
				"header":  object{"type": "apiKey", "in": "header", "name": sessionHeader},
				"metrics": object{"type": "http", "scheme": "bearer"},
				"cluster": object{"type": "apiKey", "in": "header", "name": "X-Cluster-Secret"},
			},
			"schemas": defined.named,
		},
	})
}

func describeRoute(r *route, defined *schemas) object {
	op := object{"summary": r.summary, "responses": describeAnswers(r, defined)}
	switch r.access {
	case anyone:
		op["security"] = []object{}
	case nodes:
		op["security"] = []object{{"cluster": []string{}}}
	case scrapers:
		op["security"] = []object{{"cookie": []string{}}, {"header": []string{}}, {"metrics": []string{}}}
		op["x-least-role"] = string(viewers)
	default:
		op["security"] = []object{{"cookie": []string{}}, {"header": []string{}}}
		op["x-least-role"] = string(r.access)
	}
	if r.audit != "" {
		op["x-audit"] = r.audit
	}
	var parameters []object
	for _, m := range wildcard.FindAllStringSubmatch(r.pattern, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range r.query {
		parameters = append(parameters, object{"name": p.name, "in": "query", "schema": p.schema})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if r.body != nil {
		op["requestBody"] = object{"content": describeBody(r, defined)}
	}
	return op
}

// describeBody says what a body may be. Only of JSON and of forms, which have the same
// names, there is a schema; other kinds are taken as they are or described in the
// documentation.
func describeBody(r *route, defined *schemas) object {
	content := make(object)
	for _, kind := range r.body {
		described := object{}
		if r.takes != nil && (kind == typeJSON || kind == typeForm) {
			described["schema"] = defined.of(r.takes)
		}
		content[kind] = described
	}
	return content
}

// describeAnswers says which statuses a route may have, and what comes with each.
func describeAnswers(r *route, defined *schemas) object {
	answers := object{}
	add := func(code int, kinds []string, schema object) {
		described := object{"description": http.StatusText(code)}
		content := object{}
		for _, kind := range kinds {
			content[kind] = object{}
			if kind == typeJSON && schema != nil {
				content[kind] = object{"schema": schema}
			}
		}
		if len(content) > 0 {
			described["content"] = content
		}
		answers[strconv.Itoa(code)] = described
	}
	refusal, kinds := defined.of(failure{}), []string{typeJSON}
	if r.socket {
		kinds = []string{typeJSON, typeText} // what is no handshake is answered by package websocket
	}
	for _, code := range slices.Concat(r.refuses, r.guards()) {
		add(code, kinds, refusal)
	}
	switch {
	case r.plain != "":
		add(http.StatusOK, []string{r.plain}, nil)
	case r.gives == nil:
		add(r.success(), nil, nil)
	default:
		add(r.success(), []string{typeJSON}, defined.of(r.gives))
	}
	for _, code := range slices.Sorted(maps.Keys(r.also)) {
		add(code, []string{typeJSON}, defined.of(r.also[code]))
	}
	return answers
}

// guards are the statuses of what stands in front of the handler.
func (r *route) guards() []int {
	codes := []int{http.StatusInternalServerError, http.StatusRequestEntityTooLarge}
	if !r.unlimited {
		codes = append(codes, http.StatusTooManyRequests)
	}
	if r.access != anyone {
		codes = append(codes, http.StatusForbidden)
	}
	if r.access != anyone && r.access != nodes {
		codes = append(codes, http.StatusUnauthorized)
	}
	if r.access == anyone && r.method != http.MethodGet {
		codes = append(codes, http.StatusForbidden)
	}
	if r.body != nil {
		codes = append(codes, http.StatusUnsupportedMediaType)
	}
	if r.gives != nil && !r.health {
		codes = append(codes, http.StatusNotAcceptable)
	}
	if r.audit != "" {
		codes = append(codes, http.StatusServiceUnavailable)
	}
	return codes
}

// success is the status of an answer to what went well.
func (r *route) success() int {
	switch {
	case r.code != 0:
		return r.code
	case r.gives == nil && r.plain == "":
		return http.StatusNoContent
	default:
		return http.StatusOK
	}
}

// param is a parameter of a query.
type param struct {
	name   string
	schema object
}

func textParam(name string) param { return param{name, object{"type": "string"}} }

// flagParam is set by true, and by nothing else.
func flagParam(name string) param { return param{name, object{"type": "boolean"}} }

func numberParam(name string, least, most int64) param {
	return param{name, object{"type": "integer", "minimum": least, "maximum": most}}
}

func wordParam(name string, words ...string) param {
	return param{name, object{"type": "string", "enum": words}}
}

// listParam may come several times.
func listParam(name string) param {
	return param{name, object{"type": "array", "items": object{"type": "string"}}}
}
