package meshclient

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzAProblemIsShortAndHarmless(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{}`, `[]`, `<html>certificate`, `<?xml`, `{"detail":[{"event":"SEND","code":"12","msg":"x"}]}`, `{"detail":{"code":12}}`,
		`{"errorEvent":"SEND","errorCode":17,"errorDescription":"x","messageID":"M"}`, `{"detail":"x"}`, `{"message":"\u0000\u202e"}`, `{"detail":[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p := parseProblem(body)
		if p.shape == "" || len(p.text) > maxDescription || !utf8.ValidString(p.text) {
			t.Fatalf("shape %q, %d bytes of text", p.shape, len(p.text))
		}
		for _, s := range []string{p.code, p.event, p.id} {
			if len(s) > maxID || strings.ContainsAny(s, "<>:\"'\r\n/@") {
				t.Fatalf("%q is no word", s)
			}
		}
		if strings.ContainsAny(p.text, "\r\n\x00\x1b") {
			t.Fatalf("%q has control characters", p.text)
		}
	})
}

func FuzzAChunkRangeIsInBounds(f *testing.F) {
	for _, seed := range []string{"1:1", "1:0", "2:5", "0:1", "5:2", "1:99999999999", ":", "", "+1:+1", " 1:2 ", "-1:2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, n, ok := parseRange(s)
		if !ok && (i != 0 || n != 0) || ok && (i < 1 || n > maxChunks || i > n && n != 0) {
			t.Fatalf("%q: %d of %d", s, i, n)
		}
		h := http.Header{"Mex-Chunk-Range": {s}}
		if info := parseInfo(h); info.Chunks < 1 || info.Chunks > maxChunks {
			t.Fatalf("%q: %d chunks", s, info.Chunks)
		}
	})
}

func FuzzATrackingNeverFailsOnWhatItHolds(f *testing.F) {
	for _, seed := range []string{"20200606122153", "2020-06-01T12:21:52", "2026-11-27T03:20:36.131546", "soon", "9999999999999999", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted, err := json.Marshal(s)
		if err != nil {
			return
		}
		for _, value := range []string{string(quoted), "null", "7", "true"} {
			var b trackingBody
			doc := `{"upload_timestamp":` + value + `,"status":` + value + `,"status_success":` + value + `}`
			if err := json.Unmarshal([]byte(doc), &b); err != nil {
				t.Fatal(err)
			}
			if b.tracking(); len(b.Uploaded.Raw) > 40 || b.Uploaded.Raw == "" && !b.Uploaded.IsZero() {
				t.Fatalf("%q became %+v", s, b.Uploaded)
			}
		}
	})
}

func FuzzATextSurvivesBeingEscaped(f *testing.F) {
	for _, seed := range []string{"a b+c%20", "rés umé.csv", "100%", "%zz", "日本 語", "%C3%A9"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		escaped := escapeText(s)
		for i := range len(escaped) {
			if escaped[i] >= utf8.RuneSelf {
				t.Fatalf("%q is not ASCII", escaped)
			}
		}
		if utf8.ValidString(s) && escaped != s && UnescapeText(escaped) != s {
			t.Fatalf("%q came back as %q", s, UnescapeText(escaped))
		}
	})
}

func FuzzALinkNeverLeadsAwayFromTheInbox(f *testing.F) {
	for _, seed := range []string{
		"/messageexchange/M/inbox?continue_from=a%2Fb+c", "https://a.example/messageexchange/M/inbox?x", "//evil/M/inbox?x", "https://u:p@a.example/M/inbox?x",
		"javascript:alert(1)", "?x", "/M/inbox?a\r\nb", "/M/inbox#?x",
	} {
		f.Add(seed)
	}
	conf := Config{BaseURL: "https://a.example", Mailbox: "M", Password: "p", HashSecret: "h"}
	conf, base, err := conf.validate()
	if err != nil {
		f.Fatal(err)
	}
	c := &Client{conf: conf, base: base}
	f.Fuzz(func(t *testing.T, link string) {
		query, err := c.nextQuery(link)
		if err != nil {
			return
		}
		r, err := http.NewRequest(http.MethodGet, c.base.String()+path("M", "inbox")+"?"+query, http.NoBody)
		if err == nil && (r.URL.Host != "a.example" || r.URL.Path != "/messageexchange/M/inbox") {
			t.Fatalf("%q leads to %s", link, r.URL)
		}
	})
}

func FuzzPEMAndChecksumsAreTakenOrRefused(f *testing.F) {
	for _, seed := range []string{"sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e", `-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----`, "-----BEGIN RSA PRIVATE KEY-----", "\\r\\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if h, want := digestOf(s); h != nil && len(want) != 2*h.Size() {
			t.Fatalf("%q: %q", s, want)
		}
		if roots, err := pool(unescape(s), nil); (roots == nil) == (err == nil) {
			t.Fatal("neither roots nor an error, or both")
		}
		conf := Config{ClientCert: "-----BEGIN " + s, ClientKey: "-----BEGIN " + s}
		if pair, err := conf.pair(); (pair == nil) == (err == nil) {
			t.Fatal("neither a certificate nor an error, or both")
		}
	})
}
