package api

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/tlsprops"
)

// ChannelCommands are what can be done to channels of an engine.
type ChannelCommands interface {
	StartChannel(ctx context.Context, id string) error
	StopChannel(ctx context.Context, id string) error
	PauseChannel(ctx context.Context, id string) error
	ResumeChannel(ctx context.Context, id string) error
	HaltChannel(ctx context.Context, id string) error
	DeployChannel(ctx context.Context, id string) error
	UndeployChannel(ctx context.Context, id string) error
	StartConnector(ctx context.Context, id string, number int) error
	StopConnector(ctx context.Context, id string, number int) error
}

// commands are what can be done to a channel, or to several at once.
func (s *Server) commands() map[string]func(context.Context, string) error {
	return map[string]func(context.Context, string) error{
		"start": s.engine.StartChannel, "stop": s.engine.StopChannel, "pause": s.engine.PauseChannel,
		"resume": s.engine.ResumeChannel, "halt": s.engine.HaltChannel,
		"deploy": s.engine.DeployChannel, "undeploy": s.engine.UndeployChannel,
	}
}

func (s *Server) commandRoutes() []route {
	const told = "; errors are told with returnErrors=true or X-Strict: true only"
	list := []route{{
		method: "POST", pattern: "/api/channels/_redeployAll", access: operators, audit: "channel.deploy",
		handler: s.redeployAll, query: []param{flagParam("returnErrors")}, refuses: commandErrors, summary: "Bring all channels into their initial states" + told,
	}}
	for name, run := range s.commands() {
		list = append(list, route{
			method: "POST", pattern: "/api/channels/{channelId}/_" + name, access: operators, audit: "channel." + name,
			handler: s.command(run), query: []param{flagParam("returnErrors")}, refuses: commandErrors, summary: title(name) + " a channel" + told,
		}, route{
			method: "POST", pattern: "/api/channels/_" + name, access: operators, audit: "channel." + name,
			handler: s.bulk(name, run), body: []string{typeJSON, typeForm, typeXML}, takes: chosenChannels{}, query: []param{flagParam("returnErrors")}, refuses: commandErrors, summary: title(name) + " the channels in the body" + told,
		})
	}
	for name, run := range map[string]func(context.Context, string, int) error{
		"start": s.engine.StartConnector, "stop": s.engine.StopConnector,
	} {
		list = append(list, route{
			method: "POST", pattern: "/api/channels/{channelId}/connector/{metaDataId}/_" + name, access: operators,
			audit: "connector." + name, handler: s.connectorCommand(run), query: []param{flagParam("returnErrors")}, refuses: commandErrors, summary: title(name) + " one connector of a channel" + told,
		}, route{
			method: "POST", pattern: "/api/channels/_" + name + "Connectors", access: operators, audit: "connector." + name,
			handler: s.connectorCommands(run), body: []string{typeJSON}, takes: []chosenConnector{}, query: []param{flagParam("returnErrors")}, refuses: commandErrors, summary: title(name) + " the connectors in the body" + told,
		})
	}
	return list
}

func title(word string) string { return strings.ToUpper(word[:1]) + word[1:] }

// commandTimeout bounds a command: a stop drains for less than this.
const commandTimeout = time.Minute

// run runs a command, which a client that hangs up does not leave half done, and
// answers.
func (s *Server) run(w http.ResponseWriter, r *http.Request, command func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commandTimeout)
	defer cancel()
	err := command(ctx)
	if err != nil {
		failed(ctx)
		s.log.WarnContext(ctx, "command failed", "command", r.Pattern, "err", err)
	}
	if err == nil || !tellsErrors(r) {
		w.WriteHeader(http.StatusNoContent) // as Mirth does, whatever happened
		return
	}
	commandFailed(w, err)
}

// tellsErrors tells whether a client wants to know what came of its command.
func tellsErrors(r *http.Request) bool {
	return r.URL.Query().Get("returnErrors") == "true" || strings.EqualFold(r.Header.Get("X-Strict"), "true")
}

// errCommand is a command that names nothing to do.
var errCommand = errors.New("name channels: {\"channelId\": [\"…\"]}, or channelId=… in a form; or connectors: [{\"channelId\": \"…\", \"metaDataId\": 1}]")

// commandErrors are the statuses of commandFailed but 500, and of a body that cannot be
// read.
var commandErrors = []int{http.StatusBadRequest, http.StatusNotFound}

func commandFailed(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, engine.ErrUnknownChannel), errors.Is(err, engine.ErrUnknownConnector):
		code = http.StatusNotFound
	case errors.Is(err, errCommand):
		code = http.StatusBadRequest
	}
	answer(w, code, failure{Error: commandError(err)})
}

// commandError is in the words that clients know, and has no paths of this server.
func commandError(err error) string {
	_, path := errors.AsType[*fs.PathError](err)
	_, setting := errors.AsType[*tlsprops.FieldError](err)
	if path || setting {
		return "Channel's files cannot be used: the engine's log says why"
	}
	return strings.ReplaceAll(err.Error(), engine.ErrUnknownChannel.Error(), "Channel not found")
}

func (s *Server) command(run func(context.Context, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.run(w, r, func(ctx context.Context) error { return run(ctx, r.PathValue("channelId")) })
	}
}

func (s *Server) connectorCommand(run func(context.Context, string, int) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.run(w, r, func(ctx context.Context) error {
			number, err := strconv.Atoi(r.PathValue("metaDataId"))
			if err != nil {
				number = -1 // which no connector has
			}
			return run(ctx, r.PathValue("channelId"), number)
		})
	}
}

// chosenConnector is one of those in the JSON of a command to several connectors.
type chosenConnector struct {
	ChannelID  string `json:"channelId"`
	MetaDataID int    `json:"metaDataId"`
}

// connectorCommands runs a command on the connectors in the body, one after the other:
// several may be of one channel. All are tried.
func (s *Server) connectorCommands(run func(context.Context, string, int) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var chosen []chosenConnector
		if !readJSON(w, r, &chosen) {
			return
		}
		var names []string
		for _, c := range chosen {
			names = append(names, c.ChannelID+"/"+strconv.Itoa(c.MetaDataID))
		}
		note(r.Context(), "connectors", brief(names))
		s.run(w, r, func(ctx context.Context) error {
			if len(chosen) == 0 {
				return errCommand
			}
			var errs []error
			for _, c := range chosen {
				errs = append(errs, run(ctx, c.ChannelID, c.MetaDataID))
			}
			return errors.Join(errs...)
		})
	}
}

// bulk runs a command on the channels in the body, all at once. An empty body means
// all channels for deploy and undeploy, as in Mirth, and nothing for others.
func (s *Server) bulk(name string, run func(context.Context, string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ids, err := channelIDs(r)
		if err != nil {
			badBody(w, err)
			return
		}
		if len(ids) == 0 && (name == "deploy" || name == "undeploy") {
			ids = s.allChannels()
		}
		note(r.Context(), "channelIds", brief(ids))
		s.run(w, r, func(ctx context.Context) error {
			if len(ids) == 0 {
				return errCommand
			}
			return onEach(ctx, ids, run)
		})
	}
}

// brief shows ids in the audit log, where a list has its bounds.
func brief(ids []string) string {
	const most = 1000
	text := strings.Join(ids, " ")
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

func (s *Server) redeployAll(w http.ResponseWriter, r *http.Request) {
	s.run(w, r, func(ctx context.Context) error { return onEach(ctx, s.allChannels(), s.engine.DeployChannel) })
}

func (s *Server) allChannels() []string {
	var ids []string
	for _, cfg := range s.engine.Channels() {
		ids = append(ids, cfg.ID)
	}
	return ids
}

// onEach runs a command on several channels side by side, so that they share a
// deadline rather than use it up one after the other.
func onEach(ctx context.Context, ids []string, run func(context.Context, string) error) error {
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { errs[i] = run(ctx, id) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// chosenChannels is the JSON of a command to several channels.
type chosenChannels struct {
	ChannelID []string `json:"channelId,omitempty"`
}

// channelIDs reads the ids in a body: JSON as {"channelId": [..]} or a list, XML as
// Mirth's <set><string>..</string></set>, or a form.
func channelIDs(r *http.Request) ([]string, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == "application/x-www-form-urlencoded" {
		if err := r.ParseForm(); err != nil {
			return nil, err
		}
		return r.PostForm["channelId"], nil
	}
	data, err := io.ReadAll(r.Body)
	if err != nil || len(strings.TrimSpace(string(data))) == 0 {
		return nil, err
	}
	if strings.HasSuffix(kind, "xml") {
		var set struct {
			IDs []string `xml:"string"`
		}
		err := xml.Unmarshal(data, &set) // which knows no entities but XML's own five
		return set.IDs, err
	}
	var list []string
	if json.Unmarshal(data, &list) == nil {
		return list, nil
	}
	var named chosenChannels
	err = json.Unmarshal(data, &named)
	return named.ChannelID, err
}
