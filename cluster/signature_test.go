package cluster

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"
)

const example = "v1;kid=0123456789abcdef;ts=1732262400123;nonce=AAAAAAAAAAAAAAAAAAAAAA;from=node-a;to=[::1]:8443;" +
	"digest=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA;sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// FuzzSignatureHeader holds the parser to three invariants: what it takes, String
// writes again to the byte, so no two texts mean the same; what it refuses is
// zero; and nothing is longer than the limit.
func FuzzSignatureHeader(f *testing.F) {
	f.Add(example)
	f.Add("")
	f.Add("v1;")
	f.Add("v1;kid=;ts=;nonce=;from=;to=;digest=;sig=")
	f.Add(strings.Repeat("v1;kid=0123456789abcdef;", 40))
	for field := range strings.SplitSeq(example, ";") {
		f.Add(strings.Replace(example, field, "", 1))
		f.Add(strings.Replace(example, field, field+";"+field, 1))
		f.Add(strings.Replace(example, field, field+" ", 1))
		f.Add(strings.Replace(example, field, field+"\n", 1))
		f.Add(strings.Replace(example, field, field[:max(len(field)-1, 0)]+"=", 1))
	}
	f.Add(strings.Replace(example, "ts=1", "ts=01", 1))
	f.Add(strings.Replace(example, "ts=1", "ts=-1", 1))
	f.Add(strings.Replace(example, "ts=1", "ts=99999999999", 1))
	f.Add(strings.Replace(example, ";sig=AAA", ";sig=\nAA", 1))
	f.Add(strings.TrimSuffix(example, "A") + "B") // bits after the last byte
	f.Add(example + "A")
	f.Add(strings.Replace(example, "node-a", strings.Repeat("a", 256), 1))
	k, err := newKey("f2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E=")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseSignature(text)
		if !ok {
			if s != (signature{}) {
				t.Fatalf("refused, and not zero: %+v", s)
			}
			return
		}
		if got := s.String(); got != text {
			t.Fatalf("read %q, wrote %q", text, got)
		}
		if len(text) > maxSignatureBytes || s.millis <= 0 || !validNode(s.from) || !validNode(s.to) || !validKeyID(s.keyID) {
			t.Fatalf("took %q", text)
		}
		if k.requestMAC(&s, "POST", "/", http.Header{}) == s.mac || k.responseMAC(&s, 200, http.Header{}) == s.mac {
			t.Fatalf("guessed an HMAC: %q", text)
		}
	})
}

func TestTheLongestSignatureFitsItsLimit(t *testing.T) {
	long := strings.Replace(strings.Replace(example, "node-a", strings.Repeat("a", maxNodeBytes), 1), "[::1]:8443", strings.Repeat("b", maxNodeBytes), 1)
	long = strings.Replace(long, "ts=1", "ts=11", 1)
	if _, ok := parseSignature(long); !ok {
		t.Fatalf("a header of %d bytes was refused", len(long))
	}
}

// The fields of what is signed cannot be moved into one another.
func TestNoTwoRequestsAreSignedAsTheSameBytes(t *testing.T) {
	k, err := newKey("f2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E=")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := parseSignature(example)
	h := func(values ...string) http.Header {
		return http.Header{"Content-Type": values[:len(values)-1], "Content-Encoding": values[len(values)-1:]}
	}
	macs := make(map[sum]int)
	for i, mac := range []sum{
		k.requestMAC(&s, "POST", "/a", nil),
		k.requestMAC(&s, "POST/", "a", nil),
		k.requestMAC(&s, "", "POST/a", nil),
		k.requestMAC(&s, "POST", "/a", h("a", "b")),
		k.requestMAC(&s, "POST", "/a", h("ab", "")),
		k.requestMAC(&s, "POST", "/a", h("a", "b", "")),
		k.requestMAC(&s, "POST", "/a", http.Header{"Content-Encoding": {"a", "b"}}),
		k.requestMAC(&s, "POST", "/a", http.Header{"Content-Type": {""}}),
		k.responseMAC(&s, 200, nil),
		k.responseMAC(&s, 201, nil),
	} {
		if other, twice := macs[mac]; twice {
			t.Errorf("%d and %d have the same HMAC", other, i)
		}
		macs[mac] = i
	}
}

// Only somebody who has the secret can make such answers.
func TestAnAnswerIsFromTheNodeThatWasAskedAndToTheOneThatAsked(t *testing.T) {
	const secret, other = "f2mXl7nYw0J8sN4u1cVbZ5q3TgRkPdHe6oAyCxLiB9E=", "Kq8vRt1zWm3cXy6bNj9pLs2dFg5hJk7aQe4uIo0iTwY="
	a := &Auth{Node: "node-a", Secret: secret, Accept: []Secret{other}}
	k, err := newKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*signature)
		fine   bool
	}{
		"as it should be":    {func(*signature) {}, true},
		"from another node":  {func(s *signature) { s.from = "node-c" }, false},
		"to another node":    {func(s *signature) { s.to = "node-c" }, false},
		"to another request": {func(s *signature) { s.nonce = newNonce() }, false},
		"of another secret":  {func(s *signature) { s.keyID = a.Status().Accepted[1] }, false},
		"of an unknown one":  {func(s *signature) { s.keyID = "0123456789abcdef" }, false},
		"much later":         {func(s *signature) { s.millis *= 2 }, true}, // the nonce tells which request it is of
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://node-b/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Authorize(r, "node-b"); err != nil {
				t.Fatal(err)
			}
			asked, _ := parseSignature(r.Header.Get(SignatureHeader))
			s := signature{keyID: k.id, millis: asked.millis, nonce: asked.nonce, from: "node-b", to: "node-a", digest: sha256.Sum256(nil)}
			test.change(&s)
			s.mac = k.responseMAC(&s, http.StatusOK, nil)
			resp := &http.Response{StatusCode: http.StatusOK, Request: r, Body: http.NoBody, Header: http.Header{SignatureHeader: {s.String()}}}
			if err := a.Verify(resp); (err == nil) != test.fine {
				t.Error(err)
			}
		})
	}
}
