package api

import (
	"errors"
	"mime"
	"net/http"

	"github.com/carewire/carewire/examples/engine/internal/audit"
	"github.com/carewire/carewire/examples/engine/internal/users"
)

const (
	sessionCookie = "JSESSIONID"
	sessionHeader = "X-Session-ID"
)

// authorized lets through who has a session and at least the route's role.
func (s *Server) authorized(rule *route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		id, byCookie := sessionID(r)
		if !s.identify(x, id) {
			if id != "" { // who presents nothing has only to sign in
				s.unauthenticated()
			}
			unauthorized(w)
			return
		}
		if byCookie {
			if why := s.forged(r); why != "" {
				forbidden(w, why)
				return
			}
		}
		switch {
		case x.user.MustChange && !rule.untilChanged:
			forbidden(w, "Choose a password of your own first: PUT /api/users/{id}/password")
		case !x.user.Role.Includes(users.Role(rule.access)):
			if rule.audit != "" {
				s.record(r.Context(), rule.audit, audit.Failure, map[string]string{"reason": "role"})
			}
			forbidden(w, "This needs the role "+string(rule.access))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// sessionID returns what a request presents. The header wins, whatever the cookie
// is: who sends it means it.
func sessionID(r *http.Request) (id string, byCookie bool) {
	if id := r.Header.Get(sessionHeader); id != "" {
		return id, false
	}
	if c, err := r.Cookie(sessionCookie); err == nil {
		return c.Value, true
	}
	return "", false
}

// identify notes whose session id is. The user is looked up each time: another
// role counts at once.
func (s *Server) identify(x *exchange, id string) bool {
	if s.users == nil || id == "" {
		return false
	}
	session, ok := s.sessions.Use(id)
	if !ok {
		return false
	}
	user, err := s.users.Get(session.User())
	if err != nil {
		return false
	}
	x.session, x.user = session, user
	return true
}

const actionLogin = "user.login"

// loginBody is what one signs in with.
type loginBody struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// loginStatus is Mirth's.
type loginStatus struct {
	Status          string `json:"status"`
	Message         string `json:"message"`
	UpdatedUsername string `json:"updatedUsername,omitempty"`
}

// login signs in. Its answer to a wrong password, a name that there is not and a
// user who is locked is the same.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	if !s.logins.admit(w, x.client) {
		answer(w, http.StatusTooManyRequests, failure{Error: "Too Many Requests", Message: "Too many login attempts. Please try again later."})
		return
	}
	name, password, ok := credentials(w, r)
	if !ok {
		return
	}
	refuse := func(message string) {
		answer(w, http.StatusUnauthorized, loginStatus{Status: "FAIL", Message: message})
	}
	if name == "" || password == "" {
		refuse("Username and password required")
		return
	}
	if s.users == nil {
		refuse("Invalid username or password")
		return
	}
	user, err := s.users.Verify(r.Context(), name, password)
	switch {
	case errors.Is(err, users.ErrRefused):
		// Of names that there are not none is kept: it may be a password in the wrong
		// field.
		x.user.Name, _ = s.users.Known(name)
		s.record(r.Context(), actionLogin, audit.Failure, nil)
		s.unauthenticated()
		refuse("Invalid username or password")
		return
	case errors.Is(err, users.ErrBusy):
		unavailable(w, "Too many users are signing in: try again in a moment")
		return
	case err != nil:
		s.log.ErrorContext(r.Context(), "nobody can sign in: users cannot be written", "request", x.id, "err", err)
		unavailable(w, "Users cannot be written")
		return
	}
	x.user = user
	if !s.record(r.Context(), actionLogin, audit.Success, nil) {
		unavailable(w, "The audit log cannot be written, and without it nobody signs in")
		return
	}
	// A new session for each sign-in: one that somebody planted is worth nothing.
	if old, _ := sessionID(r); old != "" {
		if session, ok := s.sessions.Use(old); ok {
			s.sessions.End(session)
		}
	}
	id, _ := s.sessions.Create(user.ID)
	s.setCookie(w, x, id, 0)
	w.Header().Set(sessionHeader, id)
	status := loginStatus{Status: "SUCCESS", Message: "Login successful", UpdatedUsername: user.Name}
	if user.MustChange {
		status.Status, status.Message = "SUCCESS_GRACE_PERIOD", "Login successful: now choose a password of your own"
	}
	answer(w, http.StatusOK, status)
}

// credentials reads name and password, in JSON or as a form.
func credentials(w http.ResponseWriter, r *http.Request) (name, password string, ok bool) {
	switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
	case typeJSON:
		var body loginBody
		ok = readJSON(w, r, &body)
		return body.Username, body.Password, ok
	default:
		if err := r.ParseForm(); err != nil {
			badBody(w, err)
			return "", "", false
		}
		// Not from the query, which ends up in the logs of proxies.
		return r.PostForm.Get("username"), r.PostForm.Get("password"), true
	}
}

func (s *Server) setCookie(w http.ResponseWriter, x *exchange, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: s.secureCookies || x.https,
	})
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	s.sessions.End(x.session)
	s.setCookie(w, x, "", -1)
	w.WriteHeader(http.StatusNoContent)
}
