package api

import (
	"net/http"
	"strconv"
	"strings"
)

type object = map[string]any

// openAPI answers with the OpenAPI 3.1 description of the API, made of the table of
// routes: there is no second list to keep up to date.
func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	paths := make(object)
	for _, r := range s.routes() {
		if r.access == nodes && s.cluster == nil || r.page {
			continue
		}
		of, known := paths[r.pattern].(object)
		if !known {
			of = make(object)
			paths[r.pattern] = of
		}
		of[strings.ToLower(r.method)] = describeRoute(&r)
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
			"schemas": object{"Failure": object{
				"type": "object", "required": []string{"error"},
				"properties": object{"error": object{"type": "string"}, "message": object{"type": "string"}},
			}},
		},
	})
}

func describeRoute(r *route) object {
	op := object{"summary": r.summary, "responses": describeAnswers(r)}
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
	for _, name := range r.query {
		parameters = append(parameters, object{"name": name, "in": "query", "schema": object{"type": "string"}})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if r.body != nil {
		content := make(object)
		for _, kind := range r.body {
			content[kind] = object{}
		}
		op["requestBody"] = object{"content": content}
	}
	return op
}

// describeAnswers says which statuses a route may have.
func describeAnswers(r *route) object {
	failure := object{"application/json": object{"schema": object{"$ref": "#/components/schemas/Failure"}}}
	answers := object{}
	add := func(code int, content object) {
		described := object{"description": http.StatusText(code)}
		if content != nil {
			described["content"] = content
		}
		answers[strconv.Itoa(code)] = described
	}
	switch {
	case strings.HasPrefix(r.pattern, "/ws/"):
		add(http.StatusSwitchingProtocols, nil)
		add(http.StatusUpgradeRequired, nil)
	case r.plain:
		add(http.StatusOK, object{"text/plain": object{}})
	default:
		answers["2XX"] = object{"description": "Done"}
	}
	codes := []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable}
	if r.access != anyone {
		codes = append(codes, http.StatusUnauthorized, http.StatusForbidden)
	}
	if strings.Contains(r.pattern, "{") {
		codes = append(codes, http.StatusNotFound)
	}
	if r.method != http.MethodGet {
		codes = append(codes, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict, http.StatusRequestEntityTooLarge)
	}
	if r.query != nil {
		codes = append(codes, http.StatusBadRequest)
	}
	for _, code := range codes {
		add(code, failure)
	}
	return answers
}
