package httpsender

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
)

// AuthScheme is how a Sender shows who it is.
type AuthScheme string

// The schemes of authentication.
const (
	// AuthBasic sends user and password with every request (RFC 7617).
	AuthBasic AuthScheme = "basic"
	// AuthDigest proves the password without sending it (RFC 7616), after the
	// server's first challenge with every request. It is never weakened to Basic.
	AuthDigest AuthScheme = "digest"
	// AuthBearer sends a token with every request (RFC 6750).
	AuthBearer AuthScheme = "bearer"
)

// Auth are the credentials of a Sender, for every host that it is used with: use
// one Sender for each set of credentials. The zero value means none. Its String
// and its form in logs show neither password nor token.
type Auth struct {
	Scheme   AuthScheme `json:"scheme" yaml:"scheme"`
	Username string     `json:"username,omitempty" yaml:"username,omitempty"`
	Password string     `json:"password,omitempty" yaml:"password,omitempty"`
	Token    string     `json:"token,omitempty" yaml:"token,omitempty"` // of AuthBearer
}

func (a *Auth) validate() error {
	switch a.Scheme {
	case "":
		if *a != (Auth{}) {
			return errors.New("httpsender: Auth has credentials and no Scheme: basic, digest or bearer")
		}
	case AuthBasic, AuthDigest:
		if a.Username == "" || a.Token != "" {
			return fmt.Errorf("httpsender: Auth with %s needs a Username, and has no Token", a.Scheme)
		}
		for _, c := range []byte(a.Username) {
			if c == ':' || c < ' ' || c == 0x7f {
				return errors.New("httpsender: Auth.Username has a colon or a control character in it")
			}
		}
	case AuthBearer:
		if a.Token == "" || a.Username != "" || a.Password != "" {
			return errors.New("httpsender: Auth with bearer needs a Token, and nothing else")
		}
	default:
		return errors.New("httpsender: Auth.Scheme must be basic, digest or bearer")
	}
	return nil
}

// LogValue returns scheme and user.
func (a Auth) LogValue() slog.Value {
	return slog.GroupValue(slog.String("scheme", string(a.Scheme)), slog.String("username", a.Username))
}

// String returns scheme and user.
func (a Auth) String() string {
	return fmt.Sprintf("Auth{scheme:%s username:%s}", a.Scheme, a.Username)
}

// Format prints String for every verb, so that none shows the password.
func (a Auth) Format(w fmt.State, _ rune) { _, _ = w.Write([]byte(a.String())) }

// authorize shows the credentials in an attempt's request, and returns the
// challenge that they answer, nil for none.
func (t *task) authorize(out *http.Request) (*digestSession, error) {
	switch auth := &t.s.Auth; auth.Scheme {
	case AuthBasic:
		out.Header.Set("Authorization", "Basic "+basic(auth.Username, auth.Password))
	case AuthBearer:
		out.Header.Set("Authorization", "Bearer "+auth.Token)
	case AuthDigest:
		t.host.mu.Lock()
		session := t.host.digest
		t.host.mu.Unlock()
		if session == nil {
			return nil, nil // the server has not said yet how
		}
		value, err := session.answer(auth, out, t.reopen())
		if err != nil {
			return nil, err
		}
		out.Header.Set("Authorization", value)
		return session, nil
	}
	return nil, nil
}

// reopen returns what opens the body in advance of sending it, nil if it can be
// read but once.
func (t *task) reopen() func() (io.ReadCloser, error) {
	if t.r.Body == nil || t.r.Body == http.NoBody {
		return func() (io.ReadCloser, error) { return http.NoBody, nil }
	}
	return t.open
}

// challenged tells whether an answer of 401 is worth another attempt: the server
// gave a challenge that the attempt did not answer, or says that the one it
// answered is stale.
func (t *task) challenged(resp *http.Response) bool {
	if t.s.Auth.Scheme != AuthDigest || resp.StatusCode != http.StatusUnauthorized || t.challenges == maxAuthTries {
		return false
	}
	found, err := parseChallenges(resp.Header.Values("Www-Authenticate"))
	if err != nil {
		return false
	}
	session, stale := newDigestSession(found, t.reopen() != nil)
	if session == nil || t.fresh && !stale {
		return false // it is the credentials that are wrong
	}
	t.host.mu.Lock()
	// Another request may have been challenged in the meantime: the sessions of
	// both are good, and the later one is used.
	t.host.digest = session
	t.host.mu.Unlock()
	t.challenges++
	t.fresh = true
	return true
}

// maxAuthTries is how many challenges a request answers: the first, and two for
// nonces that other requests used up before it came to its turn.
const maxAuthTries = 3
