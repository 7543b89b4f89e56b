package cluster_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
)

func withSecret(r *http.Request, values ...string) *http.Request {
	r.Header[cluster.Header] = values
	return r
}

func TestTheSecretInItsHeaderLetsARequestIn(t *testing.T) {
	_, b, seen := pair(t)
	next := &echo{}
	w := give(b.Handler(next), withSecret(post(t, `{"channelId":"x"}`), string(secretA)))
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, `{"channelId":"x"}`, w.Body.String())
	assert.Empty(t, w.Header().Get(cluster.SignatureHeader))

	e := seen.last(t)
	assert.Equal(t, cluster.Accepted, e.Kind)
	assert.False(t, e.Signed)
	assert.True(t, e.Primary)
	assert.Equal(t, b.Status().KeyID, e.KeyID)
	assert.Equal(t, "198.51.100.1:50000", e.RemoteAddr)
}

func TestTheHandlerSeesWhoAsksAndNotTheSecret(t *testing.T) {
	a, b, _ := pair(t)
	next := &echo{}
	h := b.Handler(next)

	r := withSecret(post(t, "{}"), string(secretA))
	r.Header.Set("X-Request-ID", "7")
	give(h, r)
	assert.NotContains(t, next.last.Header, cluster.Header)
	assert.Equal(t, "7", next.last.Header.Get("X-Request-ID"))
	peer, ok := cluster.PeerFrom(next.last.Context())
	require.True(t, ok)
	assert.Equal(t, cluster.Peer{KeyID: b.Status().KeyID}, peer)

	give(h, signed(t, a, "{}"))
	assert.NotContains(t, next.last.Header, cluster.SignatureHeader)
	peer, ok = cluster.PeerFrom(next.last.Context())
	require.True(t, ok)
	assert.Len(t, peer.Nonce, 22)
	first := peer.Nonce
	peer.Nonce = ""
	assert.Equal(t, cluster.Peer{Node: "node-a", KeyID: b.Status().KeyID, Signed: true}, peer)
	give(h, signed(t, a, "{}"))
	peer, _ = cluster.PeerFrom(next.last.Context())
	assert.NotEqual(t, first, peer.Nonce, "each request has its own")

	_, ok = cluster.PeerFrom(t.Context())
	assert.False(t, ok)
}

// unread is a body that nobody may read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read before the sender was known")
	return 0, io.EOF
}

func (unread) Close() error { return nil }

func TestWithoutTheSecretNothingIsLetInAndNoBodyRead(t *testing.T) {
	sender, _, _ := pair(t)
	stranger := &cluster.Auth{Node: "node-a", Secret: secretB}
	valid := signed(t, sender, "{}").Header.Get(cluster.SignatureHeader)
	for name, test := range map[string]struct {
		plain, signature []string
		reason           cluster.Reason
		signedOnly       bool
	}{
		"no header":                {nil, nil, cluster.ReasonMissing, false},
		"an empty one":             {[]string{""}, nil, cluster.ReasonWrong, false},
		"another secret":           {[]string{string(secretB)}, nil, cluster.ReasonWrong, false},
		"the secret cut short":     {[]string{string(secretA[:43])}, nil, cluster.ReasonWrong, false},
		"the secret and more":      {[]string{string(secretA) + "x"}, nil, cluster.ReasonWrong, false},
		"other letters":            {[]string{strings.ToLower(string(secretA))}, nil, cluster.ReasonWrong, false},
		"a bearer token":           {[]string{"Bearer " + string(secretA)}, nil, cluster.ReasonWrong, false},
		"two of them":              {[]string{string(secretA), string(secretA)}, nil, cluster.ReasonMalformed, false},
		"a list":                   {[]string{string(secretA) + "," + string(secretB)}, nil, cluster.ReasonWrong, false},
		"a megabyte":               {[]string{strings.Repeat("x", 1<<20)}, nil, cluster.ReasonWrong, false},
		"secret and signature":     {[]string{string(secretA)}, []string{valid}, cluster.ReasonMalformed, false},
		"two signatures":           {nil, []string{valid, valid}, cluster.ReasonMalformed, false},
		"no signature in it":       {nil, []string{""}, cluster.ReasonMalformed, false},
		"the secret as signature":  {nil, []string{string(secretA)}, cluster.ReasonMalformed, false},
		"another's signature":      {nil, []string{signed(t, stranger, "{}").Header.Get(cluster.SignatureHeader)}, cluster.ReasonUnknownKey, false},
		"of another request":       {nil, []string{strings.Replace(valid, ";from=node-a", ";from=node-c", 1)}, cluster.ReasonBadSignature, false},
		"plain, and signed only":   {[]string{string(secretA)}, nil, cluster.ReasonPlain, true},
		"wrong, and signed only":   {[]string{string(secretB)}, nil, cluster.ReasonPlain, true},
		"missing, and signed only": {nil, nil, cluster.ReasonMissing, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, b, seen := pair(t, func(_, b *cluster.Auth) { b.SignedOnly = test.signedOnly })
			next := &echo{}
			h := b.Handler(next)
			for _, path := range []string{"/api/internal/dispatch", "/api/internal/", "/"} {
				for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodOptions, http.MethodDelete} {
					r := httptest.NewRequest(method, path, nil)
					r.Body = unread{t}
					r.ContentLength = 1 << 40
					if test.plain != nil {
						r.Header[cluster.Header] = test.plain
					}
					if test.signature != nil {
						r.Header[cluster.SignatureHeader] = test.signature
					}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					requireRefused(t, w)
					e := seen.last(t)
					assert.Equal(t, cluster.Refused, e.Kind)
					assert.Equal(t, test.reason, e.Reason)
				}
			}
			assert.Zero(t, next.count())
		})
	}
}

func TestAnAuthWithoutASecretRefusesEverything(t *testing.T) {
	sender, _, _ := pair(t)
	for name, auth := range map[string]*cluster.Auth{
		"zero":              {},
		"no secret":         {Node: "node-b"},
		"no node":           {Secret: secretA},
		"bad node":          {Node: "node b", Secret: secretA},
		"accepted alone":    {Node: "node-b", Accept: []cluster.Secret{secretA}},
		"no file":           {Node: "node-b", SecretFile: t.TempDir() + "/missing"},
		"file and secret":   {Node: "node-b", Secret: secretA, SecretFile: "/dev/null"},
		"signed and plain":  {Node: "node-b", Secret: secretA, SignedOnly: true, PlainHeader: true},
		"negative limit":    {Node: "node-b", Secret: secretA, MaxBodyBytes: -1},
		"limit over 1 GiB":  {Node: "node-b", Secret: secretA, MaxBodyBytes: 1<<30 + 1},
		"total under limit": {Node: "node-b", Secret: secretA, MaxBodyBytes: 2000, MaxBufferedBytes: 1000},
		"negative nonces":   {Node: "node-b", Secret: secretA, MaxNonces: -1},
		"long window":       {Node: "node-b", Secret: secretA, Window: 1 << 50},
	} {
		t.Run(name, func(t *testing.T) {
			var seen journal
			auth.Observe = seen.observe
			err := auth.Validate()
			field, ok := errors.AsType[*cluster.FieldError](err)
			require.True(t, ok, "%v", err)
			assert.NotEmpty(t, field.Field)
			next := &echo{}
			h := auth.Handler(next)
			for _, r := range []*http.Request{
				post(t, "{}"),
				withSecret(post(t, "{}"), ""),
				withSecret(post(t, "{}"), string(secretA)),
				signed(t, sender, "{}"),
			} {
				requireRefused(t, give(h, r))
				e := seen.last(t)
				assert.Equal(t, cluster.ReasonNoSecret, e.Reason)
				assert.Error(t, e.Err)
			}
			assert.Zero(t, next.count())
			assert.Error(t, auth.Authorize(post(t, "{}"), "node-c"))
			_, err = auth.Do(nil, post(t, "{}"), "node-c") //nolint:bodyclose // there is none
			assert.Error(t, err)
		})
	}
}

func TestSeveralSecretsAreAcceptedAndEventsTellWhich(t *testing.T) {
	_, b, seen := pair(t, func(_, b *cluster.Auth) { b.Accept = []cluster.Secret{secretB, secretC} })
	h := b.Handler(&echo{})
	ids := make(map[string]bool)
	for i, s := range []cluster.Secret{secretA, secretB, secretC} {
		assert.Equal(t, http.StatusOK, give(h, withSecret(post(t, "{}"), string(s))).Code)
		e := seen.last(t)
		assert.Equal(t, b.Status().Accepted[i], e.KeyID)
		assert.Equal(t, i == 0, e.Primary)
		ids[e.KeyID] = true
	}
	assert.Len(t, ids, 3)
}

func TestTheBodyAfterThePlainHeaderIsLimited(t *testing.T) {
	_, b, seen := pair(t, func(_, b *cluster.Auth) { b.MaxBodyBytes = 1000 })
	next := &echo{}
	h := b.Handler(next)
	assert.Equal(t, http.StatusOK, give(h, withSecret(post(t, strings.Repeat("x", 1000)), string(secretA))).Code)
	require.NoError(t, next.err)

	// Announced: the handler does not begin.
	requireRefused(t, give(h, withSecret(post(t, strings.Repeat("x", 1001)), string(secretA))))
	assert.Equal(t, 1, next.count())
	assert.Equal(t, cluster.ReasonTooLarge, seen.last(t).Reason)

	// Not announced: the handler is told.
	r := withSecret(post(t, strings.Repeat("x", 1001)), string(secretA))
	r.ContentLength = -1
	give(h, r)
	require.Equal(t, 2, next.count())
	_, cut := errors.AsType[*http.MaxBytesError](next.err)
	assert.True(t, cut, "%v", next.err)
	assert.Equal(t, cluster.BodyCut, seen.last(t).Kind)
}

func TestNoSecretReachesTheLog(t *testing.T) {
	var log bytes.Buffer
	a, b, _ := pair(t, func(a, b *cluster.Auth) {
		b.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		b.Accept = []cluster.Secret{secretC}
	})
	h := b.Handler(&echo{})
	const patient = "PATIENT-MARKER-4711"
	give(h, withSecret(post(t, patient), string(secretA)))
	give(h, withSecret(post(t, patient), string(secretB)))
	give(h, withSecret(post(t, patient), string(secretA), string(secretB)))
	give(h, signed(t, a, patient))
	broken := signed(t, a, patient)
	broken.Header.Set(cluster.SignatureHeader, patient)
	give(h, broken)
	require.Error(t, b.SetSecrets("changeme"))

	lines := log.String()
	assert.Equal(t, 6, strings.Count(lines, "\n"), lines) // the secrets loaded, and five requests
	for _, secret := range []string{string(secretA), string(secretB), string(secretC), patient} {
		assert.NotContains(t, lines, secret)
		assert.NotContains(t, lines, secret[:12])
	}
	assert.Contains(t, lines, "reason=wrong")
	assert.Contains(t, lines, "key="+b.Status().KeyID)
}
