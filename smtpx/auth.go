package smtpx

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	gosmtp "github.com/wneessen/go-mail/smtp"
)

// Mechanism is a way to authenticate (RFC 4954). Empty: the best of those that
// the server offers, in the order of the constants, XOAUTH2 aside.
type Mechanism string

// The mechanisms. The PLUS ones bind the exchange to the TLS connection (RFC
// 5802 section 6), so that nobody who ends TLS on the way can pass it on; they
// are chosen by themselves over TLS 1.3 alone (RFC 9266).
const (
	ScramSHA256Plus Mechanism = "SCRAM-SHA-256-PLUS"
	ScramSHA1Plus   Mechanism = "SCRAM-SHA-1-PLUS"
	ScramSHA256     Mechanism = "SCRAM-SHA-256"
	ScramSHA1       Mechanism = "SCRAM-SHA-1"
	Plain           Mechanism = "PLAIN"
	Login           Mechanism = "LOGIN"
	CramMD5         Mechanism = "CRAM-MD5"
	XOAuth2         Mechanism = "XOAUTH2"
)

var byPreference = []Mechanism{ScramSHA256Plus, ScramSHA1Plus, ScramSHA256, ScramSHA1, Plain, Login, CramMD5}

func (m Mechanism) known() bool { return m == XOAuth2 || slices.Contains(byPreference, m) }

func (m Mechanism) plus() bool { return strings.HasSuffix(string(m), "-PLUS") }

func (m Mechanism) scram() bool { return strings.HasPrefix(string(m), "SCRAM-") }

// UnmarshalText takes the words of the constants, and the empty text.
func (m *Mechanism) UnmarshalText(text []byte) error {
	word := Mechanism(text)
	if word != "" && !word.known() {
		return errors.New("smtpx: unknown mechanism: use " + words(byPreference) + " or " + string(XOAuth2))
	}
	*m = word
	return nil
}

func words(list []Mechanism) string {
	texts := make([]string, len(list))
	for i, m := range list {
		texts[i] = string(m)
	}
	return strings.Join(texts, ", ")
}

// Auth is how a Sender says who it is. The zero value: it does not. No form of
// printing shows the password.
type Auth struct {
	Mechanism Mechanism
	Username  string // empty: no authentication
	Password  string
	// Token returns the access token for XOAUTH2, and is called for every
	// connection. If it is set, XOAUTH2 is the mechanism. Its context ends after
	// Timeouts.Command.
	Token func(ctx context.Context) (string, error)
	// AllowPlaintext allows credentials on a connection without TLS to a loopback
	// address. To anywhere else they are never sent without TLS.
	AllowPlaintext bool
}

// Format prints nothing secret, for any verb.
func (a Auth) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, a.redacted()) }

// LogValue returns what Format prints.
func (a Auth) LogValue() slog.Value { return slog.StringValue(a.redacted()) }

func (a Auth) redacted() string {
	if a.Username == "" {
		return "smtpx.Auth{none}"
	}
	return fmt.Sprintf("smtpx.Auth{%s}", a.mechanism())
}

func (a Auth) mechanism() Mechanism {
	if a.Token != nil && a.Mechanism == "" {
		return XOAuth2
	}
	return a.Mechanism
}

func (a Auth) check(encryption SmtpEncryption) error {
	m := a.mechanism()
	switch {
	case a.Username == "" && (a.Password != "" || a.Mechanism != "" || a.Token != nil || a.AllowPlaintext):
		return errors.New("smtpx: Sender.Auth has no Username")
	case a.Username == "":
		return nil
	case m != "" && !m.known():
		return m.UnmarshalText([]byte(m))
	case (m == XOAuth2) != (a.Token != nil):
		return errors.New("smtpx: Sender.Auth: XOAUTH2 and Token go together, and nothing else with Token")
	case a.Token == nil && a.Password == "":
		return errors.New("smtpx: Sender.Auth has no Password")
	case a.Token != nil && a.Password != "":
		return errors.New("smtpx: Sender.Auth has both a Password and a Token")
	case strings.ContainsAny(a.Username+a.Password, "\x00\r\n\x01"):
		return errors.New("smtpx: Sender.Auth: control characters in Username or Password")
	case encryption == EncryptionNone && m.plus():
		return fmt.Errorf("smtpx: Sender.Auth: %s needs TLS", m)
	case encryption == EncryptionNone && !a.AllowPlaintext:
		return ErrPlaintextAuth
	}
	return nil
}

// tokenError hides what a source of tokens says, which may quote the token.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return "smtpx: the source of the XOAUTH2 token failed" }
func (e *tokenError) Unwrap() error { return e.err }

// maxScramIterations bounds the work that a server can ask for; RFC 7677 wants
// 4096 at least, and passwords kept well today have some hundred thousand.
const maxScramIterations = 1_000_000

// authenticate says who we are, if it is wanted.
func (c *conn) authenticate(ctx context.Context, a Auth) *SendError {
	if a.Username == "" {
		return nil
	}
	var state *tls.ConnectionState
	if c.tls != nil {
		now := c.tls.ConnectionState()
		state = &now
	} else if !loopback(c.nc.RemoteAddr()) {
		return unfit(ErrPlaintextAuth)
	}
	m, err := a.choose(strings.Fields(strings.ToUpper(c.ext["AUTH"])), state)
	if err != nil {
		return unfit(err)
	}
	secret := a.Password
	if m == XOAuth2 {
		if secret, err = a.token(ctx, c.limits.command()); err != nil {
			return notSent(&tokenError{err})
		}
		if strings.ContainsAny(secret, "\x00\r\n\x01") || secret == "" {
			return unfit(errors.New("smtpx: the XOAUTH2 token is empty, or has control characters"))
		}
	}
	return c.exchange(m, client(m, a.Username, secret, c.host, state))
}

// token asks for one, while the server waits.
func (a Auth) token(ctx context.Context, limit time.Duration) (string, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return a.Token(ctx)
}

// client returns go-mail's side of the mechanism. Whether credentials may go over
// this connection has been decided.
func client(m Mechanism, user, secret, host string, state *tls.ConnectionState) gosmtp.Auth {
	switch m {
	case ScramSHA256Plus:
		return gosmtp.ScramSHA256PlusAuth(user, secret, state)
	case ScramSHA1Plus:
		return gosmtp.ScramSHA1PlusAuth(user, secret, state)
	case ScramSHA256:
		return gosmtp.ScramSHA256Auth(user, secret)
	case ScramSHA1:
		return gosmtp.ScramSHA1Auth(user, secret)
	case Login:
		return gosmtp.LoginAuth(user, secret, host, true)
	case CramMD5:
		return gosmtp.CRAMMD5Auth(user, secret)
	case XOAuth2:
		return gosmtp.XOAuth2Auth(user, secret)
	case Plain:
	}
	return gosmtp.PlainAuth("", user, secret, host, true)
}

// choose returns the mechanism to use with a server that offers these.
func (a Auth) choose(offered []string, state *tls.ConnectionState) (Mechanism, error) {
	if m := a.mechanism(); m != "" {
		if !slices.Contains(offered, string(m)) {
			return "", fmt.Errorf("%w: the server does not offer %s", ErrAuth, m)
		}
		return m, nil
	}
	for _, m := range byPreference {
		if m.plus() && (state == nil || state.Version < tls.VersionTLS13) {
			continue
		}
		if slices.Contains(offered, string(m)) {
			return m, nil
		}
	}
	return "", fmt.Errorf("%w: the server offers none of %s", ErrAuth, words(byPreference))
}

// exchange runs AUTH (RFC 4954 section 4).
func (c *conn) exchange(m Mechanism, a gosmtp.Auth) *SendError {
	name, first, err := a.Start(&gosmtp.ServerInfo{Name: c.host, TLS: c.tls != nil})
	if err != nil {
		return unfit(fmt.Errorf("%w: %s cannot begin", ErrAuth, m))
	}
	line := "AUTH " + name
	if len(first) > 0 {
		line += " " + base64.StdEncoding.EncodeToString(first)
	}
	proven := !m.scram() // a SCRAM server must show that it knows the password too
	for range 8 {
		ans, sendErr := c.command(c.limits.command(), line)
		switch {
		case sendErr != nil:
			return sendErr
		case ans.Code == 235 && proven:
			return nil
		case ans.Code == 235:
			return unfit(fmt.Errorf("%w: the server did not prove that it knows the password", ErrAuth))
		case ans.Code/100 >= 4:
			return declined("AUTH", ans.Reply, ErrAuth)
		case ans.Code != 334 || len(ans.lines) != 1:
			return notSent(fmt.Errorf("%w: answer to AUTH", ErrProtocol))
		}
		challenge, err := base64.StdEncoding.DecodeString(ans.lines[0])
		if err == nil && m.scram() {
			err = checkIterations(challenge)
		}
		var response []byte
		if err == nil {
			response, err = a.Next(challenge, true)
		}
		if err != nil { // its text may quote the server's
			_, _ = c.command(c.limits.command(), "*")
			return unfit(fmt.Errorf("%w: the server's part of %s is wrong", ErrAuth, m))
		}
		proven = proven || bytes.HasPrefix(challenge, []byte("v="))
		line = base64.StdEncoding.EncodeToString(response)
	}
	return unfit(fmt.Errorf("%w: the exchange does not end", ErrAuth))
}

// checkIterations bounds what a SCRAM server asks for in its first message.
func checkIterations(challenge []byte) error {
	if !bytes.HasPrefix(challenge, []byte("r=")) {
		return nil
	}
	for field := range bytes.SplitSeq(challenge, []byte(",")) {
		if count, is := bytes.CutPrefix(field, []byte("i=")); is {
			if n, err := strconv.Atoi(string(count)); err != nil || n < 4096 || n > maxScramIterations {
				return errors.New("iterations")
			}
		}
	}
	return nil
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
