package httpsender_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
)

func TestRedirects(t *testing.T) {
	for name, c := range map[string]struct {
		policy   httpsender.Redirects
		method   string
		status   int
		location string
		followed bool
	}{
		"are not followed by default":           {"", "GET", 302, "/end", false},
		"are followed to the same origin":       {"same-origin", "GET", 302, "/end", true},
		"with 301":                              {"same-origin", "GET", 301, origin + "/end", true},
		"with 303":                              {"same-origin", "GET", 303, "end", true},
		"with 307":                              {"same-origin", "GET", 307, "/end", true},
		"of HEAD":                               {"same-origin", "HEAD", 308, "/end", true},
		"of POST with 307, with its body":       {"same-origin", "POST", 307, "/end", true},
		"of POST with 308, with its body":       {"same-origin", "POST", 308, "/end", true},
		"of POST with 301 are not":              {"same-origin", "POST", 301, "/end", false},
		"of POST with 302 are not":              {"same-origin", "POST", 302, "/end", false},
		"of PUT with 303 are not":               {"same-origin", "PUT", 303, "/end", false},
		"to another host are not":               {"same-origin", "GET", 302, "http://evil.example/end", false},
		"nor to a host that looks the same":     {"same-origin", "GET", 302, "http://mem.example@evil.example/end", false},
		"nor without a scheme":                  {"same-origin", "GET", 302, "//evil.example/end", false},
		"nor to another port":                   {"same-origin", "GET", 302, "http://mem.example:8080/end", false},
		"nor to another scheme":                 {"same-origin", "GET", 302, "https://mem.example/end", false},
		"nor to nowhere":                        {"same-origin", "GET", 302, "", false},
		"nor to what is no URL":                 {"same-origin", "GET", 302, "http://[::1/end", false},
		"nor of what is not to be redirected":   {"same-origin", "GET", 300, "/end", false},
		"but to the same host in other letters": {"same-origin", "GET", 302, "http://MEM.example/end", true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				attempts := 0
				s := &httpsender.Sender{
					Redirects: c.policy,
					Auth:      httpsender.Auth{Scheme: "basic", Username: "u", Password: "p"}, AllowPlaintextAuth: true,
					BeforeAttempt: func(*http.Request) error { attempts++; return nil },
				}
				handled(t, s, func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					if r.URL.Path != "/end" {
						w.Header()["Location"] = []string{c.location}
						w.WriteHeader(c.status)
						return
					}
					user, _, _ := r.BasicAuth()
					w.Header().Set("X-Got", fmt.Sprintf("%s %s by %s", r.Method, body, user))
				})
				resp, err := s.Do(request(t, c.method, origin+"/start?q=1", text("b")))
				require.NoError(t, err)
				resp.Body.Close()
				if !c.followed {
					assert.Equal(t, c.status, resp.StatusCode)
					assert.Equal(t, 1, attempts)
					return
				}
				assert.Equal(t, 200, resp.StatusCode)
				assert.Equal(t, c.method+" b by u", resp.Header.Get("X-Got"))
				assert.Equal(t, 2, attempts)
			})
		})
	}
}

func TestRedirectsEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{Redirects: httpsender.RedirectsSameOrigin}
		served := 0
		handled(t, s, func(w http.ResponseWriter, r *http.Request) {
			served++
			http.Redirect(w, r, "/again", http.StatusFound)
		})
		status, _, err := exchange(s, request(t, "GET", origin, nil))
		require.NoError(t, err)
		assert.Equal(t, http.StatusFound, status)
		assert.Equal(t, 6, served)
	})
}
