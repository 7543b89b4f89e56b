package api

import (
	"net/http"
	"slices"

	"github.com/carewire/carewire/examples/engine/internal/users"
)

// access says who may use a route. The zero value lets in nobody: a route without
// a rule is closed, and a test fails for it besides.
type access string

const (
	// anyone needs no session. Such a route must not tell or do anything that
	// matters.
	anyone access = "anyone"
	// The least role, of a session.
	viewers   = access(users.Viewer)
	operators = access(users.Operator)
	admins    = access(users.Admin)
	// nodes are the other machines of the cluster, by package cluster's credentials
	// and without a session. Such a route is not there at all unless the engine has
	// a cluster secret.
	nodes access = "nodes"
)

// route is one line of the table that is the whole API: what is not in it does
// not exist, and what is in it cannot be had without its rule.
type route struct {
	method  string
	pattern string // as in http.ServeMux; its wildcards are in the audit log
	access  access
	// audit names the action in the audit log: "channel.stop". Empty: reading that
	// needs no record. The record is written before the handler is called, and
	// without it the handler is not.
	audit   string
	handler http.HandlerFunc

	// What follows is the OpenAPI description, and true of the handler: tests compare
	// every answer with it.

	summary string  // one line
	query   []param // that the handler looks at
	// body are the media types that it reads; others are refused before it. Nil: it
	// reads none.
	body  []string
	takes any // a value of the type that it reads JSON into, or a schema
	// gives is a value of the type of its answer, or a schema. Nil: there is none,
	// unless plain says that it is no JSON but of that media type.
	gives any
	plain string
	code  int // the status with that; 0: 200, or 204 where there is none
	// refuses are the statuses of its errors, beyond those of what stands before it;
	// also has those that come with something else than a failure.
	refuses []int
	also    map[int]any
	socket  bool // a WebSocket

	// maxBody bounds the request's body, in bytes. Zero: 1 MiB.
	maxBody int64
	// health is set for what PORT still serves when there is HTTPS.
	health bool
	// unlimited is set for what the limit of requests per minute leaves out.
	unlimited bool
	// page is set for the files of the page at /, which the description of the API
	// leaves out.
	page bool
	// untilChanged is set for what a user may do who must first choose a password.
	untilChanged bool
}

const defaultMaxBody = 1 << 20

// routes is the table, of the API and of the page's files. Each group stands beside its handlers.
func (s *Server) routes() []route {
	return slices.Concat(s.healthRoutes(), s.userRoutes(), s.channelRoutes(), s.eventRoutes(), s.serverRoutes(), s.backupRoutes(), s.socketRoutes(), s.metricsRoutes(), s.certificateRoutes(), s.pageRoutes())
}

// mount returns a handler for those of the routes that keep leaves.
func (s *Server) mount(keep func(*route) bool) http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		if keep(&r) && (r.access != nodes || s.cluster != nil) {
			mux.Handle(r.method+" "+r.pattern, s.protect(&r))
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { notFound(w) })
	return s.guard(mux)
}

// protect is everything that stands between a request and the handler of its route.
func (s *Server) protect(r *route) http.Handler {
	limit := r.maxBody
	if limit == 0 {
		limit = defaultMaxBody
	}
	next := typed(r, s.audited(r, r.handler))
	switch r.access {
	case anyone:
		next = s.sameOrigin(next)
	case nodes:
		// The credential is checked before anything of the body is read.
		return s.cluster.Handler(bounded(limit, next))
	case scrapers:
		next = s.scraping(r, next)
	default:
		next = s.authorized(r, next)
	}
	next = bounded(limit, next)
	if !r.unlimited {
		next = s.rateLimited(next)
	}
	return next
}

// bounded refuses a body that says it is too long before any of it is read, and
// ends the reading of one that turns out to be.
func bounded(limit int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > limit {
			w.Header().Set("Connection", "close")
			tooLarge(w)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		next.ServeHTTP(w, r)
	})
}
