package httpsender

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The vectors need a cnonce that is given, so they are tested from the inside.
func TestVectorsOfRFC7616(t *testing.T) {
	const (
		nonce  = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
		cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
		opaque = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
	)
	// Section 3.9.1.
	both := `Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=%, nonce="` + nonce + `", opaque="` + opaque + `"`
	for algorithm, want := range map[string]string{
		"MD5":     "8ca523f5e9506fed4657c9700eebdbec",
		"SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
	} {
		found, err := parseChallenges([]string{strings.ReplaceAll(both, "%", algorithm)})
		require.NoError(t, err)
		d, stale := newDigestSession(found, true)
		require.NotNil(t, d)
		assert.False(t, stale)
		d.cnonce = cnonce
		got, err := d.answer(&Auth{Username: "Mufasa", Password: "Circle of Life"}, get("/dir/index.html"), nil)
		require.NoError(t, err)
		assert.Equal(t, `Digest username="Mufasa", realm="http-auth@example.org", nonce="`+nonce+`", uri="/dir/index.html", response="`+
			want+`", algorithm=`+algorithm+`, opaque="`+opaque+`", qop=auth, nc=00000001, cnonce="`+cnonce+`"`, got)
	}

	// Section 3.9.2. Its response and its user hash are those of erratum 4897,
	// since the ones in the text were made with SHA-512 cut to 256 bits, not with
	// SHA-512/256.
	found, err := parseChallenges([]string{`Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, ` +
		`nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS", charset=UTF-8, userhash=true`})
	require.NoError(t, err)
	d, _ := newDigestSession(found, false)
	require.NotNil(t, d)
	d.cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v"
	got, err := d.answer(&Auth{Username: "J\u00e4s\u00f8n Doe", Password: "Secret, or not?"}, get("/doe.json"), nil)
	require.NoError(t, err)
	assert.Contains(t, got, `username="793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"`)
	assert.Contains(t, got, `response="3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"`)
	assert.Contains(t, got, "userhash=true")
}

func get(uri string) *http.Request {
	u, _ := url.Parse("https://example.org" + uri)
	return &http.Request{Method: "GET", URL: u}
}

// The example of RFC 2617, section 3.5, and what it gives without qop.
func TestVectorsOfOlderServers(t *testing.T) {
	found, err := parseChallenges([]string{`Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`})
	require.NoError(t, err)
	d, _ := newDigestSession(found, false)
	require.NotNil(t, d)
	d.cnonce = "0a4f113b"
	auth := &Auth{Username: "Mufasa", Password: "Circle Of Life"}
	got, err := d.answer(auth, get("/dir/index.html"), nil)
	require.NoError(t, err)
	assert.Contains(t, got, `response="6629fae49393a05397450978507c4ef1"`)
	assert.NotContains(t, got, "algorithm", "the server gave none")

	d.qop = ""
	got, err = d.answer(auth, get("/dir/index.html"), nil)
	require.NoError(t, err)
	assert.Contains(t, got, `response="670fd8c2df070c60b045671b8b24ff02"`)
	assert.NotContains(t, got, "nc=")
}

func TestChallenges(t *testing.T) {
	digest := func(p ...string) challenge {
		c := challenge{scheme: "digest", params: map[string]string{}}
		for i := 0; i < len(p); i += 2 {
			c.params[p[i]] = p[i+1]
		}
		return c
	}
	for name, c := range map[string]struct {
		fields []string
		want   []challenge // nil: an error
	}{
		"none":                 {nil, []challenge{}},
		"one":                  {[]string{`Digest realm="a", nonce=b`}, []challenge{digest("realm", "a", "nonce", "b")}},
		"names in any case":    {[]string{`dIGEST Realm="a"`}, []challenge{digest("realm", "a")}},
		"spaces and commas":    {[]string{`, ,Digest  realm = "a" ,, nonce	=	"b",`}, []challenge{digest("realm", "a", "nonce", "b")}},
		"escapes":              {[]string{`Digest realm="a\"b\\c, d=e"`}, []challenge{digest("realm", `a"b\c, d=e`)}},
		"two in one field":     {[]string{`Basic realm="x", Digest realm="a"`}, []challenge{{"basic", map[string]string{"realm": "x"}}, digest("realm", "a")}},
		"two fields":           {[]string{`Digest realm="a"`, `Digest realm="b"`}, []challenge{digest("realm", "a"), digest("realm", "b")}},
		"a scheme alone":       {[]string{`Negotiate, Digest realm="a"`}, []challenge{{"negotiate", map[string]string{}}, digest("realm", "a")}},
		"a token68":            {[]string{`Negotiate abc+/==, Digest realm="a"`}, []challenge{{scheme: "negotiate"}, digest("realm", "a")}},
		"a name twice":         {[]string{`Digest realm="a", REALM="b"`}, nil},
		"no end of a string":   {[]string{`Digest realm="a`}, nil},
		"an escape at the end": {[]string{`Digest realm="a\`}, nil},
		"a control character":  {[]string{"Digest realm=\"a\x01\""}, nil},
		"an escaped one":       {[]string{"Digest realm=\"a\\\r\""}, nil},
		"no value":             {[]string{`Digest realm=, nonce=a`}, nil},
		"no comma":             {[]string{`Digest realm="a" nonce="b"`}, nil},
		"too long":             {[]string{`Digest realm="` + strings.Repeat("a", 16<<10) + `"`}, nil},
		"too many":             {[]string{strings.Repeat("A, ", 17)}, nil},
		"too much in one":      {[]string{"Digest " + strings.Repeat("a", 1) + "=1, " + manyParams(40)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseChallenges(c.fields)
			if c.want == nil {
				assert.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.ElementsMatch(t, c.want, got)
		})
	}
}

func manyParams(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("p" + strings.Repeat("x", i) + "=1, ")
	}
	return b.String()
}

func FuzzParseChallenges(f *testing.F) {
	for _, seed := range []string{
		`Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, nonce="x", opaque="y"`,
		`Basic realm="x", Digest realm="a\"b", stale=TRUE`, `Negotiate abc==`, `,,,A`, `Digest a="\`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		found, err := parseChallenges([]string{field})
		if err != nil {
			if found != nil {
				t.Fatal("an error, and challenges")
			}
			return
		}
		if len(found) > maxChallenges {
			t.Fatalf("%d challenges", len(found))
		}
		// What is understood is understood the same when it is written anew, and no
		// answer to it can break out of its header.
		var again []string
		for _, c := range found {
			if c.params == nil {
				continue
			}
			var text strings.Builder
			text.WriteString(c.scheme)
			sep := " "
			for name, value := range c.params {
				text.WriteString(sep + name + `="` + quoted.Replace(value) + `"`)
				sep = ", "
			}
			again = append(again, text.String())
		}
		if total := len(strings.Join(again, "")); total < maxChallengeBytes {
			second, err := parseChallenges(again)
			if err != nil || len(second) != len(again) {
				t.Fatalf("%q is not understood: %v", again, err)
			}
		}
		d, _ := newDigestSession(found, false)
		if d == nil {
			return
		}
		answer, err := d.answer(&Auth{Username: "u", Password: "p"}, get("/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(answer, "\r\n\x00") {
			t.Fatalf("a control character in %q", answer)
		}
		parsed, err := parseChallenges([]string{answer}) // credentials have the same grammar
		if len(answer) < maxChallengeBytes && (err != nil || parsed[0].params["nonce"] != d.nonce || parsed[0].params["realm"] != d.realm) {
			t.Fatalf("%q: %v", answer, err)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:00 GMT")
	f.Add("99999999999999999999", "x")
	f.Fuzz(func(t *testing.T, after, date string) {
		resp := &http.Response{Header: http.Header{"Retry-After": {after}, "Date": {date}}}
		d := retryAfter(resp)
		if d < 0 {
			t.Fatal(d)
		}
		p := Retry{MinBackoff: -1, MaxRetryAfter: time.Minute}
		if pause := p.pause(1, d); pause < 0 || pause > time.Minute {
			t.Fatal(pause)
		}
	})
}
