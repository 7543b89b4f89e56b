package httpsender_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
)

// content opens a body twice and returns what is in it.
func content(t testing.TB, b *httpsender.Body) string {
	t.Helper()
	var got [2]string
	for i := range got {
		rc, err := b.Open()
		require.NoError(t, err)
		all, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		got[i] = string(all)
	}
	assert.Equal(t, got[0], got[1])
	return got[0]
}

func TestBodies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, []byte("0123456789"), 0o600))
	whole, err := httpsender.File("a/b", file)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		body *httpsender.Body
		want string
		size int64
		kind string
	}{
		"bytes":       {httpsender.Bytes("a/b", []byte("x")), "x", 1, "a/b"},
		"no bytes":    {httpsender.Bytes("", nil), "", 0, ""},
		"a file":      {whole, "0123456789", 10, "a/b"},
		"part of one": {httpsender.Section("a/b", strings.NewReader("0123456789"), 3, 4), "3456", 4, "a/b"},
		"a function":  {httpsender.Func("a/b", -9, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("f")), nil }), "f", -1, "a/b"},
		"a form":      {httpsender.Form(url.Values{"a": {"1 &", "2"}, "b": {"\u00e4"}}), "a=1+%26&a=2&b=%C3%A4", 20, "application/x-www-form-urlencoded"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, content(t, c.body))
			assert.Equal(t, c.size, c.body.Len())
			assert.Equal(t, c.kind, c.body.ContentType)
			bubble(t, func(t *testing.T) {
				s := &httpsender.Sender{}
				server := rawly(t, s, nil, say(fine))
				for range 2 {
					r := request(t, "POST", origin, c.body)
					_, _, err := exchange(s, r)
					require.NoError(t, err)
				}
				for _, r := range server.got() {
					assert.Equal(t, c.want, r.body)
					assert.Equal(t, c.size, r.ContentLength)
					if c.size != 0 {
						assert.Equal(t, c.kind, r.Header.Get("Content-Type"))
					}
				}
			})
		})
	}
	_, err = httpsender.File("", t.TempDir())
	require.Error(t, err)
	_, err = httpsender.File("", file+"x")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = httpsender.Section("", strings.NewReader("x"), -1, 1).Open()
	require.Error(t, err)
	_, err = httpsender.NewRequest(t.Context(), "GET", "http://u:hunter2@host:port/", nil)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "hunter2")
}

func TestARequestOfABodyWorksWithAnyClient(t *testing.T) {
	srv := servePlain(t)
	opened := 0
	r := request(t, "POST", srv.URL, httpsender.Func("", 4, func() (io.ReadCloser, error) {
		opened++
		return io.NopCloser(strings.NewReader("body")), nil
	}))
	require.NoError(t, r.Clone(t.Context()).Body.Close())
	assert.Zero(t, opened)
	r = request(t, "POST", srv.URL, text("body"))
	resp, err := srv.Client().Do(r)
	require.NoError(t, err)
	read(resp)
	_, err = r.Body.Read(make([]byte, 1))
	assert.Error(t, err, "it is closed")
}

func TestABodyThatBreaksIsTheSendersFault(t *testing.T) {
	broken := errors.New("the disk is gone")
	for name, c := range map[string]struct {
		open    func() (io.ReadCloser, error)
		outcome httpsender.Outcome
	}{
		"when it is opened":    {func() (io.ReadCloser, error) { return nil, broken }, httpsender.Rejected},
		"when it is read":      {func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(broken)), nil }, httpsender.Unknown},
		"when it is too short": {func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }, httpsender.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &httpsender.Sender{Retry: quick()}
				server := rawly(t, s, nil, say(fine))
				e := outcome(t, s, request(t, "POST", origin, httpsender.Func("", 100<<10, c.open)))
				assert.Equal(t, c.outcome, e.Outcome, "%v", e)
				if name != "when it is too short" {
					assert.ErrorIs(t, e, broken)
				}
				assert.NotContains(t, e.Error(), "disk", "a body's error may hold anything")
				assert.Empty(t, server.got(), "the server saw no whole request")
			})
		})
	}
}

func TestABodyThatIsNotSentIsClosed(t *testing.T) {
	for name, size := range map[string]int64{"short": 10, "long": 1 << 20} {
		for _, refused := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " ", refused), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					var bodies []*closable
					s := &httpsender.Sender{Retry: quick()}
					server := rawly(t, s, nil, say(fine))
					if refused {
						s.BeforeAttempt = func(*http.Request) error { return io.ErrNoProgress }
					}
					_, _, err := exchange(s, request(t, "POST", origin, httpsender.Func("", size, func() (io.ReadCloser, error) {
						c := &closable{Reader: io.LimitReader(zeroReader{}, size)}
						bodies = append(bodies, c)
						return c, nil
					})))
					assert.Equal(t, refused, err != nil)
					s.Close()
					synctest.Wait()
					assert.NotEmpty(t, bodies)
					for _, c := range bodies {
						assert.True(t, c.closed)
					}
					assert.Equal(t, !refused, len(server.got()) == 1)
				})
			})
		}
	}
}

func TestMultipart(t *testing.T) {
	long := strings.Repeat("long ", 30_000)
	parts := []httpsender.Part{
		{Name: "patient", Body: httpsender.Bytes("", []byte("Meier"))},
		{Name: `a "name"` + "\r\n", FileName: `f"1.pdf`, Body: httpsender.Bytes("application/pdf", []byte(long))},
		{Name: "empty", FileName: "e", Body: httpsender.Bytes("", nil)},
	}
	check := func(t *testing.T, b *httpsender.Body) {
		t.Helper()
		text := content(t, b)
		if b.Len() >= 0 {
			assert.Equal(t, int64(len(text)), b.Len())
		}
		_, params, err := mime.ParseMediaType(b.ContentType)
		require.NoError(t, err)
		form, err := multipart.NewReader(strings.NewReader(text), params["boundary"]).ReadForm(1 << 20)
		require.NoError(t, err)
		assert.Equal(t, map[string][]string{"patient": {"Meier"}}, form.Value)
		f := form.File["a %22name%22%0D%0A"]
		require.Len(t, f, 1)
		assert.Equal(t, "f%221.pdf", f[0].Filename)
		assert.Equal(t, "application/pdf", f[0].Header.Get("Content-Type"))
		assert.Equal(t, int64(len(long)), f[0].Size)
		assert.Equal(t, "application/octet-stream", form.File["empty"][0].Header.Get("Content-Type"))
	}
	b, err := httpsender.Multipart(parts...)
	require.NoError(t, err)
	assert.Positive(t, b.Len())
	check(t, b)
	// In the smallest of pieces, too.
	rc, err := b.Open()
	require.NoError(t, err)
	require.NoError(t, iotest.TestReader(onlyRead{rc}, []byte(content(t, b))))

	parts[1].Body = httpsender.Func("application/pdf", -1, parts[1].Body.Open)
	b, err = httpsender.Multipart(parts...)
	require.NoError(t, err)
	assert.Equal(t, int64(-1), b.Len())
	check(t, b)

	none, err := httpsender.Multipart()
	require.NoError(t, err)
	assert.Len(t, content(t, none), int(none.Len()))
	for name, part := range map[string]httpsender.Part{
		"no name":             {Body: text("")},
		"no body":             {Name: "a"},
		"a header of its own": {Name: "a", Body: httpsender.Bytes("a/b\r\nX: y", nil)},
		"compressed":          {Name: "a", Body: httpsender.Gzip(text("x"))},
	} {
		_, err := httpsender.Multipart(part)
		assert.Error(t, err, name)
	}
}

// onlyRead hides all but Read.
type onlyRead struct{ io.Reader }

func TestGzip(t *testing.T) {
	plain := make([]byte, 100<<10)
	for i := range plain {
		plain[i] = byte(rand.N(4))
	}
	for _, want := range [][]byte{nil, []byte("short"), plain} {
		b := httpsender.Gzip(httpsender.Bytes("a/b", want))
		packed := content(t, b)
		zr, err := gzip.NewReader(strings.NewReader(packed))
		require.NoError(t, err)
		got, err := io.ReadAll(zr)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, got))
		assert.Equal(t, int64(-1), b.Len())
	}
	r := request(t, "POST", origin, httpsender.Gzip(text("x")))
	assert.Equal(t, "gzip", r.Header.Get("Content-Encoding"))
	assert.Equal(t, "text/plain", r.Header.Get("Content-Type"))
	_, err := httpsender.Gzip(httpsender.Func("", 1, func() (io.ReadCloser, error) { return nil, io.ErrNoProgress })).Open()
	assert.ErrorIs(t, err, io.ErrNoProgress)
}

func TestMemoryOfALongBody(t *testing.T) {
	if raceDetector {
		t.Skip("skipped: the race detector has memory of its own")
	}
	const size = 256 << 20
	srv := servePlain(t)
	s := &httpsender.Sender{ProxyURL: httpsender.DirectOnly}
	defer s.Close()
	zeros := httpsender.Func("", size, func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeroReader{}, size)), nil })
	form, err := httpsender.Multipart(httpsender.Part{Name: "f", FileName: "f", Body: zeros})
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	status, _, err := exchange(s, request(t, "POST", srv.URL, form))
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20), "bytes that were allocated in all to send 256 MiB")
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestNothingThatIsToldHoldsASecret(t *testing.T) {
	var log strings.Builder
	var j journal
	secrets := []string{
		"hunter2", "tok3n", "9434765919", "Meier", "/secretpath", "X-Planted", "aHVudGVy",
	}
	p := newPKI(t)
	srv := serveTLS(t, p, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		switch r.Header.Get("X-Case") {
		case "fail":
			w.Header().Set("X-Planted", "Meier")
			w.WriteHeader(500)
			io.WriteString(w, "Meier 9434765919")
		case "challenge":
			w.Header().Set("WWW-Authenticate", `Digest realm="Meier", nonce="Meier"`)
			w.WriteHeader(401)
		case "garbage", "cut":
			c, buf, _ := http.NewResponseController(w).Hijack()
			if r.Header.Get("X-Case") == "cut" {
				buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nMeier")
			} else {
				buf.WriteString("Meier: 9434765919\r\n\r\n")
			}
			buf.Flush()
			c.Close()
		}
	})
	for _, auth := range []httpsender.Auth{
		{Scheme: "basic", Username: "u", Password: "hunter2"},
		{Scheme: "digest", Username: "u", Password: "hunter2"},
		{Scheme: "bearer", Token: "tok3n"},
	} {
		s := &httpsender.Sender{
			TLS: p.known(), Auth: auth, Observe: j.observe, Logger: everything(&log), DisableHTTP2: true,
			ProxyURL: httpsender.DirectOnly, Retry: httpsender.Retry{MaxAttempts: 2, MinBackoff: -1},
			BeforeAttempt: func(r *http.Request) error { r.Header.Set("X-Planted", "hunter2"); return nil },
		}
		for _, kind := range []string{"ok", "fail", "challenge", "garbage", "cut"} {
			for _, method := range []string{"GET", "POST"} {
				r := request(t, method, srv.URL+"/secretpath?nhs=9434765919&t=tok3n", text("Meier"))
				r.Header.Set("X-Case", kind)
				resp, err := s.Do(r)
				if err == nil {
					if _, err = read(resp); err == nil {
						err = httpsender.Check(resp)
					}
				}
				if kind != "ok" {
					require.Error(t, err)
				}
				for e := err; e != nil; e = errors.Unwrap(e) {
					fmt.Fprintf(&log, "%v %+v %#v\n", e, e, e.Error())
				}
			}
		}
		s.Close()
	}
	for _, kind := range []httpsender.EventKind{"connected", "attempt", "retry", "received", "circuit", "rotated"} {
		for _, e := range j.of(kind) {
			fmt.Fprintf(&log, "%v %s\n", e, e)
		}
	}
	told := log.String()
	for _, control := range []string{"event=attempt", "event=retry", "event=received", "event=connected", "not well-formed", srv.URL} {
		assert.Contains(t, told, control, "the control: it was told")
	}
	for _, secret := range secrets {
		assert.NotContains(t, told, secret)
	}
}
