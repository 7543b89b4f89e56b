package api

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/carewire/carewire/examples/engine/internal/sessions"
	"github.com/carewire/carewire/examples/engine/internal/users"
)

// exchange is what is known of the request in hand. It is written by the
// middleware, one after the other, and read by handlers.
type exchange struct {
	id      string     // X-Request-ID
	client  netip.Addr // who asks; of a trusted proxy: for whom it asks
	https   bool       // between that client and us, or the proxy we trust
	session *sessions.Session
	user    users.User // of session

	notes  map[string]string // for the audit log; nil: the action is not in it
	failed bool              // the action did, whatever the answer's status is
}

type exchangeKey struct{}

// exchangeOf returns what is known of a request that passed guard.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	if x == nil {
		x = new(exchange) // a handler on its own, in no server
	}
	return x
}

// guard is in front of everything: it says who asks, and keeps a panic to itself.
//
// It does not look at the name in Host, although a page whose name was turned to
// this machine's address (DNS rebinding) can send requests here: such a page has
// no session, because a cookie belongs to the name under which it was given and no
// page can read another's X-Session-ID. A proxy that terminates TLS passes on
// the name it was asked by, so that a list of allowed names would only be one
// more thing to keep up to date.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{id: requestID(r)}
		x.client, x.https = s.proxies.client(r)
		ctx := context.WithValue(r.Context(), exchangeKey{}, x)
		r = r.WithContext(ctx)
		h := w.Header()
		h.Set("X-Request-ID", x.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		if x.https {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // it is this very value that is thrown
				panic(v) // net/http's way to cut a connection
			}
			// Only the type: the value may hold a part of a message.
			s.log.ErrorContext(ctx, "panic in the API", "request", x.id, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			internalError(w)
		}()
		if s.cors(w, r) {
			return
		}
		next.ServeHTTP(w, r)
	})
}

// requestID returns the client's X-Request-ID if it is one, else a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-ID")
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	}) {
		return rand.Text()
	}
	return id
}

// proxies are the addresses whose X-Forwarded-For and X-Forwarded-Proto are
// believed.
type proxies []netip.Prefix

func (p proxies) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(p, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// client returns who made a request, and whether it came by HTTPS. Each trusted
// proxy has added the address that it saw to the end of X-Forwarded-For: the
// last one that is not a trusted proxy's is the client, and what stands before it
// anybody may have written.
func (p proxies) client(r *http.Request) (addr netip.Addr, https bool) {
	https = r.TLS != nil
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, https
	}
	addr, err = netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, https
	}
	addr = addr.Unmap().WithZone("")
	if !p.trusted(addr) {
		return addr, https
	}
	// Of several values the last is the nearest proxy's.
	protos := strings.Split(strings.Join(r.Header.Values("X-Forwarded-Proto"), ","), ",")
	https = https || strings.EqualFold(strings.TrimSpace(protos[len(protos)-1]), "https")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break // the last address that is certain
		}
		addr = next.Unmap().WithZone("")
		if !p.trusted(addr) {
			break
		}
	}
	return addr, https
}
