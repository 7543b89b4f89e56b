package httpsender_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/httpsender"
	"github.com/carewire/carewire/internal/interop"
)

// nginx runs the real one with a server that requires client certificates, and
// returns its URL.
func nginx(t *testing.T, p *pki, extra string) string {
	t.Helper()
	path := interop.Need(t, "nginx")
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "logs"), 0o700))
	addr := loopback()
	host, _, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	pair := p.ca.Server(host).Write(dir, "nginx")
	config := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(config, []byte(strings.NewReplacer(
		"ADDR", addr, "DIR", dir, "CERT", pair.Cert, "KEY", pair.Key, "CA", p.caFile, "EXTRA", extra,
	).Replace(`
daemon off;
master_process off;
pid DIR/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
	server {
		listen ADDR ssl http2;
		ssl_certificate CERT;
		ssl_certificate_key KEY;
		ssl_client_certificate CA;
		ssl_verify_client on;
		client_max_body_size 1m;
		EXTRA
		location / {
			add_header X-Client $ssl_client_s_dn;
			add_header X-Serial $connection;
			return 200 "$server_protocol $request_method";
		}
	}
}
`)), 0o600))
	child(t, addr, path, "-p", dir, "-c", config, "-e", "stderr")
	return "https://" + addr
}

func TestNginx(t *testing.T) {
	p := newPKI(t)
	url := nginx(t, p, "keepalive_requests 50;")
	for name, off := range map[string]bool{"HTTP/2.0": false, "HTTP/1.1": true} {
		t.Run(name, func(t *testing.T) {
			var j journal
			s := &httpsender.Sender{TLS: p.known(), DisableHTTP2: off, ProxyURL: httpsender.DirectOnly, Observe: j.observe}
			defer s.Close()
			t.Run("twenty requests on one connection", func(t *testing.T) {
				for range 20 {
					resp, err := s.Do(request(t, "POST", url, text("x")))
					require.NoError(t, err)
					body, err := read(resp)
					require.NoError(t, err)
					assert.Equal(t, name+" POST", body)
					assert.Contains(t, resp.Header.Get("X-Client"), "CN=a client")
				}
				assert.Len(t, j.of(httpsender.EventConnected), 1)
			})
			t.Run("many at a time, while it ends connections", func(t *testing.T) {
				var all sync.WaitGroup
				for range 8 {
					all.Go(func() {
						for range 40 {
							status, _, err := exchange(s, request(t, "GET", url, nil))
							assert.NoError(t, err)
							assert.Equal(t, 200, status)
						}
					})
				}
				all.Wait()
				assert.Greater(t, len(j.of(httpsender.EventConnected)), 1)
			})
			t.Run("an early refusal of a long body", func(t *testing.T) {
				resp, err := s.Do(request(t, "POST", url, httpsender.Bytes("", make([]byte, 32<<20))))
				if err != nil { // its reset may come before its answer is read
					assert.Equal(t, httpsender.Unknown, failed(t, err).Outcome)
					return
				}
				defer resp.Body.Close()
				assert.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
			})
		})
	}
	t.Run("no client certificate is a 400", func(t *testing.T) {
		props := p.known()
		props.KeyStorePath, props.CertStorePath = "", ""
		s := &httpsender.Sender{TLS: props, ProxyURL: httpsender.DirectOnly}
		defer s.Close()
		e := outcome(t, s, request(t, "POST", url, text("x")))
		assert.Equal(t, 400, e.Status)
		assert.Equal(t, httpsender.Rejected, e.Outcome)
	})
}

// frames is a server that speaks HTTP/2 by hand: it refuses the first requests
// as script says, and answers the others.
type frames struct {
	script []func(w io.Writer, stream uint32)

	mu     sync.Mutex
	tokens []string // guarded by mu: header blocks as they came
}

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	head := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}
	return append(head, payload...)
}

func (f *frames) serve(c net.Conn) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	c.Write(frame(4, 0, 0, nil)) // SETTINGS
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(c, payload); err != nil {
			return
		}
		stream := uint32(head[5])<<24 | uint32(head[6])<<16 | uint32(head[7])<<8 | uint32(head[8])
		switch head[3] {
		case 1: // HEADERS
			f.mu.Lock()
			f.tokens = append(f.tokens, fmt.Sprint(stream))
			var step func(io.Writer, uint32)
			if len(f.script) > 0 {
				step, f.script = f.script[0], f.script[1:]
			}
			f.mu.Unlock()
			if step != nil {
				step(c, stream)
				continue
			}
			c.Write(frame(1, 5, stream, []byte{0x88})) // :status 200, and the end
		case 4:
			if head[4] == 0 {
				c.Write(frame(4, 1, 0, nil)) // ACK
			}
		case 6:
			if head[4] == 0 {
				c.Write(frame(6, 1, 0, payload))
			}
		}
	}
}

func refuseStream(w io.Writer, stream uint32) {
	w.Write(frame(3, 0, stream, []byte{0, 0, 0, 7})) // RST_STREAM, REFUSED_STREAM
}

func goAway(w io.Writer, _ uint32) {
	w.Write(frame(7, 0, 0, make([]byte, 8))) // GOAWAY, last stream 0, NO_ERROR
}

func resetStream(w io.Writer, stream uint32) {
	w.Write(frame(3, 0, stream, []byte{0, 0, 0, 2})) // INTERNAL_ERROR
}

func TestAStreamThatHTTP2RefusesIsSentAgainWithATokenOfItsOwn(t *testing.T) {
	p := newPKI(t)
	for name, c := range map[string]struct {
		step func(io.Writer, uint32)
		safe bool // whatever the method
	}{
		"REFUSED_STREAM": {refuseStream, true},
		"GOAWAY":         {goAway, true},
		"INTERNAL_ERROR": {resetStream, false},
	} {
		for _, q := range asked {
			for _, body := range []*httpsender.Body{nil, text("x"), httpsender.Bytes("", make([]byte, 100<<10))} {
				t.Run(fmt.Sprintf("%s %s %v", name, q.name, body != nil), func(t *testing.T) {
					f := &frames{script: []func(io.Writer, uint32){nil, c.step}}
					ln, err := net.Listen("tcp", "127.0.0.1:0")
					require.NoError(t, err)
					config := p.mutual()
					config.NextProtos = []string{"h2"}
					secure := tls.NewListener(ln, config)
					var serving sync.WaitGroup
					serving.Go(func() {
						for {
							conn, err := secure.Accept()
							if err != nil {
								return
							}
							serving.Go(func() { f.serve(conn) })
						}
					})
					attempts, wire := 0, 2
					s := &httpsender.Sender{
						TLS: p.known(), ProxyURL: httpsender.DirectOnly, Retry: quick(),
						BeforeAttempt: func(*http.Request) error { attempts++; return nil },
					}
					defer func() {
						s.Close()
						ln.Close()
						serving.Wait()
					}()
					url := "https://" + ln.Addr().String()
					_, _, err = exchange(s, request(t, "GET", url, nil))
					require.NoError(t, err)
					r := request(t, q.method, url, body)
					if q.declare {
						r.Header.Set("Idempotency-Key", "k")
					}
					status, _, err := exchange(s, r)
					if c.safe || q.harmless {
						require.NoError(t, err)
						assert.Equal(t, 200, status)
						wire = 3
						// After a GOAWAY an attempt may choose the connection and write nothing.
						assert.Contains(t, []int{3, 4}, attempts, "the hook saw every attempt")
					} else {
						assert.Equal(t, httpsender.Unknown, failed(t, err).Outcome)
						assert.Equal(t, 2, attempts)
					}
					f.mu.Lock()
					assert.Len(t, f.tokens, wire, "nobody but the Sender sent anything again")
					f.mu.Unlock()
				})
			}
		}
	}
}
