package httpsender

import (
	"crypto/md5" //nolint:gosec // RFC 7616 has it
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// digestHashes are the algorithms of RFC 7616, section 6.1.
var digestHashes = map[string]func() hash.Hash{
	"md5":         md5.New,
	"sha-256":     sha256.New,
	"sha-512-256": sha512.New512_256,
}

// A digestSession answers one challenge, any number of times.
type digestSession struct {
	// static
	realm, nonce, opaque string
	algorithm            string // as the server wrote it; "": MD5
	newHash              func() hash.Hash
	sess                 bool
	userhash             bool
	qop                  string // "auth", "auth-int", or "" for servers older than RFC 2617
	cnonce               string // the same for all answers: what changes is nc

	mu sync.Mutex
	nc uint32 // guarded by mu: of the last answer
}

// newDigestSession returns a session for the first challenge that can be
// answered (RFC 7616, section 3.7), nil if there is none, and whether the server
// says that the credentials were good but for the nonce. withBody tells whether
// the body of the request can be read in advance, which auth-int needs.
func newDigestSession(found []challenge, withBody bool) (session *digestSession, stale bool) {
	for _, c := range found {
		if c.scheme != "digest" {
			continue
		}
		d := &digestSession{
			realm: c.params["realm"], nonce: c.params["nonce"], opaque: c.params["opaque"],
			algorithm: c.params["algorithm"], userhash: strings.EqualFold(c.params["userhash"], "true"),
			cnonce: rand.Text(),
		}
		name := strings.ToLower(d.algorithm)
		name, d.sess = strings.CutSuffix(name, "-sess")
		if name == "" && !d.sess {
			name = "md5"
		}
		if d.newHash = digestHashes[name]; d.newHash == nil || d.nonce == "" {
			continue
		}
		qop, offered := c.params["qop"]
		if d.qop = chooseQOP(qop, withBody); d.qop == "" && (offered || d.sess) {
			continue
		}
		return d, strings.EqualFold(c.params["stale"], "true")
	}
	return nil, false
}

func chooseQOP(offered string, withBody bool) string {
	integrity := false
	for q := range strings.SplitSeq(offered, ",") {
		switch strings.ToLower(strings.TrimSpace(q)) {
		case "auth":
			return "auth"
		case "auth-int":
			integrity = withBody
		}
	}
	if integrity {
		return "auth-int"
	}
	return ""
}

// answer returns the Authorization of a request, whose body open opens.
func (d *digestSession) answer(auth *Auth, r *http.Request, open func() (io.ReadCloser, error)) (string, error) {
	bodyHash := ""
	if d.qop == "auth-int" {
		var err error
		if bodyHash, err = d.hashBody(open); err != nil {
			return "", err
		}
	}
	d.mu.Lock()
	d.nc++
	nc := fmt.Sprintf("%08x", d.nc)
	d.mu.Unlock()
	uri := r.URL.RequestURI()
	response := d.response(auth, method(r), uri, nc, bodyHash)

	var b strings.Builder
	b.WriteString("Digest ")
	switch {
	case d.userhash:
		b.WriteString(`username="` + d.h(auth.Username+":"+d.realm) + `", userhash=true`)
	case isASCII(auth.Username):
		b.WriteString(`username="` + quoted.Replace(auth.Username) + `"`)
	default: // RFC 7616, section 3.4, and RFC 8187
		b.WriteString("username*=UTF-8''" + extValue(auth.Username))
	}
	b.WriteString(`, realm="` + quoted.Replace(d.realm) + `", nonce="` + quoted.Replace(d.nonce) +
		`", uri="` + quoted.Replace(uri) + `", response="` + response + `"`)
	if d.algorithm != "" {
		b.WriteString(", algorithm=" + d.algorithm)
	}
	if d.opaque != "" {
		b.WriteString(`, opaque="` + quoted.Replace(d.opaque) + `"`)
	}
	if d.qop != "" {
		b.WriteString(", qop=" + d.qop + ", nc=" + nc + `, cnonce="` + d.cnonce + `"`)
	}
	return b.String(), nil
}

// response computes the proof (RFC 7616, sections 3.4.1 to 3.4.3).
func (d *digestSession) response(auth *Auth, method, uri, nc, bodyHash string) string {
	a1 := auth.Username + ":" + d.realm + ":" + auth.Password
	if d.sess {
		a1 = d.h(a1) + ":" + d.nonce + ":" + d.cnonce
	}
	a2 := method + ":" + uri
	if d.qop == "auth-int" {
		a2 += ":" + bodyHash
	}
	if d.qop == "" {
		return d.h(d.h(a1) + ":" + d.nonce + ":" + d.h(a2)) // RFC 2069
	}
	return d.h(d.h(a1) + ":" + d.nonce + ":" + nc + ":" + d.cnonce + ":" + d.qop + ":" + d.h(a2))
}

func (d *digestSession) h(text string) string {
	h := d.newHash()
	_, _ = io.WriteString(h, text) // to memory
	return hex.EncodeToString(h.Sum(nil))
}

// hashBody reads the body once before it is sent.
func (d *digestSession) hashBody(open func() (io.ReadCloser, error)) (string, error) {
	if open == nil {
		return "", errors.New("httpsender: the server wants a digest of the body (auth-int), which can be read but once")
	}
	rc, err := open()
	if err != nil {
		return "", &sourceError{err}
	}
	h := d.newHash()
	_, err = io.Copy(h, rc)
	_ = rc.Close() // it was only read from
	if err != nil {
		return "", &sourceError{err}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// quoted escapes what a quoted string must not hold as it is.
var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// extValue writes the value-chars of RFC 8187, which are a subset of what
// PathEscape leaves alone, plus what it escapes.
func extValue(text string) string {
	return strings.NewReplacer("=", "%3D", ":", "%3A", "@", "%40").Replace(url.PathEscape(text))
}
