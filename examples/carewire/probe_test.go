package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
)

// serve accepts connections on a loopback port until the test ends, and has each
// handled.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	return ln.Addr().String()
}

// speak says something and reads until the client has gone. To hang up at once
// would reset the connection, and what was said be lost.
func speak(conn net.Conn, text string) {
	_, _ = io.WriteString(conn, text)
	_, _ = io.Copy(io.Discard, conn)
}

// serveTLS does so with TLS, reading whatever comes.
func serveTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	return serve(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, tls.Server(conn, config)) })
}

// probe runs the command with --json.
func probe(t *testing.T, address string, args ...string) (int, probeReport) {
	t.Helper()
	r := carewire(t, append([]string{"tls", "probe", address, "--json"}, args...)...)
	assert.Empty(t, r.err)
	var report probeReport
	require.NoError(t, json.Unmarshal([]byte(r.out), &report), r.out)
	return r.status, report
}

// pki is what most probes need: an authority, as a file too.
type pki struct {
	*testpki.Authority
	dir, file string
}

func newPKI(t *testing.T) pki {
	t.Helper()
	p := pki{Authority: testpki.NewCA(t, "Test CA"), dir: t.TempDir()}
	p.file = p.Write(p.dir, "ca.crt")
	return p
}

func config(pairs ...*testpki.Pair) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, p := range pairs {
		c.Certificates = append(c.Certificates, p.TLS())
	}
	return c
}

func answers(r probeReport) string {
	var words []string
	for _, v := range r.Versions {
		words = append(words, string(v.Answer))
	}
	return strings.Join(words, " ")
}

func TestProbeShowsAPersonTheWholeServer(t *testing.T) {
	ca := newPKI(t)
	server := ca.Intermediate("Test Intermediate").Issue(testpki.Options{
		CommonName: "localhost", Hosts: []string{"localhost", "127.0.0.1"}, NotAfter: time.Date(2035, 1, 1, 0, 0, 0, 0, time.UTC),
		EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	c := config(server)
	c.CurvePreferences = []tls.CurveID{tls.X25519}
	c.ClientCAs, c.ClientAuth = ca.Pool(), tls.VerifyClientCertIfGiven
	c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	r := carewire(t, "tls", "probe", serveTLS(t, c), "--ca", ca.file)
	assert.Equal(t, exitOK, r.status)
	assert.Empty(t, r.err)
	for pattern, word := range map[string]string{
		`127\.0\.0\.1:\d+`: "ADDRESS", `\(\d+ days left\)`: "(LEFT)", `TLS_(AES|CHACHA)\w+`: "SUITE", `after  20([4-9]\d|3[6-9])-\S+`: "after  LATER",
	} {
		r.out = regexp.MustCompile(pattern).ReplaceAllString(r.out, word)
	}
	assert.Equal(t, `server              ADDRESS as 127.0.0.1
negotiated          TLS 1.3, SUITE, X25519
certificate 1       CN=localhost
                    issuer     CN=Test Intermediate
                    names      localhost, 127.0.0.1
                    not before 1999-01-01T00:00:00Z
                    not after  2035-01-01T00:00:00Z (LEFT)
                    key        ECDSA P-256, signed with ECDSA-SHA256
certificate 2       CN=Test Intermediate
                    issuer     CN=Test CA
                    not before 1999-01-01T00:00:00Z
                    not after  LATER (LEFT)
                    key        ECDSA P-256, signed with ECDSA-SHA256
client certificate  asked for, not required
  accepted authority CN=Test CA
TLS 1.0             no
TLS 1.1             no
TLS 1.2             yes
TLS 1.3             yes
TLS 1.2 suite       TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
TLS 1.2 suite       TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA   WEAK: CBC
verified            yes
verdict             usable, but WEAK: the server also accepts 1 weak suite of TLS 1.2
`, r.out)
}

func TestProbeFindsNothingWeakWhereNothingIs(t *testing.T) {
	ca := newPKI(t)
	c := config(ca.Server())
	c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}
	status, report := probe(t, serveTLS(t, c), "--ca", ca.file)
	assert.Equal(t, exitOK, status)
	assert.True(t, report.OK)
	assert.True(t, report.Verified)
	assert.Equal(t, "no no yes yes", answers(report))
	assert.Len(t, report.Suites, 2)
	assert.Empty(t, report.weaknesses())
	assert.False(t, report.ClientCert.Requested)
}

func TestProbeSaysEverythingThatIsWrongWithTheCertificates(t *testing.T) {
	ca := newPKI(t)
	old := ca.Issue(testpki.Options{CommonName: "old", Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-day)})
	early := ca.Issue(testpki.Options{CommonName: "early", Hosts: []string{"localhost"}, NotBefore: time.Now().Add(day)})
	client := ca.Client("client")
	for name, tt := range map[string]struct {
		pair *testpki.Pair
		ca   string
		name string
		want []string
	}{
		"an authority nobody trusts": {testpki.NewCA(t, "Other CA").Server(), ca.file, "localhost", []string{"unknown authority"}},
		"the system's roots":         {ca.Server(), "", "localhost", []string{"x509"}},
		"another name":               {ca.Server(), ca.file, "lab.example.org", []string{"not lab.example.org"}},
		"expired":                    {old, ca.file, "localhost", []string{"certificate 1 expired on "}},
		"expired and another name":   {old, ca.file, "lab.example.org", []string{"certificate 1 expired on ", "not lab.example.org"}},
		"not valid yet":              {early, ca.file, "localhost", []string{"certificate 1 is not valid before "}},
		"a client's certificate":     {client, ca.file, "localhost", []string{"incompatible key usage", "localhost"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--name", tt.name}
			if tt.ca != "" {
				args = append(args, "--ca", tt.ca)
			}
			status, report := probe(t, serveTLS(t, config(tt.pair)), args...)
			assert.Equal(t, exitNo, status)
			assert.False(t, report.OK)
			assert.False(t, report.Verified)
			require.Len(t, report.Problems, len(tt.want), "%q", report.Problems)
			for i, want := range tt.want {
				assert.Contains(t, report.Problems[i], want)
			}
			assert.NotEmpty(t, report.Chain, "it is shown nevertheless")
			assert.Equal(t, "no no yes yes", answers(report))
		})
	}
}

func TestProbeLooksAtServersThatDemandAClientCertificate(t *testing.T) {
	ca := newPKI(t)
	client := ca.Client("client").Write(ca.dir, "client")
	stranger := testpki.NewCA(t, "Other CA").Client("stranger").Write(ca.dir, "stranger")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			c := config(ca.Server())
			c.MaxVersion, c.MinVersion = version, version
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
			address := serveTLS(t, c)

			status, report := probe(t, address, "--ca", ca.file)
			assert.Equal(t, exitNo, status)
			assert.Contains(t, report.Error, "certificate")
			assert.True(t, report.Verified, "the server itself is in order")
			assert.NotEmpty(t, report.Chain)
			assert.Equal(t, &clientAsk{Requested: true, Required: new(true), Authorities: []string{"CN=Test CA"}}, report.ClientCert)
			assert.Equal(t, tls.VersionName(version), report.Version)

			status, report = probe(t, address, "--ca", ca.file, "--cert", client.Cert, "--key", client.Key)
			assert.Equal(t, exitOK, status, report.Error)
			assert.True(t, report.ClientCert.Sent)

			status, report = probe(t, address, "--ca", ca.file, "--cert", stranger.Cert, "--key", stranger.Key)
			assert.Equal(t, exitNo, status, "a certificate that is not taken")
			assert.NotEmpty(t, report.Error)
		})
	}
}

func TestProbeOfWhatIsNoTLSServer(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed.Close()
	for name, tt := range map[string]struct {
		address string
		args    []string
		want    string
	}{
		"nobody listens":    {closed.Addr().String(), nil, "refused"},
		"an HTTP server":    {serve(t, func(c net.Conn) { speak(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }), nil, "does not speak TLS"},
		"a mail server":     {serve(t, func(c net.Conn) { speak(c, "220 mail ESMTP\r\n") }), nil, "--starttls smtp"},
		"one that hangs up": {serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1024)) }), nil, "closed the connection"},
		"one that is silent": {
			serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }),
			[]string{"--timeout", "100ms"},
			"did not answer in time",
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, report := probe(t, tt.address, tt.args...)
			assert.Equal(t, exitNo, status)
			assert.Contains(t, report.Error, tt.want)
			assert.Empty(t, report.Chain)
			assert.False(t, report.Verified)
		})
	}
}

// smtpServer offers STARTTLS, with what it says in answer to STARTTLS.
func smtpServer(t *testing.T, c *tls.Config, extensions, goAhead string) string {
	t.Helper()
	return serve(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		fmt.Fprint(conn, "220-mail.example.org ESMTP\r\n220 ready\r\n")
		if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "EHLO [127.0.0.1]") {
			return
		}
		fmt.Fprint(conn, "250-mail.example.org\r\n"+extensions+"250 SIZE 1000\r\n")
		if line, _ := r.ReadString('\n'); line != "STARTTLS\r\n" {
			return
		}
		fmt.Fprint(conn, goAhead)
		_, _ = io.Copy(io.Discard, tls.Server(conn, c))
	})
}

func TestProbeAsksMailServersForTLS(t *testing.T) {
	ca := newPKI(t)
	c := config(ca.Server())
	status, report := probe(t, smtpServer(t, c, "250-STARTTLS\r\n", "220 go ahead\r\n"), "--ca", ca.file, "--starttls", "smtp")
	assert.Equal(t, exitOK, status, report.Error)
	assert.Equal(t, "no no yes yes", answers(report))

	for name, tt := range map[string]struct{ extensions, goAhead, want string }{
		"without STARTTLS":            {"250-PIPELINING\r\n", "", "does not offer STARTTLS"},
		"with a refusal":              {"250-STARTTLS\r\n", "454 not now CANARY\r\n", "expected reply 220, got 454"},
		"that speaks on in the clear": {"250-STARTTLS\r\n", "220 go ahead\r\n250 injected\r\n", "spoke on before TLS"},
		"without end":                 {strings.Repeat("250-"+strings.Repeat("x", 500)+"\r\n", 50), "", "more than 16384 bytes"},
		"with a line without end":     {strings.Repeat("x", 20000), "", "more than 16384 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			status, report := probe(t, smtpServer(t, c, tt.extensions, tt.goAhead), "--ca", ca.file, "--starttls", "smtp")
			assert.Equal(t, exitNo, status)
			assert.Contains(t, report.Error, tt.want)
			assert.NotContains(t, report.Error, "CANARY")
			assert.Empty(t, report.Versions)
		})
	}
}

// FuzzSMTPReply: whatever a server says, a reply that is accepted is whole, has
// the code that was asked for on every line, and stays within the bound.
func FuzzSMTPReply(f *testing.F) {
	f.Add("220 ready\r\n")
	f.Add("220-mail\r\n220-more\n220\r\n")
	f.Add("220\r\n220x\r\n")
	f.Fuzz(func(t *testing.T, said string) {
		texts, err := smtpReply(bufio.NewReader(strings.NewReader(said)), "220")
		if err != nil {
			return
		}
		rest := said
		for i, text := range texts {
			line, after, ended := strings.Cut(rest, "\n")
			line = strings.TrimRight(line, "\r")
			last := i == len(texts)-1
			if !ended || !strings.HasPrefix(line, "220") || !strings.HasSuffix(line, text) || strings.HasPrefix(line, "220-") == last {
				t.Fatalf("line %d of %q", i, said)
			}
			rest = after
		}
	})
}
