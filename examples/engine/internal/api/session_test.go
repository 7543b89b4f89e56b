package api_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/engine"
)

func TestLoginAnswersAsMirthDoes(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	for _, tt := range []struct {
		name, contentType, body string
		code                    int
		want                    string
	}{
		{
			"JSON", "application/json", `{"username":"admin","password":"` + password + `"}`, 200,
			`{"status":"SUCCESS","message":"Login successful","updatedUsername":"admin"}`,
		},
		{
			"form", "application/x-www-form-urlencoded", "username=ADMIN&password=correct+horse+battery", 200,
			`{"status":"SUCCESS","message":"Login successful","updatedUsername":"admin"}`,
		},
		{"wrong password", "application/json", `{"username":"admin","password":"x"}`, 401, `{"status":"FAIL","message":"Invalid username or password"}`},
		{"no such user", "application/json", `{"username":"nobody","password":"x"}`, 401, `{"status":"FAIL","message":"Invalid username or password"}`},
		{"empty", "application/json", `{}`, 401, `{"status":"FAIL","message":"Username and password required"}`},
		{"nothing", "", "", 401, `{"status":"FAIL","message":"Username and password required"}`},
		{"no JSON", "application/json", `{"username":`, 400, ""},
		{"too long", "application/json", `{"username":"` + strings.Repeat("a", 17<<10) + `"}`, 413, ""},
	} {
		w := request(s, "POST", "/api/users/_login", sends(tt.contentType, tt.body))
		assert.Equal(t, tt.code, w.Code, tt.name)
		if tt.want != "" {
			assert.JSONEq(t, tt.want, w.Body.String(), tt.name)
		}
		assert.Equal(t, tt.code == 200, w.Header().Get("X-Session-ID") != "", tt.name)
		assert.Equal(t, tt.code == 200, w.Header().Get("Set-Cookie") != "", tt.name)
	}
	w := request(s, "POST", "/api/users/_login?username=admin&password=correct+horse+battery", sends("application/x-www-form-urlencoded", ""), from("10.9.9.9"))
	assert.Equal(t, 401, w.Code, "what is in a URL ends up in logs")
}

// Row 33: the cookie, and when it is Secure.
func TestCookieIsSecureWhereverHTTPSIsKnown(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for name, tt := range map[string]struct {
		opts   api.Options
		edits  []edit
		secure bool
	}{
		"plain":                        {secure: false},
		"TLS_ENABLED":                  {opts: api.Options{SecureCookies: true}, secure: true},
		"a trusted proxy says so":      {opts: api.Options{TrustedProxies: trusted}, edits: []edit{header("X-Forwarded-Proto", "https")}, secure: true},
		"a trusted proxy says http":    {opts: api.Options{TrustedProxies: trusted}, edits: []edit{header("X-Forwarded-Proto", "http")}},
		"its client says https":        {opts: api.Options{TrustedProxies: trusted}, edits: []edit{header("X-Forwarded-Proto", "https, http")}},
		"somebody says so":             {edits: []edit{header("X-Forwarded-Proto", "https")}},
		"somebody else than the proxy": {opts: api.Options{TrustedProxies: trusted}, edits: []edit{from("10.0.0.1"), header("X-Forwarded-Proto", "https")}},
	} {
		s := serve(t, &fake{}, tt.opts)
		w := login(s, "admin", password, tt.edits...)
		require.Equal(t, 200, w.Code, name)
		want := "JSESSIONID=" + w.Header().Get("X-Session-ID") + "; Path=/; HttpOnly"
		if tt.secure {
			want += "; Secure"
		}
		assert.Equal(t, want+"; SameSite=Strict", w.Header().Get("Set-Cookie"), name)
		assert.Equal(t, tt.secure && name != "TLS_ENABLED", w.Header().Get("Strict-Transport-Security") != "", name)
	}
}

func TestSessionIsPresentedByHeaderOrCookieAndTheHeaderWins(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	id := login(s, "viewer", password).Header().Get("X-Session-ID")
	current := func(edits ...edit) int { return request(s, "GET", "/api/users/current", edits...).Code }
	assert.Equal(t, 200, current(session(id)))
	assert.Equal(t, 200, current(cookie(id)))
	assert.Equal(t, 200, current(session(id), cookie("stale")))
	assert.Equal(t, 401, current(session("stale"), cookie(id)))
	assert.Equal(t, 401, current())
	w := request(s, "GET", "/api/users/current", session(id))
	assert.Equal(t, "viewer", body(t, w)["username"])
	assert.NotContains(t, w.Body.String(), "argon2")
	w = request(s, "GET", "/api/users/current")
	assert.JSONEq(t, `{"error":"Unauthorized","message":"Authentication required"}`, w.Body.String())
}

func TestLogoutEndsTheSession(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	one, other := as(t, s, "viewer"), as(t, s, "viewer")
	w := request(s, "POST", "/api/users/_logout", one)
	assert.Equal(t, 204, w.Code)
	assert.Contains(t, w.Header().Get("Set-Cookie"), "JSESSIONID=; Path=/; Max-Age=0")
	assert.Equal(t, 401, request(s, "GET", "/api/users/current", one).Code)
	assert.Equal(t, 200, request(s, "GET", "/api/users/current", other).Code)
}

// Row 33: fixation.
func TestEachLoginHasASessionOfItsOwnAndEndsTheOneBefore(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	planted := login(s, "viewer", password).Header().Get("X-Session-ID")
	w := login(s, "admin", password, cookie(planted))
	require.Equal(t, 200, w.Code)
	assert.NotEqual(t, planted, w.Header().Get("X-Session-ID"))
	assert.Equal(t, 401, request(s, "GET", "/api/users/current", session(planted)).Code)
}

// Row 33: idle and absolute ends.
func TestSessionEndsWhenItIsNotUsedAndAtTheLatestAfterTwelveHours(t *testing.T) {
	store := everybody(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := api.New(&fake{}, api.Options{Audit: new(notebook), Users: store})
		require.NoError(t, err)
		defer s.Close()
		viewer := as(t, s, "viewer")
		current := func() int { return request(s, "GET", "/api/users/current", viewer).Code }
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		assert.Equal(t, 401, current())
		viewer = as(t, s, "viewer")
		for range 12*60/20 - 1 {
			time.Sleep(20 * time.Minute)
			assert.Equal(t, 200, current())
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		assert.Equal(t, 401, current())
	})
}

// Row 34.
func TestOtherSitesCannotUseABrowsersSession(t *testing.T) {
	const stop = "/api/channels/adt/_stop"
	ours := header("X-Requested-With", "XMLHttpRequest")
	for name, edits := range map[string][]edit{
		"a form, which sets no header": nil,
		"form of another site":         {ours, header("Sec-Fetch-Site", "cross-site")},
		"page of a sister site":        {ours, header("Sec-Fetch-Site", "same-site")},
		"foreign origin":               {ours, header("Origin", "https://evil.example.org")},
		"other port":                   {ours, header("Origin", "http://localhost:9999")},
		"opaque origin":                {ours, header("Origin", "null")},
	} {
		f := &fake{state: engine.Started}
		s := serve(t, f, api.Options{})
		id := login(s, "operator", password).Header().Get("X-Session-ID")
		w := request(s, "POST", stop, append(edits, cookie(id))...)
		assert.Equal(t, 403, w.Code, name)
		assert.Equal(t, "Forbidden", body(t, w)["error"], name)
		assert.Empty(t, f.calls, name)
		w = request(s, "POST", stop, append(edits, session(id))...)
		assert.Equal(t, 204, w.Code, "%s, by header: no page can set that of another's session", name)
	}
	for name, edits := range map[string][]edit{
		"a program":       {ours},
		"own page":        {ours, header("Sec-Fetch-Site", "same-origin"), header("Origin", "http://localhost:8080")},
		"through a proxy": {ours, header("Sec-Fetch-Site", "same-origin"), header("Origin", "https://mirth.example.com"), func(r *http.Request) { r.Host = "mirth.example.com" }},
	} {
		f := &fake{state: engine.Started}
		s := serve(t, f, api.Options{})
		id := login(s, "operator", password).Header().Get("X-Session-ID")
		assert.Equal(t, 204, request(s, "POST", stop, append(edits, cookie(id))...).Code, name)
		assert.Len(t, f.calls, 1, name)
	}
	s := serve(t, &fake{}, api.Options{})
	assert.Equal(t, 403, login(s, "admin", password, header("Sec-Fetch-Site", "cross-site")).Code, "nor sign it in as somebody else")
}

// Row 35.
func TestPagesOfOtherOriginsReadNothingUnlessTheirOriginIsNamed(t *testing.T) {
	const friend = "https://dashboard.example.org"
	preflight := []edit{header("Origin", friend), header("Access-Control-Request-Method", "POST")}
	s := serve(t, &fake{}, api.Options{})
	for _, w := range []http.Header{
		request(s, "GET", "/health", header("Origin", friend)).Header(),
		request(s, "OPTIONS", "/api/channels", preflight...).Header(),
	} {
		for name := range w {
			assert.False(t, strings.HasPrefix(name, "Access-Control-"), name)
		}
	}

	f := &fake{state: engine.Started}
	s = serve(t, f, api.Options{Origins: []string{friend}})
	w := request(s, "OPTIONS", "/api/channels/adt/_stop", preflight...)
	assert.Equal(t, 204, w.Code)
	assert.Equal(t, friend, w.Header().Get("Access-Control-Allow-Origin"))
	assert.Contains(t, w.Header().Get("Access-Control-Allow-Headers"), "X-Session-ID")
	assert.Equal(t, "Origin", w.Header().Get("Vary"))
	assert.Empty(t, f.calls)
	id := login(s, "operator", password, header("Origin", friend), header("Sec-Fetch-Site", "cross-site")).Header().Get("X-Session-ID")
	w = request(s, "POST", "/api/channels/adt/_stop", cookie(id), header("X-Requested-With", "x"), header("Origin", friend), header("Sec-Fetch-Site", "cross-site"))
	assert.Equal(t, 204, w.Code)
	w = request(s, "GET", "/api/channels", session(id), header("Origin", "https://evil.example.org"))
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
	_, err := api.New(f, api.Options{Origins: []string{"*"}})
	assert.Error(t, err)
}

// Row 37: ten a minute and address, whoever the proxy is.
func TestLoginIsLimitedByAddress(t *testing.T) {
	store := everybody(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := api.New(&fake{}, api.Options{Audit: new(notebook), Users: store, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}})
		require.NoError(t, err)
		defer s.Close()
		for i := range 10 {
			w := login(s, "nobody", "x", from("192.0.2.1"))
			assert.Equal(t, 401, w.Code)
			assert.Equal(t, fmt.Sprint(9-i), w.Header().Get("RateLimit-Remaining"))
		}
		w := login(s, "admin", password, from("192.0.2.1"))
		assert.Equal(t, 429, w.Code)
		assert.JSONEq(t, `{"error":"Too Many Requests","message":"Too many login attempts. Please try again later."}`, w.Body.String())
		assert.Equal(t, "10;w=60", w.Header().Get("RateLimit-Policy"))
		assert.Equal(t, "60", w.Header().Get("Retry-After"))

		forwarded := header("X-Forwarded-For", "198.51.100.7, 192.0.2.1")
		assert.Equal(t, 429, login(s, "admin", password, from("10.0.0.5"), forwarded).Code, "the trusted proxy says it is the same")
		assert.Equal(t, 200, login(s, "admin", password, from("192.0.2.2"), forwarded).Code, "what anybody may say counts for nothing")
		assert.Equal(t, 200, login(s, "admin", password, from("10.0.0.5"), header("X-Forwarded-For", "192.0.2.3, 10.0.0.9")).Code)
		time.Sleep(time.Minute)
		assert.Equal(t, 200, login(s, "admin", password, from("192.0.2.1")).Code)
	})
}

func TestRequestsAreLimitedByAddressOtherThanHealth(t *testing.T) {
	store := everybody(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := api.New(&fake{}, api.Options{Audit: new(notebook), Users: store, RequestLimit: 3})
		require.NoError(t, err)
		defer s.Close()
		channels := func(addr string) int {
			return request(s, "GET", "/api/channels", func(r *http.Request) { r.RemoteAddr = addr }).Code
		}
		for range 3 {
			assert.Equal(t, 401, channels("[2001:db8::1]:1"))
		}
		assert.Equal(t, 429, channels("[2001:db8::2]:1"), "who has one address has the whole network")
		assert.Equal(t, 401, channels("[2001:db8:1::2]:1"))
		for range 10 {
			assert.Equal(t, 503, request(s, "GET", "/api/health", func(r *http.Request) { r.RemoteAddr = "[2001:db8::1]:1" }).Code)
		}
		time.Sleep(time.Minute)
		assert.Equal(t, 401, channels("[2001:db8::2]:1"))
	})
}
