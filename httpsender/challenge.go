package httpsender

import (
	"errors"
	"strings"
)

// What a server may send in WWW-Authenticate, all fields together.
const (
	maxChallengeBytes  = 16 << 10
	maxChallenges      = 16
	maxChallengeParams = 32
)

var errChallenge = errors.New("httpsender: the server's challenge is not well-formed")

// A challenge is one way in which a server offers to be shown credentials
// (RFC 9110, section 11.3).
type challenge struct {
	scheme string            // in lower case
	params map[string]string // names in lower case
}

// parseChallenges reads the values of WWW-Authenticate. A field that is not
// well-formed is an error, because a challenge that is read in two ways can be
// answered in the wrong one.
func parseChallenges(fields []string) ([]challenge, error) {
	var out []challenge
	total := 0
	for _, field := range fields {
		if total += len(field); total > maxChallengeBytes {
			return nil, errChallenge
		}
		p := challengeParser{rest: field}
		for p.skipCommas(); p.rest != ""; p.skipCommas() {
			c, ok := p.challenge()
			if !ok || len(out) == maxChallenges {
				return nil, errChallenge
			}
			out = append(out, c)
		}
	}
	return out, nil
}

type challengeParser struct{ rest string }

// challenge reads a scheme and its parameters: either a token68 or a list.
func (p *challengeParser) challenge() (challenge, bool) {
	c := challenge{scheme: strings.ToLower(p.token())}
	if c.scheme == "" || p.rest != "" && !strings.ContainsRune(" \t,", rune(p.rest[0])) {
		return c, false
	}
	p.skipSpace()
	if p.token68() {
		return c, true
	}
	c.params = make(map[string]string)
	for {
		start := p.rest
		p.skipCommas()
		name := strings.ToLower(p.token())
		p.skipSpace()
		value, equals := strings.CutPrefix(p.rest, "=")
		if name == "" || !equals {
			p.rest = start // the next challenge's scheme, or the end
			return c, true
		}
		p.rest = value
		p.skipSpace()
		text, ok := p.value()
		if _, twice := c.params[name]; !ok || twice || len(c.params) == maxChallengeParams {
			return c, false
		}
		c.params[name] = text
		p.skipSpace()
		if p.rest == "" {
			return c, true
		}
		if p.rest[0] != ',' {
			return c, false
		}
	}
}

// token68 reads the one parameter of schemes like Negotiate, if that is what
// follows, up to the end of the challenge.
func (p *challengeParser) token68() bool {
	end := strings.IndexByte(p.rest, ',')
	if end < 0 {
		end = len(p.rest)
	}
	text := strings.TrimRight(p.rest[:end], " \t")
	body := strings.TrimRight(text, "=")
	if body == "" || strings.Trim(body, tokens68) != "" {
		return false
	}
	p.rest = p.rest[end:]
	return true
}

const (
	alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	tokens68     = alphanumeric + "-._~+/"
	tokenBytes   = alphanumeric + "!#$%&'*+-.^_`|~"
)

// token reads a token (RFC 9110, section 5.6.2); "" if there is none.
func (p *challengeParser) token() string {
	n := len(p.rest) - len(strings.TrimLeft(p.rest, tokenBytes))
	token := p.rest[:n]
	p.rest = p.rest[n:]
	return token
}

// value reads a token or a quoted string.
func (p *challengeParser) value() (string, bool) {
	if !strings.HasPrefix(p.rest, `"`) {
		token := p.token()
		return token, token != ""
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\':
			if i++; i == len(p.rest) || control(p.rest[i]) {
				return "", false
			}
			b.WriteByte(p.rest[i])
		case control(c):
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

func control(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

func (p *challengeParser) skipSpace()  { p.rest = strings.TrimLeft(p.rest, " \t") }
func (p *challengeParser) skipCommas() { p.rest = strings.TrimLeft(p.rest, " \t,") }
