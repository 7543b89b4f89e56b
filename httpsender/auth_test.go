package httpsender_test

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
)

// A digestServer asks for Digest credentials and checks every part of them.
type digestServer struct {
	algorithm string
	qop       string // offered
	userhash  bool
	sess      bool
	newHash   func() hash.Hash
	user      string
	password  string
	uses      int // of a nonce, after which it is stale; 0: any number

	mu         sync.Mutex
	nonce      int             // guarded by mu
	used       map[string]bool // guarded by mu: nonce and nc
	challenges int             // guarded by mu
	good       int             // guarded by mu
	reasons    []string        // guarded by mu: why it refused
}

const digestRealm = `the "realm", of \ tests`

var digestParam = regexp.MustCompile(`([a-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))`)

func (d *digestServer) h(text string) string {
	h := d.newHash()
	io.WriteString(h, text)
	return hex.EncodeToString(h.Sum(nil))
}

func (d *digestServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	stale, why := d.check(r, string(body))
	if why == "" {
		d.good++
		fmt.Fprintf(w, "got %s", body)
		return
	}
	d.reasons = append(d.reasons, why)
	d.challenges++
	d.nonce++
	c := fmt.Sprintf(`Digest realm="%s", nonce="n%d", opaque="o p"`, `the \"realm\", of \\ tests`, d.nonce)
	if d.algorithm != "" {
		c += ", algorithm=" + d.algorithm
	}
	if d.qop != "" {
		c += `, qop="` + d.qop + `"`
	}
	if d.userhash {
		c += ", userhash=true"
	}
	if stale {
		c += ", stale=TRUE"
	}
	w.Header().Add("WWW-Authenticate", `Newer realm="x", algorithm=SHA-9`)
	w.Header().Add("WWW-Authenticate", `Digest realm="x", nonce="y", algorithm=SHA-9, qop="auth", Basic realm="b"`)
	w.Header().Add("WWW-Authenticate", c)
	w.WriteHeader(http.StatusUnauthorized)
}

// check returns why a request is refused, "" if it is not.
func (d *digestServer) check(r *http.Request, body string) (stale bool, why string) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Digest ")
	if !ok {
		return false, "no credentials"
	}
	p := make(map[string]string)
	for _, m := range digestParam.FindAllStringSubmatch(text, -1) {
		p[m[1]] = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(m[2]) + m[3]
	}
	user := p["username"]
	if d.userhash {
		if user != d.h(d.user+":"+digestRealm) || p["userhash"] != "true" {
			return false, "user hash"
		}
	} else {
		if ext, ok := p["username*"]; ok {
			user, _ = url.PathUnescape(strings.TrimPrefix(ext, "UTF-8''"))
		}
		if user != d.user {
			return false, "user"
		}
	}
	if p["realm"] != digestRealm || p["opaque"] != "o p" || p["uri"] != r.RequestURI || p["algorithm"] != d.algorithm {
		return false, "a parameter that was to be given back"
	}
	a1 := d.user + ":" + digestRealm + ":" + d.password
	if d.sess {
		a1 = d.h(a1) + ":" + p["nonce"] + ":" + p["cnonce"]
	}
	a2 := r.Method + ":" + r.RequestURI
	switch {
	case p["qop"] == "auth-int":
		a2 += ":" + d.h(body)
	case p["qop"] == "" && d.qop != "":
		return false, "no qop"
	}
	want := d.h(d.h(a1) + ":" + p["nonce"] + ":" + p["nc"] + ":" + p["cnonce"] + ":" + p["qop"] + ":" + d.h(a2))
	if p["qop"] == "" {
		want = d.h(d.h(a1) + ":" + p["nonce"] + ":" + d.h(a2))
	}
	if p["response"] != want {
		return false, "response"
	}
	if d.used == nil {
		d.used = make(map[string]bool)
	}
	use := p["nonce"] + " " + p["nc"]
	if p["qop"] != "" && d.used[use] {
		return false, "a nonce count was used twice"
	}
	d.used[use] = true
	if d.uses > 0 && p["nc"] > fmt.Sprintf("%08x", d.uses) {
		return true, "stale"
	}
	return false, ""
}

func TestDigestInAllItsForms(t *testing.T) {
	hashes := map[string]func() hash.Hash{
		"": md5.New, "MD5": md5.New, "SHA-256": sha256.New, "SHA-512-256": sha512.New512_256, "sha-256": sha256.New,
	}
	for name, newHash := range hashes {
		for _, sess := range []bool{false, true} {
			for _, qop := range []string{"auth", "auth-int", "auth-int,auth", "new, auth", ""} {
				if sess && (name == "" || qop == "") {
					continue // there are no such things
				}
				algorithm := name
				if sess {
					algorithm += "-sess"
				}
				t.Run(algorithm+" "+qop, func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						for _, user := range []string{`a "user" \`, "J\u00e4s\u00f8n Doe=:"[:len("J\u00e4s\u00f8n Doe=")]} {
							for _, userhash := range []bool{false, true} {
								d := &digestServer{
									algorithm: algorithm, qop: qop, userhash: userhash, sess: sess,
									newHash: newHash, user: user, password: "Secret, or not?",
								}
								s := &httpsender.Sender{
									AllowPlaintextAuth: true,
									Auth:               httpsender.Auth{Scheme: httpsender.AuthDigest, Username: user, Password: d.password},
								}
								handled(t, s, d.ServeHTTP)
								for i := range 3 {
									r := request(t, "POST", fmt.Sprintf("%s/a%%20b?q=%d&r=\"", origin, i), text("body"))
									status, body, err := exchange(s, r)
									require.NoError(t, err)
									assert.Equal(t, "200 got body", fmt.Sprint(status, " ", body))
								}
								assert.Equal(t, []string{"no credentials"}, d.reasons, "the first request alone is challenged")
							}
						}
					})
				})
			}
		}
	}
}

func TestNonceCountsAreUsedOnceByConcurrentRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := &digestServer{algorithm: "SHA-256", qop: "auth", newHash: sha256.New, user: "u", password: "p", uses: 30}
		s := &httpsender.Sender{
			AllowPlaintextAuth: true, Auth: httpsender.Auth{Scheme: httpsender.AuthDigest, Username: "u", Password: "p"},
		}
		handled(t, s, d.ServeHTTP)
		_, _, err := exchange(s, request(t, "GET", origin, nil))
		require.NoError(t, err)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for range 20 {
					status, _, err := exchange(s, request(t, "GET", origin, nil))
					assert.NoError(t, err)
					assert.Equal(t, 200, status)
				}
			})
		}
		all.Wait()
		assert.Equal(t, 201, d.good)
		assert.NotContains(t, d.reasons, "a nonce count was used twice")
		assert.Contains(t, d.reasons, "stale")
	})
}

func TestAStaleNonceCostsOneMoreRequestAndWrongCredentialsNoMoreThanThat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := &digestServer{algorithm: "MD5", qop: "auth", newHash: md5.New, user: "u", password: "p", uses: 2}
		s := &httpsender.Sender{
			AllowPlaintextAuth: true, Auth: httpsender.Auth{Scheme: httpsender.AuthDigest, Username: "u", Password: "p"},
		}
		handled(t, s, d.ServeHTTP)
		for range 5 {
			status, _, err := exchange(s, request(t, "POST", origin, text("x")))
			require.NoError(t, err)
			assert.Equal(t, 200, status)
		}
		assert.Equal(t, []string{"no credentials", "stale", "stale"}, d.reasons)

		d.reasons = nil
		d.password = "changed"
		status, _, err := exchange(s, request(t, "POST", origin, text("x")))
		require.NoError(t, err)
		assert.Equal(t, 401, status)
		assert.Equal(t, []string{"response", "response"}, d.reasons, "the server gave a new nonce, which was tried once")
	})
}

func TestAServerThatNeverIsContentIsNotAskedForEver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		asked := 0
		s := &httpsender.Sender{
			AllowPlaintextAuth: true, Auth: httpsender.Auth{Scheme: httpsender.AuthDigest, Username: "u", Password: "p"},
		}
		handled(t, s, func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Digest realm="r", nonce="%d", qop="auth", stale=true`, asked))
			w.WriteHeader(http.StatusUnauthorized)
		})
		status, _, err := exchange(s, request(t, "GET", origin, nil))
		require.NoError(t, err)
		assert.Equal(t, 401, status)
		assert.Equal(t, 4, asked)
	})
}

func TestChallengesThatCannotBeAnsweredAreReturned(t *testing.T) {
	for name, challenge := range map[string]string{
		"Basic, to which Digest is not weakened": `Basic realm="r"`,
		"an unknown algorithm":                   `Digest realm="r", nonce="n", algorithm=SHA-1, qop="auth"`,
		"an unknown qop":                         `Digest realm="r", nonce="n", qop="auth-conf"`,
		"no nonce":                               `Digest realm="r", qop="auth"`,
		"garbage":                                `Digest realm="r`,
		"far too much":                           `Digest realm="` + strings.Repeat("x", 20<<10) + `", nonce="n"`,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				asked := 0
				s := &httpsender.Sender{
					AllowPlaintextAuth: true, Auth: httpsender.Auth{Scheme: httpsender.AuthDigest, Username: "u", Password: "p"},
				}
				handled(t, s, func(w http.ResponseWriter, r *http.Request) {
					asked++
					assert.Empty(t, r.Header.Get("Authorization"))
					w.Header().Set("WWW-Authenticate", challenge)
					w.WriteHeader(http.StatusUnauthorized)
				})
				e := outcome(t, s, request(t, "POST", origin, text("x")))
				assert.Equal(t, 401, e.Status)
				assert.Equal(t, httpsender.Rejected, e.Outcome)
				assert.Equal(t, 1, asked)
			})
		})
	}
}

func TestABodyThatCanBeReadOnceIsNotChallengedTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := &digestServer{algorithm: "SHA-256", qop: "auth-int", newHash: sha256.New, user: "u", password: "p"}
		s := &httpsender.Sender{
			AllowPlaintextAuth: true, Auth: httpsender.Auth{Scheme: httpsender.AuthDigest, Username: "u", Password: "p"},
		}
		handled(t, s, d.ServeHTTP)
		once := func() *http.Request {
			r, err := http.NewRequestWithContext(t.Context(), "POST", origin, io.LimitReader(strings.NewReader("body"), 4))
			require.NoError(t, err)
			return r
		}
		status, _, err := exchange(s, once())
		require.NoError(t, err)
		assert.Equal(t, 401, status)
		status, _, err = exchange(s, request(t, "GET", origin, nil))
		require.NoError(t, err)
		assert.Equal(t, 200, status)
		e := outcome(t, s, once()) // auth-int would read it
		assert.Equal(t, httpsender.Rejected, e.Outcome)
		assert.Equal(t, 2, d.challenges)
	})
}

func TestABodyThatWasNotAskedForCanStillBeSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := &digestServer{algorithm: "SHA-256", qop: "auth", newHash: sha256.New, user: "u", password: "p"}
		s := &httpsender.Sender{
			AllowPlaintextAuth: true, Auth: httpsender.Auth{Scheme: httpsender.AuthDigest, Username: "u", Password: "p"},
		}
		handled(t, s, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" { // and the body stays where it is
				w.Header().Set("WWW-Authenticate", `Digest realm="the \"realm\", of \\ tests", nonce="n", opaque="o p", algorithm=SHA-256, qop="auth"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			d.ServeHTTP(w, r)
		})
		body := &closable{Reader: strings.NewReader("once")}
		r, err := http.NewRequestWithContext(t.Context(), "POST", origin, body)
		require.NoError(t, err)
		r.Header.Set("Expect", "100-continue")
		status, got, err := exchange(s, r)
		require.NoError(t, err)
		assert.Equal(t, "200 got once", fmt.Sprint(status, " ", got))
		assert.True(t, body.closed)
	})
}

func TestBasicAndBearerAreSentWithTheFirstRequest(t *testing.T) {
	for want, auth := range map[string]httpsender.Auth{
		"Basic dTpwOnc=": {Scheme: httpsender.AuthBasic, Username: "u", Password: "p:w"},
		"Bearer t.o.k":   {Scheme: httpsender.AuthBearer, Token: "t.o.k"},
		"":               {},
	} {
		bubble(t, func(t *testing.T) {
			s := &httpsender.Sender{Auth: auth, AllowPlaintextAuth: true}
			server := rawly(t, s, nil, say(fine))
			r := request(t, "GET", origin, nil)
			resp, err := s.Do(r)
			require.NoError(t, err)
			read(resp)
			assert.Equal(t, want, server.got()[0].Header.Get("Authorization"))
			assert.Empty(t, r.Header.Get("Authorization"))
			assert.Same(t, r, resp.Request, "which holds no credential")
		})
	}
}

func TestCredentialsDoNotCrossTheNetworkInPlaintext(t *testing.T) {
	withHeader := func(r *http.Request) { r.Header.Set("Authorization", "Secret 1") }
	withUser := func(r *http.Request) { r.URL.User = url.UserPassword("u", "p") }
	for name, c := range map[string]struct {
		sender *httpsender.Sender
		change func(*http.Request)
		host   string
		sent   bool
	}{
		"of the Sender":      {&httpsender.Sender{Auth: httpsender.Auth{Scheme: "basic", Username: "u", Password: "p"}}, nil, "mem.example", false},
		"of the caller":      {&httpsender.Sender{}, withHeader, "mem.example", false},
		"of the URL":         {&httpsender.Sender{}, withUser, "mem.example", false},
		"of the hook":        {&httpsender.Sender{BeforeAttempt: func(r *http.Request) error { withHeader(r); return nil }}, nil, "mem.example", false},
		"unless allowed":     {&httpsender.Sender{AllowPlaintextAuth: true}, withHeader, "mem.example", true},
		"or to this machine": {&httpsender.Sender{}, withHeader, "127.0.0.1:2575", true},
		"by name":            {&httpsender.Sender{}, withHeader, "localhost", true},
		"in its long form":   {&httpsender.Sender{}, withHeader, "[::1]:99", true},
		"not to one like it": {&httpsender.Sender{}, withHeader, "localhost.example", false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := c.sender
				server := rawly(t, s, nil, say(fine))
				r := request(t, "GET", "http://"+c.host, nil)
				if c.change != nil {
					c.change(r)
				}
				_, _, err := exchange(s, r)
				if c.sent {
					require.NoError(t, err)
					return
				}
				e := failed(t, err)
				assert.ErrorIs(t, e, httpsender.ErrPlaintextAuth)
				assert.Equal(t, httpsender.Rejected, e.Outcome)
				assert.Empty(t, server.got())
			})
		})
	}
}

func TestAuthShowsNoSecret(t *testing.T) {
	auth := httpsender.Auth{Scheme: "basic", Username: "u", Password: "hunter2", Token: "tok3n"}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "auth", auth)
	for _, text := range []string{log.String(), auth.String(), fmt.Sprintf("%v %+v %#v %s %q %d %x", auth, auth, auth, auth, auth, auth, auth)} {
		assert.NotContains(t, text, "hunter2")
		assert.NotContains(t, text, "tok3n")
		assert.NotContains(t, text, hex.EncodeToString([]byte("hunter2")))
	}
}

func TestSettingsThatCannotBeHonouredAreRefused(t *testing.T) {
	for name, s := range map[string]*httpsender.Sender{
		"credentials without a scheme":    {Auth: httpsender.Auth{Username: "u"}},
		"an unknown scheme":               {Auth: httpsender.Auth{Scheme: "ntlm", Username: "u"}},
		"basic without a user":            {Auth: httpsender.Auth{Scheme: "basic", Password: "p"}},
		"basic with a token":              {Auth: httpsender.Auth{Scheme: "basic", Username: "u", Token: "t"}},
		"a user with a colon":             {Auth: httpsender.Auth{Scheme: "basic", Username: "u:v"}},
		"a user with a line break":        {Auth: httpsender.Auth{Scheme: "digest", Username: "u\r\nX: y"}},
		"bearer without a token":          {Auth: httpsender.Auth{Scheme: "bearer"}},
		"bearer with a password":          {Auth: httpsender.Auth{Scheme: "bearer", Token: "t", Password: "p"}},
		"a proxy that is no URL":          {ProxyURL: "http://u:hunter2@[::1"},
		"a proxy of another kind":         {ProxyURL: "socks5://u:hunter2@proxy:1080"},
		"an unknown redirect policy":      {Redirects: "all"},
		"a negative limit for the header": {MaxResponseHeaderBytes: -1},
	} {
		t.Run(name, func(t *testing.T) {
			direct(s)
			for range 2 {
				e := outcome(t, s, request(t, "GET", "http://127.0.0.1:1/", nil))
				assert.Equal(t, httpsender.Rejected, e.Outcome)
				assert.NotContains(t, e.Error(), "hunter2")
			}
			assert.NoError(t, s.Close())
			assert.Zero(t, s.TLSStatus())
		})
	}
	for name, target := range map[string]string{"another scheme": "ftp://host/", "no host": "http:///x", "a path": "/x"} {
		t.Run(name, func(t *testing.T) {
			var s httpsender.Sender
			direct(&s)
			e := outcome(t, &s, request(t, "GET", target, nil))
			assert.Equal(t, httpsender.Rejected, e.Outcome)
		})
	}
	t.Run("a header that is no header", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s := &httpsender.Sender{}
			server := rawly(t, s, nil, say(fine))
			r := request(t, "GET", origin, nil)
			r.Header.Set("X-Y", "hunter2\r\nX-Z: 1")
			e := outcome(t, s, r)
			assert.Equal(t, httpsender.Rejected, e.Outcome)
			assert.NotContains(t, e.Error(), "hunter2")
			assert.Empty(t, server.got())
		})
	})
}
