package api

import (
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/catalog"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// Catalog is what the API needs to change channels; see package catalog.
type Catalog interface {
	Put(ctx context.Context, data []byte, asJSON, override, force bool) error
	Replace(ctx context.Context, id string, data []byte, asJSON, force bool) error
	Remove(ctx context.Context, id string, force bool) error
	Text(id string) ([]byte, error)
}

// definitionTypes are in what a channel can be sent.
var definitionTypes = []string{typeYAML, typeJSON, "application/x-yaml", "text/yaml"}

// definitionSchema is of JSON. The keys are those of a channel in engine.yaml, which are
// checked, and described, there.
var definitionSchema = object{"type": "object", "required": []string{"id", "source"}, "properties": object{
	"id": object{"type": "string"}, "name": object{"type": "string"}, "source": object{"type": "object"},
	"destinations": object{"type": "array", "items": object{"type": "object"}},
}}

var changeErrors = []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict}

func (s *Server) changeRoutes() []route {
	return []route{
		{method: "POST", pattern: "/api/channels", access: admins, audit: "channel.create", handler: s.createChannel, body: definitionTypes, takes: definitionSchema, query: []param{flagParam("override"), flagParam("force")}, gives: true, code: http.StatusCreated, refuses: changeErrors, summary: "Make a channel, undeployed, of YAML or JSON with the keys of engine.yaml; override=true replaces one of the same id"},
		{method: "PUT", pattern: "/api/channels/{channelId}", access: admins, audit: "channel.update", handler: s.updateChannel, body: definitionTypes, takes: definitionSchema, query: []param{flagParam("force")}, gives: true, refuses: changeErrors, summary: "Replace a channel's settings; one that runs is restarted; force=true although messages wait for a destination that disappears"},
		{method: "DELETE", pattern: "/api/channels/{channelId}", access: admins, audit: "channel.remove", handler: s.removeChannel, query: []param{flagParam("force")}, refuses: []int{http.StatusNotFound, http.StatusConflict}, summary: "Remove a channel; force=true although messages wait"},
		{method: "GET", pattern: "/api/channels/{channelId}/definition", access: admins, audit: "channel.export", handler: s.channelText, plain: typeYAML, refuses: []int{http.StatusNotFound}, summary: "What a channel of the API was made of, in YAML"},
	}
}

// definition reads a channel from a request's body. Where that cannot be, it answers
// and returns false.
func (s *Server) definition(w http.ResponseWriter, r *http.Request) (data []byte, asJSON, ok bool) {
	if s.catalog == nil {
		conflict(w, "Channels cannot be changed over this API")
		return nil, false, false
	}
	data, err := io.ReadAll(r.Body)
	if err != nil {
		badBody(w, err)
		return nil, false, false
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // one of definitionTypes
	return data, kind == typeJSON, true
}

func (s *Server) createChannel(w http.ResponseWriter, r *http.Request) {
	data, asJSON, ok := s.definition(w, r)
	if !ok {
		return
	}
	override := r.URL.Query().Get("override") == "true"
	s.change(w, r, func(ctx context.Context) error { return s.catalog.Put(ctx, data, asJSON, override, forced(r)) }, http.StatusCreated, true)
}

func (s *Server) updateChannel(w http.ResponseWriter, r *http.Request) {
	data, asJSON, ok := s.definition(w, r)
	if !ok {
		return
	}
	s.change(w, r, func(ctx context.Context) error {
		return s.catalog.Replace(ctx, r.PathValue("channelId"), data, asJSON, forced(r))
	}, http.StatusOK, true)
}

func (s *Server) removeChannel(w http.ResponseWriter, r *http.Request) {
	if s.catalog == nil {
		conflict(w, "Channels cannot be changed over this API")
		return
	}
	s.change(w, r, func(ctx context.Context) error {
		return s.catalog.Remove(ctx, r.PathValue("channelId"), forced(r))
	}, http.StatusNoContent, nil)
}

func (s *Server) channelText(w http.ResponseWriter, r *http.Request) {
	if s.catalog == nil {
		notFound(w)
		return
	}
	text, err := s.catalog.Text(r.PathValue("channelId"))
	if errors.Is(err, catalog.ErrConfigured) {
		answer(w, http.StatusNotFound, failure{Error: "Channel not found", Message: "It belongs to engine.yaml"})
		return
	}
	if err != nil {
		s.changeFailed(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
	_, _ = w.Write(text) // the client has gone
}

func forced(r *http.Request) bool { return r.URL.Query().Get("force") == "true" }

// change makes a change, which a client that hangs up does not leave half done.
func (s *Server) change(w http.ResponseWriter, r *http.Request, make func(context.Context) error, code int, body any) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
	defer cancel()
	if forced(r) {
		note(ctx, "force", "true")
	}
	if err := make(ctx); err != nil {
		s.changeFailed(w, r, err)
		return
	}
	if body == nil {
		w.WriteHeader(code)
		return
	}
	answer(w, code, body)
}

func (s *Server) changeFailed(w http.ResponseWriter, r *http.Request, err error) {
	if found, ok := errors.AsType[config.LineErrors](err); ok {
		list := []mistake{}
		for _, m := range found {
			list = append(list, mistake{Line: m.Line, Key: m.Key, Text: strings.Join(strings.Fields(m.Text), " ")})
		}
		answer(w, http.StatusBadRequest, failure{Error: "Invalid channel", Mistakes: list})
		return
	}
	_, queued := errors.AsType[*engine.QueuedError](err)
	_, state := errors.AsType[*engine.StateError](err)
	_, port := errors.AsType[*net.OpError](err) // which another program has
	switch {
	case errors.Is(err, catalog.ErrExists):
		answer(w, http.StatusConflict, failure{Error: "Channel already exists"})
	case errors.Is(err, catalog.ErrUnknown):
		answer(w, http.StatusNotFound, failure{Error: "Channel not found"})
	case errors.Is(err, catalog.ErrOtherID):
		badRequest(w, err.Error())
	case errors.Is(err, catalog.ErrConfigured), errors.Is(err, engine.ErrTargets), queued, state, port:
		conflict(w, err.Error())
	default:
		// It may name paths of the server.
		s.log.ErrorContext(r.Context(), "channel cannot be changed", "err", err)
		answer(w, http.StatusInternalServerError, failure{Error: "Channel could not be changed", Message: "The engine's log says why"})
	}
}
