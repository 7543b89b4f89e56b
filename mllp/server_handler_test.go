package mllp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

func TestTheAnswerFollowsFromTheHandler(t *testing.T) {
	own := "MSH|^~\\&|C|D|A|B|20260101||ACK^A01|x1|P|2.5\rMSA|AR|id1|own text\r"
	for name, tc := range map[string]struct {
		reply  []byte
		err    error
		panics any
		want   mllp.Ack
		told   []string
		ends   bool
	}{
		"nothing":             {want: mllp.Ack{Code: mllp.AA, ControlID: "id1"}},
		"a reply of its own":  {reply: []byte(own), want: mllp.Ack{Code: mllp.AR, ControlID: "id1", Text: "own text"}},
		"a reply and error":   {reply: []byte(own), err: errors.New("x"), want: mllp.Ack{Code: mllp.AE, ControlID: "id1", Text: "internal error", ErrorCode: "207"}, told: []string{"handler_failed"}},
		"a Nak":               {err: &mllp.Nak{Code: mllp.AR, Text: "no such ward"}, want: mllp.Ack{Code: mllp.AR, ControlID: "id1", Text: "no such ward", ErrorCode: "207"}},
		"a wrapped Nak":       {err: fmt.Errorf("x: %w", &mllp.Nak{Code: mllp.CE}), want: mllp.Ack{Code: mllp.CE, ControlID: "id1", ErrorCode: "207"}},
		"a Nak without code":  {err: &mllp.Nak{}, want: mllp.Ack{Code: mllp.AE, ControlID: "id1", ErrorCode: "207"}},
		"a Nak that is an AA": {err: &mllp.Nak{Code: mllp.AA}, want: mllp.Ack{Code: mllp.AE, ControlID: "id1", ErrorCode: "207"}},
		"a long Nak":          {err: &mllp.Nak{Code: mllp.AE, Text: strings.Repeat("x", 200)}, want: mllp.Ack{Code: mllp.AE, ControlID: "id1", Text: strings.Repeat("x", 80), ErrorCode: "207"}},
		"another error":       {err: errors.New(canary), want: mllp.Ack{Code: mllp.AE, ControlID: "id1", Text: "internal error", ErrorCode: "207"}, told: []string{"handler_failed"}},
		"a panic":             {panics: canary, want: mllp.Ack{Code: mllp.AE, ControlID: "id1", Text: "internal error", ErrorCode: "207"}, told: []string{"handler_failed panic"}},
		"an unsendable reply": {reply: []byte("MSH|\x0b"), want: mllp.Ack{Code: mllp.AE, ControlID: "id1", Text: "internal error", ErrorCode: "207"}, told: []string{"handler_failed"}},
		"no reply":            {err: fmt.Errorf("x: %w", mllp.ErrNoReply), ends: true, told: []string{"closed no_reply"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
					if string(r.Header.ControlID) != "id1" {
						return nil, nil
					}
					if tc.panics != nil {
						panic(tc.panics)
					}
					return tc.reply, tc.err
				})})
				c := s.call()
				c.say(frame(msgA))
				if tc.ends {
					assert.Equal(t, "end", c.hear())
				} else {
					text, err := c.frames.Next()
					require.NoError(t, err)
					a, err := mllp.ParseAck(text)
					require.NoError(t, err)
					assert.Equal(t, tc.want, a)
					c.say(frame(msgB))
					assert.Equal(t, "AA id2", c.hear(), "the connection goes on")
				}
				c.raw.Close()
				synctest.Wait()
				assert.Equal(t, tc.told, s.told())
				assert.NotContains(t, s.log.String(), "Canary")
			})
		})
	}
}

func TestNothingIsAnsweredToAnAcknowledgementWhateverTheHandlerReturns(t *testing.T) {
	results := []struct {
		reply []byte
		err   error
	}{{nil, nil}, {[]byte(msgA), nil}, {nil, errors.New("x")}, {nil, &mllp.Nak{Code: mllp.AR}}}
	synctest.Test(t, func(t *testing.T) {
		n := 0
		s := serve(t, &mllp.Server{Strict: true, Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			assert.NotZero(t, r.Flags&mllp.IsAck)
			n++
			return results[n-1].reply, results[n-1].err
		})})
		c := s.call()
		for range results {
			c.say(frame("MSH|^~\\&|A|B|C|D|20260101||ACK|id9|P|2.5\rMSA|AA|id0\r"))
		}
		c.quiet(time.Minute)
		c.say("\x0bMSH|^~\\&|A|B|C|D|20260101||ACK|id9|P|2.5\rMSA|AA|id0\r\x1c\x0bMSH|")
		assert.Equal(t, "end", c.hear(), "a bad one is not answered either")
		assert.Equal(t, len(results), n)
	})
}

func TestAnAcknowledgementOfHL721HasItsCodesAndVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
			return nil, &mllp.Nak{Code: mllp.CR}
		})})
		c := s.call()
		c.say(frame("MSH|^~\\&|A|B|C|D|20260101||ADT|id1|P|2.1\r"))
		text, err := c.frames.Next()
		require.NoError(t, err)
		assert.Contains(t, string(text), "|P|2.1\rMSA|AR|id1\r")
		assert.NotContains(t, string(text), "ERR")
	})
}

func TestControlIDsOfAcknowledgementsDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[string]bool{}
		for range 2 {
			s := serve(t, &mllp.Server{})
			c := s.call()
			for range 50 {
				c.say(frame(msgA))
				text, err := c.frames.Next()
				require.NoError(t, err)
				var h mllp.Header
				require.NoError(t, h.Parse(text))
				assert.LessOrEqual(t, len(h.ControlID), 20)
				assert.False(t, seen[string(h.ControlID)])
				seen[string(h.ControlID)] = true
			}
		}
	})
}

func TestTheRequestTellsWhoSent(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		var subject, from string
		s := start(&mllp.Server{Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			from = r.RemoteAddr.String()
			assert.Equal(t, "192.0.2.1:2575", r.LocalAddr.String())
			if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
				subject = r.TLS.PeerCertificates[0].Subject.CommonName
				assert.NotEmpty(t, r.TLS.VerifiedChains)
			}
			return nil, nil
		})})
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "AA id1", c.hear())
		assert.Equal(t, c.raw.LocalAddr().String(), from)
		transport := "MLLP"
		if s.clients != nil {
			transport = "MLLPS"
			assert.Equal(t, len(s.clients.Certificates) > 0, subject == "ward 7")
		}
		assert.Equal(t, transport, s.srv.Transport())
	})
}

func TestBadSettingsAreRefusedByName(t *testing.T) {
	h := mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })
	for want, srv := range map[string]*mllp.Server{
		"Server.Handler is not set":                 {},
		"Server.MaxMessageBytes is negative":        {Handler: h, MaxMessageBytes: -1},
		"Server.MaxBufferedBytes":                   {Handler: h, MaxBufferedBytes: 1 << 20},
		`Server.NotHL7 is "resync"`:                 {Handler: h, NotHL7: mllp.PolicyResync},
		`Server.Truncated is "deliver"`:             {Handler: h, Truncated: mllp.PolicyDeliver},
		"Server.TLSConfig has no certificate":       {Handler: h, TLSConfig: &tls.Config{}},
		"Server.TLS: tlsprops: keyStorePath":        {Handler: h, TLS: &tlsprops.TlsProperties{Enabled: true}},
		"minVersion":                                {Handler: h, TLS: &tlsprops.TlsProperties{MinVersion: "TLSv1.2"}},
		"tlsprops: certStorePath /does/not/exist/x": {Handler: h, TLS: &tlsprops.TlsProperties{Enabled: true, KeyStorePath: "/does/not/exist/x", CertStorePath: "/does/not/exist/x"}},
	} {
		ln := memnet.Listen()
		err := srv.Serve(t.Context(), ln)
		if want == "tlsprops: certStorePath /does/not/exist/x" {
			assert.ErrorIs(t, err, os.ErrNotExist)
		} else {
			assert.ErrorContains(t, err, want)
		}
		_, err = ln.Dial()
		assert.Error(t, err, "%s: the listener is closed", want)
	}
	var p mllp.Policy
	require.NoError(t, p.UnmarshalText([]byte("deliver")))
	assert.Equal(t, mllp.PolicyDeliver, p)
	assert.ErrorContains(t, p.UnmarshalText([]byte("ignore")), "unknown policy")
}

func TestAPortInUseIsAnErrorAndAFreedOneIsUsableAtOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h := mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })
	addr := ln.Addr().String()
	assert.ErrorContains(t, (&mllp.Server{Addr: addr, Handler: h}).ListenAndServe(t.Context()), "address already in use")
	for range 3 {
		srv := &mllp.Server{Handler: h}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(t.Context(), ln) }()
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		c.Write([]byte(frame(msgA)))
		_, err = mllp.NewReader(c, 0).Next()
		require.NoError(t, err)
		require.NoError(t, srv.Shutdown(t.Context()))
		assert.ErrorIs(t, <-served, mllp.ErrServerClosed)
		c.Close()
		ln, err = net.Listen("tcp", addr)
		require.NoError(t, err)
	}
	ln.Close()
}

func TestAPortInUseIsTriedAgainWhereThatIsAskedFor(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	addr := ln.Addr().String()
	failed := make(chan struct{}, 1)
	observe := func(e mllp.Event) {
		if e.Kind == mllp.EventAcceptFailed {
			assert.ErrorContains(t, e.Err, "address already in use")
			assert.Equal(t, time.Second, e.Duration)
			select {
			case failed <- struct{}{}:
			default:
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waiting := &mllp.Server{Addr: addr, ListenRetry: time.Hour, Handler: accepting, Observe: observe}
	served := make(chan error, 1)
	go func() { served <- waiting.ListenAndServe(ctx) }()
	awaitFailure := func() {
		t.Helper()
		select {
		case <-failed:
		case err := <-served:
			require.Fail(t, "it did not try again", "%v", err)
		case <-time.After(20 * time.Second):
			require.Fail(t, "nothing was told")
		}
	}
	awaitFailure()
	cancel()
	require.ErrorContains(t, <-served, "address already in use")

	srv := &mllp.Server{Addr: addr, ListenRetry: time.Hour, Handler: accepting, Observe: observe}
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute) // another process might take the port
	defer cancel()
	go func() { served <- srv.ListenAndServe(ctx) }()
	awaitFailure()
	ln.Close()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}, 20*time.Second, 10*time.Millisecond)
	srv.Close()
	require.ErrorIs(t, <-served, mllp.ErrServerClosed)
}

func TestNothingOfAMessageIsLoggedOrReported(t *testing.T) {
	name := "Doe^Canary"
	good := string(adt("id1"))
	inputs := []string{
		frame(good), name + frame(good), "\x0b" + good[:len(good)-1] + frame(good), frame(good + "\x0b" + name + "\x1c"), frame(name),
		frame("MSH|^~\\&|" + name), frame("<x>" + name), strings.Repeat(name, 500), "\x0b" + name, "\x0b" + good, "GET /" + name + " HTTP/1.1",
		frame(good + good), frame("FHS|^~\\&|" + name), "\x0b" + strings.Repeat(name, 1000), frame(strings.Replace(good, "id1", "", 1)), frame("MSH|^~\\&|A|B|C|D|1||ACK|" + name + "|P|2.5\rMSA|AA|" + name),
		frame(strings.Replace(good, "id1", name, 1)), frame("MSH" + name),
	}
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		for _, in := range inputs {
			for i, result := range []error{nil, errors.New(name), &mllp.Nak{Code: mllp.AE, Text: name}, mllp.ErrNoReply} {
				s := start(&mllp.Server{MaxMessageBytes: 5000, Strict: i == 1, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
					if i == 0 {
						panic(name)
					}
					return nil, result
				})})
				c := s.call()
				io.WriteString(c.Conn, in)
				c.raw.CloseWrite()
				synctest.Wait()
				c.raw.Abort()
				time.Sleep(time.Minute)
				synctest.Wait()
				s.mu.Lock()
				for _, secret := range []string{"Canary", "MRN-4711"} {
					assert.NotContains(t, s.log.String(), secret, "log for %q", in)
					for _, e := range s.events {
						e.ControlID = "" // meant for the caller
						assert.NotContains(t, e.String(), secret, "event for %q", in)
						if e.Err != nil {
							assert.NotContains(t, fmt.Sprintf("%v %+v %#v", e.Err, e.Err, e.Err), secret)
						}
					}
				}
				assert.NotEmpty(t, s.events)
				s.mu.Unlock()
			}
		}
	})
}

func TestTLSHandshakesThatFailAreTold(t *testing.T) {
	p := pki()
	other := testpki.NewCA(t, "Other CA")
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // in a bubble
	issue := func(o testpki.Options) []tls.Certificate { return []tls.Certificate{p.ca.Issue(o).TLS()} }
	for name, tc := range map[string]struct {
		certs    []tls.Certificate
		version  uint16 // highest the client offers
		says     string // in place of TLS
		silent   bool
		distrust bool // the client does not trust the server
		reason   mllp.Reason
		subject  string
		detail   string
	}{
		"no certificate":    {reason: mllp.ReasonTLSNoCertificate},
		"expired":           {certs: issue(testpki.Options{CommonName: "old", NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)}), reason: mllp.ReasonTLSExpired, subject: "CN=old"},
		"not yet valid":     {certs: issue(testpki.Options{CommonName: "new", NotBefore: now.Add(24 * time.Hour), NotAfter: now.Add(48 * time.Hour)}), reason: mllp.ReasonTLSNotYetValid, subject: "CN=new"},
		"another authority": {certs: []tls.Certificate{other.Client("stranger").TLS()}, reason: mllp.ReasonTLSUnknownAuthority, subject: "CN=stranger"},
		"self-signed":       {certs: []tls.Certificate{{Certificate: [][]byte{other.Cert.Raw}, PrivateKey: other.Key}}, reason: mllp.ReasonTLSSelfSigned, subject: "CN=Other CA"},
		"a server's":        {certs: []tls.Certificate{p.server.TLS()}, reason: mllp.ReasonTLSWrongUsage, subject: "CN=localhost"},
		"TLS 1.1":           {version: tls.VersionTLS11, reason: mllp.ReasonTLSVersion},
		"MLLP without TLS":  {says: frame(msgA), reason: mllp.ReasonNotTLS, detail: "MLLP without TLS"},
		"HTTP without TLS":  {says: "GET / HTTP/1.1\r\n\r\n", reason: mllp.ReasonNotTLS, detail: "HTTP"},
		"silence":           {silent: true, reason: mllp.ReasonHandshakeTimeout},
		"client distrusts":  {certs: []tls.Certificate{p.client.TLS()}, distrust: true, reason: mllp.ReasonTLSPeerRefused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{TLSConfig: &tls.Config{
					Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12,
					ClientCAs: p.ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
				}})
				began := time.Now()
				c := s.call()
				switch {
				case tc.says != "":
					c.say(tc.says)
				case tc.silent:
				default:
					config := &tls.Config{
						RootCAs: p.ca.Pool(), ServerName: "localhost", MaxVersion: tc.version, MinVersion: tls.VersionTLS10,
						GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
							if len(tc.certs) == 0 {
								return new(tls.Certificate), nil
							}
							return &tc.certs[0], nil
						},
					}
					if tc.distrust {
						config.RootCAs = other.Pool()
					}
					tc := tls.Client(c.raw, config)
					tc.Handshake()
					_, err := tc.Read(make([]byte, 1))
					assert.Error(t, err)
				}
				io.Copy(io.Discard, c.raw)
				if tc.silent {
					assert.Equal(t, 10*time.Second, time.Since(began))
				}
				synctest.Wait()
				e := s.event(mllp.EventHandshakeFailed)
				assert.Equal(t, tc.reason, e.Reason, "%v", e.Err)
				assert.Equal(t, tc.detail, e.Detail)
				assert.NotNil(t, e.RemoteAddr)
				if tc.subject != "" {
					require.NotNil(t, e.Certificate)
					assert.Equal(t, tc.subject, e.Certificate.Subject)
					assert.NotEmpty(t, e.Certificate.Serial)
					assert.Contains(t, e.String(), tc.subject)
				}
				assert.Equal(t, []string{"handshake_failed " + string(tc.reason)}, s.told())
			})
		})
	}
}

func TestARevokedCertificateIsToldApart(t *testing.T) {
	p, dir := pki(), t.TempDir()
	files, list := p.server.Write(dir, "server"), filepath.Join(dir, "ca.crl")
	revoked := p.ca.Client("ward 8")
	require.NoError(t, os.WriteFile(list, p.ca.CRL(testpki.CRLOptions{Revoked: []*testpki.Pair{revoked}}), 0o600))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	failed := make(chan mllp.Event, 1)
	srv := &mllp.Server{
		TLS: &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, TrustStorePath: p.ca.Write(dir, "ca"),
			RequireClientCert: true, CRLPaths: []string{list}, CRLCheck: "hard",
		},
		Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
		Observe: func(e mllp.Event) {
			if e.Kind == mllp.EventHandshakeFailed {
				failed <- e
			}
		},
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	for _, client := range []*testpki.Pair{p.client, revoked} {
		c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: p.ca.Pool(), Certificates: []tls.Certificate{client.TLS()}})
		require.NoError(t, err)
		c.Write([]byte(frame(msgA)))
		_, err = mllp.NewReader(c, 0).Next()
		assert.Equal(t, client == revoked, err != nil, "%v", err)
		c.Close()
	}
	e := <-failed
	assert.Equal(t, mllp.ReasonTLSRevoked, e.Reason, "%v", e.Err)
	assert.Equal(t, "CN=ward 8", e.Certificate.Subject)
	require.NoError(t, srv.Close())
	<-served
}

func TestAHandshakeThatHangsStopsNobody(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{})
		for range 10 {
			s.call() // and says nothing
		}
		c := s.call()
		began := time.Now()
		c.say(frame(msgA))
		assert.Equal(t, "AA id1", c.hear())
		assert.Zero(t, time.Since(began))
		if s.clients != nil {
			assert.NoError(t, s.srv.Shutdown(t.Context()))
			assert.LessOrEqual(t, time.Since(began), time.Second)
		}
	})
}

func TestAHealthCheckOfAPortWithTLSIsAProbe(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{})
		c := s.call()
		c.raw.Close()
		synctest.Wait()
		assert.Equal(t, []string{"probe"}, s.told())
	})
}

func TestATLSClientOnAPlainPortIsToldOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{})
		c := s.call()
		assert.Error(t, tls.Client(c.raw, &tls.Config{ServerName: "localhost"}).Handshake())
		synctest.Wait()
		assert.Equal(t, "TLS on a port without TLS", s.event(mllp.EventBadFrame).Detail)
	})
}

func TestACertificateIsRotatedWhileConnectionsGoOn(t *testing.T) {
	p := pki()
	dir := t.TempDir()
	files := p.server.Write(dir, "server")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &mllp.Server{
		TLS: &tlsprops.TlsProperties{
			Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, TrustStorePath: p.ca.Write(dir, "ca"),
			RequireClientCert: true, ReloadInterval: 10 * time.Millisecond,
		},
		Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
	}
	assert.Equal(t, "MLLPS", srv.Transport())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: p.ca.Pool(), Certificates: []tls.Certificate{p.client.TLS()}})
		require.NoError(t, err)
		return c
	}
	ask := func(c *tls.Conn) {
		c.Write([]byte(frame(msgA)))
		_, err := mllp.NewReader(c, 0).Next()
		require.NoError(t, err)
	}
	first := dial()
	ask(first)
	next := p.ca.Server()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "k"), next.KeyPEM(), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "c"), next.CertPEM(), 0o600))
	require.NoError(t, os.Rename(filepath.Join(dir, "k"), files.Key))
	require.NoError(t, os.Rename(filepath.Join(dir, "c"), files.Cert))
	for {
		c := dial()
		serial := c.ConnectionState().PeerCertificates[0].SerialNumber
		ask(c)
		c.Close()
		if serial.Cmp(next.Cert.SerialNumber) == 0 {
			break
		}
	}
	ask(first)
	first.Close()
	require.NoError(t, srv.Close())
	assert.ErrorIs(t, <-served, mllp.ErrServerClosed)
}
