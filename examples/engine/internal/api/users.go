package api

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/carewire/carewire/examples/engine/internal/users"
)

func (s *Server) userRoutes() []route {
	return []route{
		{method: "POST", pattern: "/api/users/_login", access: anyone, handler: s.login, body: []string{typeJSON, typeForm}, takes: loginBody{}, maxBody: 16 << 10, gives: loginStatus{}, refuses: []int{http.StatusBadRequest, http.StatusTooManyRequests, http.StatusServiceUnavailable}, also: map[int]any{http.StatusUnauthorized: loginStatus{}}, summary: "Sign in, by JSON or a form"},
		{method: "POST", pattern: "/api/users/_logout", access: viewers, audit: "user.logout", handler: s.logout, untilChanged: true, summary: "Sign out"},
		{method: "GET", pattern: "/api/users/current", access: viewers, handler: s.currentUser, gives: userBody{}, untilChanged: true, summary: "Who is signed in"},
		{method: "GET", pattern: "/api/users", access: admins, handler: s.listUsers, gives: []userBody{}, summary: "All users"},
		{method: "POST", pattern: "/api/users", access: admins, audit: "user.create", handler: s.createUser, body: []string{typeJSON}, takes: newUser{}, gives: userBody{}, code: http.StatusCreated, refuses: userErrors, summary: "Add a user"},
		{method: "GET", pattern: "/api/users/{userId}", access: admins, handler: s.getUser, gives: userBody{}, refuses: []int{http.StatusNotFound}, summary: "One user"},
		{method: "PUT", pattern: "/api/users/{userId}", access: admins, audit: "user.change", handler: s.changeUser, body: []string{typeJSON}, takes: newRole{}, gives: userBody{}, refuses: userErrors, summary: "Give a user another role; ends the user's sessions"},
		{method: "DELETE", pattern: "/api/users/{userId}", access: admins, audit: "user.delete", handler: s.deleteUser, refuses: userErrors, summary: "Remove a user"},
		{method: "PUT", pattern: "/api/users/{userId}/password", access: viewers, audit: "user.password", handler: s.setPassword, body: []string{typeJSON}, takes: newPassword{}, refuses: userErrors, untilChanged: true, summary: "Change a password: one's own, or as admin any; ends the user's sessions"},
		{method: "GET", pattern: "/api/users/{userId}/loggedIn", access: viewers, handler: s.loggedIn, gives: true, summary: "Whether a user has a session"},
	}
}

// What users are made and changed with.
type (
	newUser struct {
		Username string     `json:"username"`
		Password string     `json:"password"`
		Role     users.Role `json:"role"`
	}
	newRole struct {
		Role users.Role `json:"role"`
	}
	newPassword struct {
		Password        string `json:"password"`
		CurrentPassword string `json:"currentPassword,omitempty"` // where it is one's own
	}
)

// userBody is a user's JSON.
type userBody struct {
	ID                 int        `json:"id"`
	Username           string     `json:"username"`
	Role               users.Role `json:"role"`
	LastLogin          string     `json:"lastLogin,omitempty"`
	StrikeCount        int        `json:"strikeCount"`
	LockedUntil        string     `json:"lockedUntil,omitempty"`
	MustChangePassword bool       `json:"mustChangePassword,omitempty"`
	// Configured is set where the configuration file says role and password.
	Configured bool `json:"configured,omitempty"`
}

func describeUser(u users.User) userBody {
	body := userBody{
		ID: u.ID, Username: u.Name, Role: u.Role, StrikeCount: u.Failures, MustChangePassword: u.MustChange, Configured: u.Configured,
	}
	if !u.LastLogin.IsZero() {
		body.LastLogin = isoTime(u.LastLogin)
	}
	if !u.LockedUntil.IsZero() {
		body.LockedUntil = isoTime(u.LockedUntil)
	}
	return body
}

func (s *Server) currentUser(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, describeUser(exchangeOf(r.Context()).user))
}

func (s *Server) listUsers(w http.ResponseWriter, _ *http.Request) {
	list := []userBody{}
	for _, u := range s.users.List() {
		list = append(list, describeUser(u))
	}
	answer(w, http.StatusOK, list)
}

func (s *Server) createUser(w http.ResponseWriter, r *http.Request) {
	var body newUser
	if !readJSON(w, r, &body) {
		return
	}
	user, err := s.users.Create(r.Context(), body.Username, body.Password, body.Role)
	if err != nil {
		s.userFailure(w, r, err)
		return
	}
	note(r.Context(), "username", user.Name)
	note(r.Context(), "role", string(user.Role))
	answer(w, http.StatusCreated, describeUser(user))
}

func (s *Server) getUser(w http.ResponseWriter, r *http.Request) {
	user, err := s.users.Get(userID(r))
	if err != nil {
		s.userFailure(w, r, err)
		return
	}
	answer(w, http.StatusOK, describeUser(user))
}

func (s *Server) changeUser(w http.ResponseWriter, r *http.Request) {
	var body newRole
	if !readJSON(w, r, &body) {
		return
	}
	if err := s.users.SetRole(userID(r), body.Role); err != nil {
		s.userFailure(w, r, err)
		return
	}
	note(r.Context(), "role", string(body.Role))
	s.sessions.EndAllOf(userID(r)) // what is open may be what the role allowed
	s.getUser(w, r)
}

func (s *Server) deleteUser(w http.ResponseWriter, r *http.Request) {
	id := userID(r)
	if err := s.users.Delete(id); err != nil {
		s.userFailure(w, r, err)
		return
	}
	s.sessions.EndAllOf(id)
	w.WriteHeader(http.StatusNoContent)
}

// setPassword changes the caller's own password, for which the present one is
// needed: a session that somebody else got hold of must not be made to last. An
// admin may give another user a password.
func (s *Server) setPassword(w http.ResponseWriter, r *http.Request) {
	x, id := exchangeOf(r.Context()), userID(r)
	own := id == x.user.ID
	if !own && (x.user.Role != users.Admin || x.user.MustChange) {
		forbidden(w, "This needs the role "+string(users.Admin))
		return
	}
	var body newPassword
	if !readJSON(w, r, &body) {
		return
	}
	if own {
		switch _, err := s.users.Verify(r.Context(), x.user.Name, body.CurrentPassword); {
		case errors.Is(err, users.ErrRefused):
			forbidden(w, "currentPassword is wrong, or has been too often")
			return
		case err != nil:
			s.userFailure(w, r, err)
			return
		case body.Password == body.CurrentPassword:
			badRequest(w, "The new password is the present one")
			return
		}
	}
	if err := s.users.SetPassword(r.Context(), id, body.Password); err != nil {
		s.userFailure(w, r, err)
		return
	}
	s.sessions.EndAllOf(id)
	w.WriteHeader(http.StatusNoContent)
}

// loggedIn answers admins about all users and others about themselves.
func (s *Server) loggedIn(w http.ResponseWriter, r *http.Request) {
	x, id := exchangeOf(r.Context()), userID(r)
	if id != x.user.ID && x.user.Role != users.Admin {
		forbidden(w, "This needs the role "+string(users.Admin))
		return
	}
	answer(w, http.StatusOK, s.sessions.SignedIn(id))
}

// userID returns the ID in a request's path, or 0, which no user has.
func userID(r *http.Request) int {
	id, err := strconv.Atoi(r.PathValue("userId"))
	if err != nil {
		return 0
	}
	return id
}

// userErrors are the statuses of userFailure.
var userErrors = []int{http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable}

// userFailure answers what package users refuses.
func (s *Server) userFailure(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, users.ErrUnknown):
		notFound(w)
	case errors.Is(err, users.ErrName):
		badRequest(w, "A username has letters, digits and . _ - @ only, 64 at most")
	case errors.Is(err, users.ErrRole):
		badRequest(w, "The roles are admin, operator and viewer")
	case errors.Is(err, users.ErrWeakPassword):
		badRequest(w, "A password has "+strconv.Itoa(users.MinPassword)+" to 1024 bytes")
	case errors.Is(err, users.ErrExists):
		conflict(w, "There is a user of that name")
	case errors.Is(err, users.ErrConfigured):
		conflict(w, "This user is set in the configuration file: change it there")
	case errors.Is(err, users.ErrLastAdmin):
		conflict(w, "This is the last admin")
	case errors.Is(err, users.ErrBusy):
		unavailable(w, "Too many passwords are being checked: try again in a moment")
	default:
		s.log.ErrorContext(r.Context(), "users cannot be written", "request", exchangeOf(r.Context()).id, "err", err)
		unavailable(w, "Users cannot be written")
	}
}
