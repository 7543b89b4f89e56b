package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
)

// until makes a certificate that expires at the given time of the bubble's clock.
func until(ca *testpki.Authority, name string, notAfter time.Time) []byte {
	return ca.Issue(testpki.Options{
		CommonName: name, Hosts: []string{name, "10.0.0.1"}, NotAfter: notAfter,
		EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}).CertPEM()
}

// In a bubble the clock stands at the start of the year 2000, so that the output
// is the same every time.
func TestExpiryListsEveryCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCAWith(t, testpki.Options{CommonName: "Test CA", NotAfter: time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)})
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "chain.pem"), append(until(ca, "lab", time.Now().Add(36*time.Hour)), ca.PEM()...), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "old.pem"), until(ca, "old", time.Now().Add(-time.Second)), 0o600))
		t.Chdir(dir)

		r := carewire(t, "tls", "expiry", "chain.pem", "old.pem")
		assert.Equal(t, exitNo, r.status)
		assert.Equal(t, "carewire: 1 of 3 certificates due or past due\n", r.err)
		assert.Equal(t, `chain.pem #1: valid: CN=lab
  issuer     CN=Test CA
  names      lab, 10.0.0.1
  not before 1999-01-01T00:00:00Z
  not after  2000-01-02T12:00:00Z (1 day left)
  key        ECDSA P-256, signed with ECDSA-SHA256
chain.pem #2: valid: CN=Test CA
  issuer     CN=Test CA
  not before 1999-01-01T00:00:00Z
  not after  2010-01-01T00:00:00Z (3653 days left)
  key        ECDSA P-256, signed with ECDSA-SHA256
old.pem #1: expired: CN=old
  issuer     CN=Test CA
  names      old, 10.0.0.1
  not before 1999-01-01T00:00:00Z
  not after  1999-12-31T23:59:59Z (EXPIRED)
  key        ECDSA P-256, signed with ECDSA-SHA256
`, r.out)
	})
}

func TestExpiryFailsForWhatIsWithinTheSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA(t, "Test CA")
		path := file(t, "lab.pem", string(until(ca, "lab", time.Now().Add(10*day))))
		for span, want := range map[string]int{"0": exitOK, "9d": exitOK, "10d": exitNo, "239h": exitOK, "240h": exitNo, "5000d": exitNo} {
			assert.Equal(t, want, carewire(t, "tls", "expiry", path, "--within", span).status, span)
		}
		assert.Equal(t, exitOK, carewire(t, "tls", "expiry", path).status)
	})
}

func TestExpiryPrintsOneJSONObjectForEachCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.NewCA(t, "Test CA")
		early := ca.Issue(testpki.Options{CommonName: "early", NotBefore: time.Now().Add(day), NotAfter: time.Now().Add(30 * day)}).CertPEM()
		path := file(t, "two.pem", string(until(ca, "lab", time.Now().Add(10*day)))+string(early))
		r := carewire(t, "tls", "expiry", path, "--within", "12d", "--json")
		assert.Equal(t, exitNo, r.status)
		var got []expiryLine
		for line := range strings.Lines(r.out) {
			var l expiryLine
			require.NoError(t, json.Unmarshal([]byte(line), &l))
			got = append(got, l)
		}
		require.Len(t, got, 2)
		assert.Equal(t, stateExpiring, got[0].State)
		assert.Equal(t, 10, got[0].DaysLeft)
		assert.Equal(t, []string{"lab", "10.0.0.1"}, got[0].Names)
		assert.Equal(t, path, got[0].File)
		assert.Equal(t, stateNotYetValid, got[1].State)
		assert.Equal(t, 2, got[1].Number)
	})
}

func TestExpiryRefusesAFileItCannotReadWhole(t *testing.T) {
	ca := testpki.NewCA(t, "Test CA")
	good := string(ca.PEM())
	key := string(ca.Server().KeyPEM())
	for name, tt := range map[string]struct{ file, want string }{
		"no certificate":         {key, "no PEM certificate"},
		"nothing":                {"", "no PEM certificate"},
		"a block cut short":      {good + good[:len(good)/2], "after certificate 1: a damaged PEM block"},
		"a damaged block":        {strings.Replace(good, "MII", "!!!", 1) + good, "after certificate 0: a damaged PEM block"},
		"PEM without its DER":    {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1: "},
		"a damaged block at end": {good + strings.Replace(good, "-----END", "----END", 1), "after certificate 1: a damaged PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			r := carewire(t, "tls", "expiry", file(t, "x.pem", tt.file))
			assert.Equal(t, exitUsage, r.status)
			assert.Contains(t, r.err, tt.want)
			assert.Contains(t, r.err, "x.pem")
		})
	}
	r := carewire(t, "tls", "expiry", file(t, "x.pem", "a comment\n"+key+good+"trailing text"))
	assert.Equal(t, exitOK, r.status, "keys and text are passed over: %s", r.err)
}

func TestNamesOfAPeerCannotControlTheTerminal(t *testing.T) {
	ca := testpki.NewCA(t, "Test CA")
	evil := ca.Issue(testpki.Options{CommonName: "evil\x1b[2J", NotAfter: time.Now().Add(day)})
	r := carewire(t, "tls", "expiry", file(t, "x.pem", string(evil.CertPEM())))
	assert.NotContains(t, r.out, "\x1b")
	assert.Contains(t, r.out, `\x1b`)
}

// FuzzReadCertificates: what is accepted has as many certificates as it has
// blocks that say so.
func FuzzReadCertificates(f *testing.F) {
	ca := testpki.NewCA(f, "Test CA")
	f.Add(ca.PEM())
	f.Add(append(ca.Server().KeyPEM(), ca.PEM()...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := parseCertificates(data)
		if err != nil {
			return
		}
		if begins := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----")); len(certs) == 0 || len(certs) < begins {
			t.Fatalf("%d certificates of %d", len(certs), begins)
		}
	})
}
