package api

import (
	"net/http"
	"slices"
)

// What a page of an allowed origin may send and read.
const (
	corsMethods = "GET, POST, PUT, DELETE"
	corsHeaders = "Content-Type, X-Requested-With, X-Session-ID, X-Request-ID"
	corsExposed = "X-Session-ID, X-Request-ID, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy"
)

// cors lets pages of the allowed origins read answers; without any it does
// nothing. It reports whether it has answered: a preflight (Fetch standard, CORS
// protocol).
func (s *Server) cors(w http.ResponseWriter, r *http.Request) (answered bool) {
	if len(s.origins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(s.origins, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Access-Control-Expose-Headers", corsExposed)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// sameOrigin refuses what a browser sends for a page of another origin, other
// than GET and HEAD. Programs that are no browsers say nothing of origins, and
// pass.
func (s *Server) sameOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.crossOrigin.Check(r); err != nil {
			forbidden(w, "Cross-origin request refused")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// forged tells whether a request that is signed in by cookie may have been made by
// a page of somebody else, and says why. Besides what browsers tell of its origin
// it must have a header that no form can set and that no page of another origin
// may.
func (s *Server) forged(r *http.Request) (why string) {
	if err := s.crossOrigin.Check(r); err != nil {
		return "Cross-origin request refused"
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return ""
	}
	if r.Header.Get("X-Requested-With") == "" {
		return "With a session by cookie this needs the header X-Requested-With, whatever its value; or send X-Session-ID in place of the cookie"
	}
	return ""
}
