package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/internal/devcert"
	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
)

// finding is one of testssl.sh's, as its flat JSON has it.
type finding struct {
	ID       string `json:"id"`
	Severity string `json:"severity"`
	Finding  string `json:"finding"`
}

func (f finding) String() string { return f.Severity + " " + f.ID + ": " + f.Finding }

// harmless are the severities up to LOW. DEBUG tells how the scan went. WARN and
// FATAL are not here: what could not be looked at is not known to be good.
var harmless = []string{"OK", "INFO", "DEBUG", "LOW"}

// excepted are the findings above LOW that say nothing against the engine. Each
// needs its text as well, so that another finding of the same name still counts.
//
// Two that one might look for are not here, as testssl.sh does not raise them:
// --add-ca makes a private authority's chain good (cert_chain_of_trust is OK), and
// with --nodns nobody asks for the CAA record of localhost. That a private
// authority's certificates are in no public log (certificate_transparency) is INFO.
var excepted = map[string]string{
	// Where its certificates' revocation is published is the authority's to decide, and
	// a private one has no URI that the whole world could fetch. tlsprops takes
	// revocation lists as files, and staples what a file has.
	"cert_revocation": "Neither CRL nor OCSP URI provided",
	// Of the scanner's own openssl: it has no GOST ciphers to offer. Go has none to
	// accept.
	"engine_problem": "No engine or GOST support via engine",
}

// judge returns what of a scan is worse than LOW and not excepted.
func judge(scan []finding) (bad []finding) {
	for _, f := range scan {
		reason, known := excepted[f.ID]
		if !slices.Contains(harmless, f.Severity) && (!known || !strings.HasPrefix(f.Finding, reason)) {
			bad = append(bad, f)
		}
	}
	return bad
}

// scan is testssl.sh's look at target, trusting the authority in the file ca. It
// asks no other host: no DNS server, no responder.
func scan(t *testing.T, ca, target string, sections ...string) []finding {
	t.Helper()
	program, dir := interop.Need(t, "testssl"), t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	report := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(ctx, program, slices.Concat([]string{
		"--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1",
		"--connect-timeout", "30", "--openssl-timeout", "60", "--add-ca", ca, "--jsonfile", report,
	}, sections, []string{target})...)
	// The two waits are for answers that come; its own are short for a busy machine.
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HEADER_MAXSLEEP=60", "MAX_WAITSOCK=60")
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	// Its exit status counts findings; 200 and more say that the scan did not work.
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 && exit.ExitCode() < 200 {
		err = nil
	}
	require.NoError(t, err, "%s", out)
	data, err := os.ReadFile(report)
	require.NoError(t, err, "%s", out)
	var found []finding
	require.NoError(t, json.Unmarshal(data, &found), "%s", data)
	return found
}

// sections are what is looked at everywhere: protocols, cipher categories, the
// server's order, forward secrecy, certificate and extensions, vulnerabilities.
var sections = []string{"--protocols", "--std", "--server-preference", "--pfs", "--server-defaults", "--vulnerable"}

// Nothing above LOW is found at HTTPS, nor at MLLPS. One has the certificates for
// development, of RSA, the other one of ECDSA: both kinds of suites are judged.
// MLLPS asks for no client certificate here: where it does, testssl.sh can look at
// less.
func TestTestsslFindsNothingAboveLow(t *testing.T) {
	interop.Need(t, "testssl")
	t.Parallel() // a scan waits more than it works
	dir := t.TempDir()
	rsa, err := devcert.Write(filepath.Join(dir, "rsa"), devcert.Options{})
	require.NoError(t, err)
	ca := testpki.NewCA(t, "Test CA")
	ec := ca.Issue(testpki.Options{
		CommonName: "localhost", Hosts: []string{"localhost"}, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 6, 0), // ten years would be a finding
	}).Write(dir, "ec")
	mllps := freePort(t)
	config := writeConfig(t, strings.Replace(oneChannel, "%d}", "%d, tls: {enabled: true, keyStorePath: %s, certStorePath: %s}}", 1), mllps, ec.Key, ec.Cert)
	p := launch(t, []string{"TLS_CERT=" + rsa.ServerCert, "TLS_KEY=" + rsa.ServerKey, "HTTPS_PORT=0"}, "-config", config)
	p.says("engine ready")
	_, https, err := net.SplitHostPort(regexp.MustCompile(`msg="API listens" addr=(\S+)`).FindStringSubmatch(p.stderr.String())[1])
	require.NoError(t, err)

	for _, tt := range []struct {
		name, ca, target string
		sections         []string
		seen             map[string]string // what a scan that has looked has seen
	}{
		{
			"HTTPS", rsa.CACert, "https://localhost:" + https + "/api/health", append([]string{"--headers"}, sections...),
			map[string]string{
				"service": "HTTP", "HTTP_status_code": "200 OK", "HSTS_time": "365 days", "X-Frame-Options": "DENY",
				"cert_keySize": "RSA", "ALPN_HTTP2": "h2", "BREACH": "not vulnerable",
			},
		},
		{
			"MLLPS", ca.Write(dir, "ca.crt"), fmt.Sprintf("localhost:%d", mllps), sections,
			map[string]string{"cert_keySize": "EC 256 bits"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			found := scan(t, tt.ca, tt.target, tt.sections...)
			assert.Empty(t, judge(found))
			for id, text := range map[string]string{
				"SSLv3": "not offered", "TLS1": "not offered", "TLS1_1": "not offered", "TLS1_2": "offered", "TLS1_3": "offered",
				"cipherlist_AVERAGE": "not offered", "PFS": "offered", "cert_chain_of_trust": "passed.",
				"heartbleed": "not vulnerable", "secure_client_renego": "not vulnerable", "LUCKY13": "not vulnerable",
			} {
				assert.True(t, saw(found, id, text), "not seen: %s: %s", id, text)
			}
			for id, text := range tt.seen {
				assert.True(t, saw(found, id, text), "not seen: %s: %s", id, text)
			}
		})
	}
}

func saw(scan []finding, id, text string) bool {
	return slices.ContainsFunc(scan, func(f finding) bool { return f.ID == id && strings.HasPrefix(f.Finding, text) })
}

// The same judge condemns a listener that is weak in suites and certificate.
func TestTestsslFindsWhatIsWeak(t *testing.T) {
	interop.Need(t, "testssl")
	t.Parallel()
	ca, dir := testpki.NewCA(t, "Test CA"), t.TempDir()
	root := ca.Write(dir, "ca.crt")
	stranger := testpki.NewCA(t, "Another CA").Issue(testpki.Options{
		CommonName: "localhost", Hosts: []string{"localhost"}, Key: testpki.RSAKey(t, 2048),
	})
	weak := httptest.NewUnstartedServer(http.NotFoundHandler())
	weak.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	weak.TLS = &tls.Config{
		Certificates: []tls.Certificate{stranger.TLS()},
		MinVersion:   tls.VersionTLS10, MaxVersion: tls.VersionTLS12, //nolint:gosec // what is to be found
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_RC4_128_SHA},
	}
	weak.StartTLS()
	defer weak.Close()
	_, port, err := net.SplitHostPort(weak.Listener.Addr().String())
	require.NoError(t, err)

	bad := judge(scan(t, root, "localhost:"+port, "--std", "--server-defaults"))
	for _, id := range []string{"cipherlist_LOW", "cipherlist_3DES_IDEA", "cert_validityPeriod", "cert_chain_of_trust"} {
		assert.True(t, slices.ContainsFunc(bad, func(f finding) bool { return f.ID == id }), "%s is not among %v", id, bad)
	}
}

// An exception is for one text, and what could not be looked at is not known to be
// good.
func TestTestsslIsJudgedByMoreThanNames(t *testing.T) {
	for _, f := range []finding{
		{"cert_revocation", "CRITICAL", "revoked"},
		{"engine_problem", "WARN", "another"},
		{"scanProblem", "FATAL", "Can't connect"},
		{"TLS1", "MEDIUM", "offered"},
		{"anything", "", ""},
	} {
		assert.Equal(t, []finding{f}, judge([]finding{f}))
	}
	assert.Empty(t, judge([]finding{{"cert_revocation", "HIGH", "Neither CRL nor OCSP URI provided"}, {"TLS_session_ticket", "LOW", "valid for 604800 seconds"}}))
}
