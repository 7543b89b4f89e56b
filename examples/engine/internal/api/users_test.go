package api_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/users"
)

func TestAdminsManageUsers(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	admin := as(t, s, "admin")
	do := func(method, target, text string) (int, map[string]any) {
		w := request(s, method, target, admin, sendsJSON(text))
		if w.Body.Len() == 0 || !strings.HasPrefix(w.Body.String(), "{") {
			return w.Code, nil
		}
		return w.Code, body(t, w)
	}
	code, anna := do("POST", "/api/users", `{"username":"anna","password":"`+password+`","role":"viewer"}`)
	require.Equal(t, 201, code)
	assert.Equal(t, "viewer", anna["role"])
	url := fmt.Sprintf("/api/users/%v", anna["id"])
	session := as(t, s, "anna")
	for _, tt := range []struct {
		method, target, text string
		code                 int
	}{
		{"POST", "/api/users", `{"username":"Anna","password":"` + password + `","role":"viewer"}`, 409},
		{"POST", "/api/users", `{"username":"a b","password":"` + password + `","role":"viewer"}`, 400},
		{"POST", "/api/users", `{"username":"ben","password":"short","role":"viewer"}`, 400},
		{"POST", "/api/users", `{"username":"ben","password":"` + password + `","role":"root"}`, 400},
		{"POST", "/api/users", `{"username":7}`, 400},
		{"PUT", url, `{"role":"operator"}`, 200},
		{"PUT", url, `{"role":"root"}`, 400},
		{"PUT", "/api/users/99", `{"role":"viewer"}`, 404},
		{"PUT", "/api/users/x", `{"role":"viewer"}`, 404},
		{"PUT", "/api/users/1", `{"role":"viewer"}`, 409},
		{"DELETE", "/api/users/1", ``, 409},
		{"GET", "/api/users/99", ``, 404},
		{"GET", url, ``, 200},
		{"GET", "/api/users", ``, 200},
	} {
		code, _ := do(tt.method, tt.target, tt.text)
		assert.Equal(t, tt.code, code, "%s %s %s", tt.method, tt.target, tt.text)
	}
	assert.Equal(t, 401, request(s, "GET", "/api/users/current", session).Code, "another role begins with another session")
	session = as(t, s, "anna")
	w := request(s, "GET", "/api/users/current", session)
	assert.Equal(t, "operator", body(t, w)["role"])
	w = request(s, "GET", url+"/loggedIn", admin)
	assert.Equal(t, "true\n", w.Body.String())
	code, _ = do("DELETE", url, "")
	assert.Equal(t, 204, code)
	assert.Equal(t, 401, request(s, "GET", "/api/users/current", session).Code)
	assert.Equal(t, 401, login(s, "anna", password).Code)
}

func TestUserChangesTheirOwnPasswordAndAllTheirSessionsEnd(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	one, other, admin := as(t, s, "viewer"), as(t, s, "viewer"), as(t, s, "admin")
	change := func(id int, text string, who edit) int {
		return request(s, "PUT", fmt.Sprintf("/api/users/%d/password", id), who, sendsJSON(text)).Code
	}
	const viewer, operator = 3, 2 // as everybody makes them
	assert.Equal(t, 403, change(viewer, `{"password":"`+password+`2"}`, one), "a session alone is not enough")
	assert.Equal(t, 403, change(viewer, `{"password":"`+password+`2","currentPassword":"wrong"}`, one))
	assert.Equal(t, 400, change(viewer, `{"password":"short","currentPassword":"`+password+`"}`, one))
	assert.Equal(t, 400, change(viewer, `{"password":"`+password+`","currentPassword":"`+password+`"}`, one))
	assert.Equal(t, 403, change(operator, `{"password":"`+password+`2"}`, one), "nor anybody else's")
	assert.Equal(t, 403, request(s, "GET", "/api/users/2/loggedIn", one).Code)
	assert.Equal(t, 200, request(s, "GET", "/api/users/3/loggedIn", one).Code)

	assert.Equal(t, 204, change(viewer, `{"password":"`+password+`2","currentPassword":"`+password+`"}`, one))
	for _, session := range []edit{one, other} {
		assert.Equal(t, 401, request(s, "GET", "/api/users/current", session).Code)
	}
	assert.Equal(t, 401, login(s, "viewer", password).Code)
	assert.Equal(t, 200, login(s, "viewer", password+"2").Code)
	assert.Equal(t, 204, change(viewer, `{"password":"`+password+`3"}`, admin), "an admin may, for others")
	assert.Equal(t, 200, login(s, "viewer", password+"3").Code)
}

// Row 38.
func TestGeneratedPasswordIsGoodForChoosingAnotherAndForNothingElse(t *testing.T) {
	store, err := users.Open(filepath.Join(t.TempDir(), "users.json"), cheap)
	require.NoError(t, err)
	first, err := store.CreateFirst(t.Context())
	require.NoError(t, err)
	s := serve(t, &fake{}, api.Options{Users: store})
	w := login(s, "admin", first)
	require.Equal(t, 200, w.Code)
	assert.Equal(t, "SUCCESS_GRACE_PERIOD", body(t, w)["status"])
	admin := session(w.Header().Get("X-Session-ID"))
	allowed := map[string]bool{"GET /api/users/current": true, "PUT /api/users/{userId}/password": true, "POST /api/users/_logout": true}
	for _, line := range s.Table() {
		if name := line.Method + " " + line.Pattern; line.Least != "" && !allowed[name] {
			assert.Equal(t, 403, request(s, line.Method, wildcard.ReplaceAllString(line.Pattern, "1"), admin).Code, name)
		}
	}
	w = request(s, "PUT", "/api/users/1/password", admin, sendsJSON(`{"password":"`+password+`","currentPassword":"`+first+`"}`))
	require.Equal(t, 204, w.Code, "%s", w.Body)
	w = login(s, "admin", password)
	assert.Equal(t, "SUCCESS", body(t, w)["status"])
	assert.Equal(t, 200, request(s, "GET", "/api/channels", session(w.Header().Get("X-Session-ID"))).Code)
}

// Row 39.
func TestRequestsThatAreTooMuchOrNoJSONAreRefusedAndNever500(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	admin := as(t, s, "admin")
	for name, tt := range map[string]struct {
		text string
		code int
	}{
		"no JSON":      {`{"username":`, 400},
		"two values":   {`{} {}`, 400},
		"a wrong type": {`[]`, 400},
		"deep":         {strings.Repeat(`{"a":`, 100_000), 400},
		"too long":     {`{"username":"` + strings.Repeat("x", 1<<20) + `"}`, 413},
		"empty":        {``, 400},
		"not in UTF-8": {"{\"username\":\"\xff\"}", 400},
	} {
		w := request(s, "POST", "/api/users", admin, sendsJSON(tt.text))
		assert.Equal(t, tt.code, w.Code, name)
		assert.NotEmpty(t, body(t, w)["error"], name)
	}
	unread := &counter{Reader: strings.NewReader(strings.Repeat(" ", 2<<20))}
	w := request(s, "POST", "/api/users", admin, func(r *http.Request) { r.Body, r.ContentLength = unread, 2<<20 })
	assert.Equal(t, 413, w.Code)
	assert.Zero(t, unread.read, "it says so itself")
	unread = &counter{Reader: strings.NewReader(strings.Repeat(" ", 20<<20))}
	w = request(s, "POST", "/api/users", admin, header("Content-Type", "application/json"), func(r *http.Request) { r.Body, r.ContentLength = unread, -1 })
	assert.Equal(t, 413, w.Code)
	assert.Less(t, unread.read, 2<<20)
}

// counter is a body that counts what is read of it.
type counter struct {
	*strings.Reader

	read int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read += n
	return n, err
}

func (*counter) Close() error { return nil }

// Row 43.
func TestRequestIDIsEchoedIfItIsOneAndErrorsHoldNothingOfTheInside(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	for id, echoed := range map[string]bool{"abc-1_Z": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a b": false, "": false, "é": false} {
		got := request(s, "GET", "/health", header("X-Request-ID", id)).Header().Get("X-Request-ID")
		assert.NotEmpty(t, got)
		assert.Equal(t, echoed, got == id, id)
	}
	w := request(s, "GET", "/health")
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Strict-Transport-Security": ""} {
		assert.Equal(t, want, w.Header().Get(name), name)
	}

	dir := filepath.Join(t.TempDir(), "gone")
	store, err := users.Open(filepath.Join(dir, "users.json"), cheap)
	require.NoError(t, err)
	var log bytes.Buffer
	s = serve(t, &fake{}, api.Options{Users: store, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w = login(s, "anybody", password)
	assert.Equal(t, 503, w.Code)
	assert.NotContains(t, w.Body.String(), "gone")
	assert.Contains(t, log.String(), dir, "the log says it")
	assert.NotContains(t, log.String(), password)
}
