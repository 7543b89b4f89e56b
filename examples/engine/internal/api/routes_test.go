package api_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/examples/engine/internal/api"
	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/users"
)

var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// Row 40: a route without a rule fails here, and is closed besides.
func TestEveryRouteSaysWhoMayUseIt(t *testing.T) {
	s := serve(t, &fake{}, api.Options{})
	for _, line := range s.Table() {
		name := line.Method + " " + line.Pattern
		assert.True(t, line.Public || line.Cluster || line.Least.Valid(), "%s has no rule", name)
		assert.NotEmpty(t, line.Summary, name)
		assert.True(t, line.Public || line.Cluster || line.Method == http.MethodGet || line.Audit != "", "%s changes something and is not in the audit log", name)
		if line.Health {
			assert.True(t, line.Public && line.Method == http.MethodGet, name)
		}
	}
}

// Row 40: every route, every role, and no session.
func TestEveryRouteRefusesWhoHasLessThanItsRole(t *testing.T) {
	store := everybody(t)
	s := serve(t, &fake{state: engine.Started}, api.Options{Users: store})
	for i, line := range s.Table() {
		if line.Cluster {
			continue // see the tests of cluster dispatch
		}
		target := wildcard.ReplaceAllString(line.Pattern, "adt")
		call := func(edits ...edit) int {
			return request(s, line.Method, target, append(edits, from(fmt.Sprintf("10.0.0.%d", i)))...).Code
		}
		name := line.Method + " " + line.Pattern
		if !line.Public {
			assert.Equal(t, 401, call(), "%s without a session", name)
			assert.Equal(t, 401, call(session("made up")), "%s with a session that there is not", name)
			assert.Equal(t, 401, call(cookie("made up"), header("X-Requested-With", "test")), "%s with a cookie that is none", name)
		}
		for _, role := range []users.Role{users.Viewer, users.Operator, users.Admin} {
			if strings.HasPrefix(line.Pattern, "/ws/") {
				continue // see the tests of WebSockets
			}
			code := call(as(t, s, string(role), from(fmt.Sprintf("10.%d.0.%d", len(role), i))))
			switch {
			case line.Public:
			case role.Includes(line.Least):
				assert.NotEqual(t, 401, code, "%s as %s", name, role)
				if !strings.Contains(line.Pattern, "{userId}/") { // these tell one's own from others'
					assert.NotEqual(t, 403, code, "%s as %s", name, role)
				}
			default:
				assert.Equal(t, 403, code, "%s as %s", name, role)
			}
		}
	}
	assert.Len(t, store.List(), 3, "the empty requests changed nothing")
}

func TestPortWithoutTLSHasHealthAndNothingElse(t *testing.T) {
	s := serve(t, &fake{state: engine.Started}, api.Options{})
	s.SetPhase(api.Ready)
	operator := as(t, s, "operator")
	for _, line := range s.Table() {
		code := request(s.Health(), line.Method, wildcard.ReplaceAllString(line.Pattern, "adt"), operator).Code
		if line.Health {
			assert.Equal(t, 200, code, line.Pattern)
		} else {
			assert.Equal(t, 404, code, line.Pattern)
		}
	}
}
