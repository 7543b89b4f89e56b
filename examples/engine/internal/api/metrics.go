package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// scrapers may read metrics: who has a session, as it is, or presents the token that
// the operator has set, which is how programs do.
const scrapers access = "scrapers"

func (s *Server) metricsRoutes() []route {
	if s.metrics == nil {
		return nil
	}
	return []route{{
		method: "GET", pattern: "/metrics", access: scrapers, plain: typeText, handler: s.metrics.ServeHTTP,
		summary: "What Prometheus collects; with a session, or Authorization: Bearer and the token of METRICS_TOKEN",
	}}
}

// scraping lets through who presents the token; others need a session.
func (s *Server) scraping(rule *route, next http.Handler) http.Handler {
	asViewer := *rule
	asViewer.access = viewers
	withSession := s.authorized(&asViewer, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, presented := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case !presented:
			withSession.ServeHTTP(w, r)
		case s.metricsToken != "" && sameSecret(token, s.metricsToken):
			next.ServeHTTP(w, r)
		default:
			s.unauthenticated()
			w.Header().Set("WWW-Authenticate", "Bearer")
			unauthorized(w)
		}
	})
}

// sameSecret compares in a time that tells nothing of either.
func sameSecret(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
