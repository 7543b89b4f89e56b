package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/examples/engine/internal/api"
)

// Metrics are for who has a session or the token, and everybody who tries another
// token is counted.
func TestMetricsNeedASessionOrTheToken(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	for name, tt := range map[string]struct {
		configured, header string
		code, refused      int
	}{
		"the token":                  {token, "Bearer " + token, 200, 0},
		"another":                    {token, "Bearer " + strings.ToUpper(token), 401, 1},
		"its beginning":              {token, "Bearer " + token[:16], 401, 1},
		"none, but the word":         {token, "Bearer ", 401, 1},
		"none where none is set":     {"", "Bearer ", 401, 1},
		"some where none is set":     {"", "Bearer " + token, 401, 1},
		"nothing":                    {token, "", 401, 0},
		"another scheme":             {token, "Basic " + token, 401, 0},
		"in the wrong letters' case": {token, "bearer " + token, 401, 0},
	} {
		t.Run(name, func(t *testing.T) {
			refused := 0
			s := serve(t, new(fake), api.Options{MetricsToken: tt.configured, Unauthenticated: func() { refused++ }})
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
			if tt.header != "" {
				r.Header.Set("Authorization", tt.header)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			assert.Equal(t, tt.code, w.Code)
			assert.Equal(t, tt.code == 200, strings.Contains(w.Body.String(), "carewire_up"))
			assert.Equal(t, tt.refused, refused)
		})
	}
}
