package httpsender_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/memnet"
)

// zipped returns b compressed.
func zipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// answering returns a reply with a header and a body of that length.
func answering(header string, body []byte) reply {
	return say("HTTP/1.1 200 OK\r\n" + header + "Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + string(body))
}

const inGzip = "Content-Encoding: gzip\r\n"

func TestAnAnswerIsLimited(t *testing.T) {
	exact, over := bytes.Repeat([]byte("x"), 1000), bytes.Repeat([]byte("x"), 1001)
	chunked := func(b []byte) reply {
		return say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strconv.FormatInt(int64(len(b)), 16) + "\r\n" + string(b) + "\r\n0\r\n\r\n")
	}
	for name, c := range map[string]struct {
		answer reply
		want   int // bytes that are got
		large  bool
	}{
		"with as many bytes as it may":      {answering("", exact), 1000, false},
		"with one more":                     {answering("", over), 0, true},
		"in chunks with as many":            {chunked(exact), 1000, false},
		"in chunks with one more":           {chunked(over), 1000, true},
		"compressed with as many":           {answering(inGzip, zipped(exact)), 1000, false},
		"compressed with one more":          {answering(inGzip, zipped(over)), 1000, true},
		"compressed, a bomb":                {answering(inGzip, zipped(make([]byte, 3<<20))), 1000, true},
		"compressed, in more than its data": {answering(inGzip, bytes.Repeat(zipped(nil), 50_000)), 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &httpsender.Sender{MaxResponseBytes: 1000}
				rawly(t, s, nil, c.answer)
				resp, err := s.Do(request(t, "POST", origin, text("x")))
				require.NoError(t, err)
				body, err := read(resp)
				assert.Len(t, body, c.want)
				if !c.large {
					require.NoError(t, err)
					return
				}
				e := failed(t, err)
				large, ok := errors.AsType[*httpsender.TooLargeError](err)
				require.True(t, ok, "%v", err)
				assert.Equal(t, int64(1000), large.Limit)
				assert.True(t, e.MaybeDelivered(), "the server did act")
				assert.False(t, e.Retryable(), "and the answer will be as long the next time")
			})
		})
	}
}

func TestCompressionIsLimitedByItsRatioToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{MaxResponseBytes: -1}
		rawly(t, s, nil, answering(inGzip, zipped(make([]byte, 6<<20))))
		resp, err := s.Do(request(t, "GET", origin, nil))
		require.NoError(t, err)
		body, err := read(resp)
		large, ok := errors.AsType[*httpsender.TooLargeError](err)
		require.True(t, ok, "%v", err)
		assert.True(t, large.Ratio)
		assert.Equal(t, int64(100), large.Limit)
		assert.Less(t, len(body), 2<<20)
		assert.Equal(t, httpsender.Rejected, failed(t, err).Outcome)

		s2 := &httpsender.Sender{MaxResponseBytes: -1, MaxCompressionRatio: -1}
		rawly(t, s2, nil, answering(inGzip, zipped(make([]byte, 3<<20))))
		_, zeros, err := exchange(s2, request(t, "GET", origin, nil))
		require.NoError(t, err)
		assert.Len(t, zeros, 3<<20)
	})
}

func TestAnAnswerIsDecompressedUnlessTheCallerAskedForIt(t *testing.T) {
	packed := zipped([]byte("hello"))
	for name, c := range map[string]struct {
		header, value string
		method        string
		asked, want   string
	}{
		"by default":               {"", "", "GET", "gzip", "hello"},
		"not if it names a coding": {"Accept-Encoding", "gzip, br", "GET", "gzip, br", string(packed)},
		"nor for part of a file":   {"Range", "bytes=0-99", "GET", "", string(packed)},
		"nor for HEAD":             {"", "", "HEAD", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &httpsender.Sender{}
				server := rawly(t, s, nil, func(conn *memnet.Conn, r *seen) bool {
					if r.Method == "HEAD" {
						return say("HTTP/1.1 200 OK\r\n"+inGzip+"Content-Length: 100000000\r\n\r\n")(conn, r)
					}
					return answering(inGzip, packed)(conn, r)
				})
				r := request(t, c.method, origin, nil)
				if c.header != "" {
					r.Header.Set(c.header, c.value)
				}
				resp, err := s.Do(r)
				require.NoError(t, err)
				body, err := read(resp)
				require.NoError(t, err)
				assert.Equal(t, c.want, body)
				assert.Equal(t, c.asked, server.got()[0].Header.Get("Accept-Encoding"))
				assert.Equal(t, c.want == "hello", resp.Uncompressed)
				if resp.Uncompressed {
					assert.Empty(t, resp.Header.Get("Content-Encoding"))
					assert.Equal(t, int64(-1), resp.ContentLength)
				}
			})
		})
	}
}

func TestAnAnswerThatBreaksOffIsAnErrorOfReadingIt(t *testing.T) {
	packed := zipped([]byte(strings.Repeat("hello", 100)))
	for name, c := range map[string]struct {
		answer string
		want   error
	}{
		"by its length":      {"Content-Length: 10\r\n\r\nhalf", httpsender.ErrConnectionLost},
		"in its chunks":      {"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", httpsender.ErrConnectionLost},
		"with a bad chunk":   {"Transfer-Encoding: chunked\r\n\r\nMeier\r\nhello\r\n", httpsender.ErrBadResponse},
		"in its compression": {inGzip + "Content-Length: 20\r\n\r\n" + string(packed[:20]), httpsender.ErrConnectionLost},
		"in no compression":  {inGzip + "Content-Length: 30\r\n\r\n" + strings.Repeat("Meier ", 5), httpsender.ErrBadResponse},
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"GET", "POST"} {
				bubble(t, func(t *testing.T) {
					s := &httpsender.Sender{}
					rawly(t, s, nil, func(conn *memnet.Conn, r *seen) bool {
						io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+c.answer)
						return false
					})
					resp, err := s.Do(request(t, method, origin, text("x")))
					require.NoError(t, err)
					_, err = read(resp)
					e := failed(t, err)
					assert.ErrorIs(t, e, c.want)
					assert.NotContains(t, e.Error(), "Meier")
					assert.Equal(t, method == "POST", e.MaybeDelivered())
					assert.True(t, e.Retryable())
					_, again := resp.Body.Read(make([]byte, 1))
					assert.Error(t, again)
				})
			}
		})
	}
}

func TestAnAnswerThatIsNotReadCostsNoMoreThanALittle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{}
		server := rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool {
			switch r.URL.Path {
			case "/short":
				return answering("", make([]byte, 60<<10))(c, r)
			case "/long":
				return answering("", make([]byte, 10<<20))(c, r)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nslow")
			time.Sleep(time.Minute)
			return false
		})
		get := func(path string) int {
			start := time.Now()
			resp, err := s.Do(request(t, "GET", origin+path, nil))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.NoError(t, resp.Body.Close())
			_, err = resp.Body.Read(make([]byte, 1))
			assert.Error(t, err)
			assert.LessOrEqual(t, time.Since(start), 250*time.Millisecond)
			got := server.got()
			return got[len(got)-1].conn
		}
		assert.Equal(t, 1, get("/short"))
		assert.Equal(t, 1, get("/long"), "what was left of the short answer was read")
		assert.Equal(t, 2, get("/slow"), "what was left of the long one was not")
		assert.Equal(t, 3, get("/short"))
	})
}

func TestAnAnswerCanBeClosedWhileItIsRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{MaxRequestsPerHost: 1}
		rawly(t, s, nil, func(c *memnet.Conn, r *seen) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nslow")
			time.Sleep(time.Minute)
			return false
		})
		for range 2 { // the place is free again
			resp, err := s.Do(request(t, "GET", origin, nil))
			require.NoError(t, err)
			start := time.Now()
			time.AfterFunc(time.Second, func() { resp.Body.Close() })
			_, err = io.ReadAll(resp.Body)
			require.Error(t, err)
			assert.Equal(t, time.Second, time.Since(start))
			synctest.Wait()
		}
	})
}

func TestAnEarlyAnswerIsReturnedThoughTheBodyWasNotTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &httpsender.Sender{}
		rawly(t, s, func(c *memnet.Conn, _ int) bool {
			io.ReadFull(c, make([]byte, 1000))
			io.WriteString(c, "HTTP/1.1 413 Too large\r\nContent-Length: 3\r\n\r\nbig")
			time.Sleep(time.Second)
			return false
		}, nil)
		resp, err := s.Do(request(t, "POST", origin, httpsender.Bytes("", make([]byte, 100<<20))))
		require.NoError(t, err)
		assert.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
		body, err := read(resp)
		require.NoError(t, err)
		assert.Equal(t, "big", body)
	})
}
