package tlsprops_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// staple says how a response is to be.
type staple struct {
	cert       *x509.Certificate
	issuer     *testpki.Authority
	signer     crypto.Signer // nil: the issuer's
	responder  []byte        // DER; nil: none
	status     int           // the tag
	sha1ID     bool
	thisUpdate time.Time // zero: an hour ago
	nextUpdate time.Time // zero: in a day; the year 1: absent
}

var absent = time.Unix(1, 0)

// response makes an OCSP response (RFC 6960 section 4.2.1), independently of the
// package's own structures.
func (s staple) response(tb testing.TB) []byte {
	tb.Helper()
	must := func(v any, params ...string) []byte {
		var der []byte
		var err error
		if len(params) > 0 {
			der, err = asn1.MarshalWithParams(v, params[0])
		} else {
			der, err = asn1.Marshal(v)
		}
		require.NoError(tb, err)
		return der
	}
	seq := func(parts ...[]byte) []byte {
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		return must(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: all})
	}
	explicit := func(tag int, inner []byte) []byte {
		return must(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: inner})
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	_, err := asn1.Unmarshal(s.issuer.Cert.RawSubjectPublicKeyInfo, &spki)
	require.NoError(tb, err)
	hash, oid := crypto.SHA256, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	name, key := sha256.Sum256(s.issuer.Cert.RawSubject), sha256.Sum256(spki.Bits.Bytes)
	nameHash, keyHash := name[:], key[:]
	if s.sha1ID {
		n, k := sha1.Sum(s.issuer.Cert.RawSubject), sha1.Sum(spki.Bits.Bytes)
		nameHash, keyHash, oid = n[:], k[:], asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	}
	id := seq(seq(must(oid), []byte{5, 0}), must(nameHash), must(keyHash), must(s.cert.SerialNumber))
	status := must(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: s.status})
	if s.status == 1 {
		status = explicit(1, must(time.Now().Add(-time.Hour).UTC(), "generalized"))
	}
	thisUpdate, nextUpdate := s.thisUpdate, s.nextUpdate
	if thisUpdate.IsZero() {
		thisUpdate = time.Now().Add(-time.Hour)
	}
	if nextUpdate.IsZero() {
		nextUpdate = time.Now().Add(24 * time.Hour)
	}
	single := [][]byte{id, status, must(thisUpdate.UTC(), "generalized")}
	if !nextUpdate.Equal(absent) {
		single = append(single, explicit(0, must(nextUpdate.UTC(), "generalized")))
	}
	data := seq(explicit(2, must(keyHash)), must(time.Now().UTC(), "generalized"), seq(seq(single...)))
	signer := s.signer
	if signer == nil {
		signer = s.issuer.Key
	}
	sum := sha256.Sum256(data)
	signature, err := signer.Sign(rand.Reader, sum[:], hash)
	require.NoError(tb, err)
	basic := [][]byte{data, seq(must(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2})), must(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)})}
	if s.responder != nil {
		basic = append(basic, explicit(0, seq(s.responder)))
	}
	return seq(must(asn1.Enumerated(0)), explicit(0, seq(must(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}), must(seq(basic...)))))
}

// stapled joins a client that trusts p's CA to a server that staples response,
// and returns the client's error.
func stapled(t *testing.T, p *pki, server *testpki.Pair, response []byte, props tlsprops.TlsProperties) error {
	t.Helper()
	cert := server.TLS()
	cert.OCSPStaple = response
	_, clientSide := handshake(&tls.Config{Certificates: []tls.Certificate{cert}}, clientConfig(t, props, "localhost"))
	return clientSide.err
}

func TestAClientJudgesAStapledResponse(t *testing.T) {
	p := newPKI(t)
	other := newPKI(t)
	key := testpki.NewCA(t, "a key").Key
	responder := p.ca.Issue(testpki.Options{CommonName: "responder", Key: key, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}).Cert.Raw
	impostor := p.ca.Issue(testpki.Options{CommonName: "not a responder", Key: key}).Cert.Raw
	foreign := other.ca.Issue(testpki.Options{CommonName: "responder", Key: key, EKU: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}).Cert.Raw
	good := staple{cert: p.server.Cert, issuer: p.ca}
	with := func(change func(*staple)) []byte {
		s := good
		change(&s)
		return s.response(t)
	}
	for name, test := range map[string]struct {
		response []byte
		want     string // of the error; empty: none
	}{
		"good":                           {good.response(t), ""},
		"good, named by SHA-1":           {with(func(s *staple) { s.sha1ID = true }), ""},
		"none":                           {nil, ""},
		"of a responder":                 {with(func(s *staple) { s.signer, s.responder = key, responder }), ""},
		"of a responder without the use": {with(func(s *staple) { s.signer, s.responder = key, impostor }), "not signed by"},
		"of another CA's responder":      {with(func(s *staple) { s.signer, s.responder = key, foreign }), "not signed by"},
		"signed by somebody":             {with(func(s *staple) { s.signer = key }), "not signed by"},
		"revoked":                        {with(func(s *staple) { s.status = 1 }), "is revoked"},
		"unknown":                        {with(func(s *staple) { s.status = 2 }), "does not know"},
		"of another certificate":         {with(func(s *staple) { s.cert = p.client.Cert }), "of another certificate"},
		"of another issuer": {with(func(s *staple) {
			same := *other.ca
			s.issuer, s.signer = &same, p.ca.Key
		}), "of another certificate"},
		"stale":           {with(func(s *staple) { s.nextUpdate = time.Now().Add(-time.Minute) }), "out of date"},
		"early":           {with(func(s *staple) { s.thisUpdate = time.Now().Add(time.Hour) }), "not valid before"},
		"a minute early":  {with(func(s *staple) { s.thisUpdate = time.Now().Add(time.Minute) }), ""},
		"without an end":  {with(func(s *staple) { s.nextUpdate = absent }), "until when"},
		"not a response":  {[]byte("hello"), "cannot be used"},
		"an error":        {[]byte{0x30, 0x03, 0x0a, 0x01, 0x06}, "cannot be used"},
		"an empty answer": {[]byte{0x30, 0x07, 0x0a, 0x01, 0x00, 0xa0, 0x02, 0x30, 0x00}, "cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			err := stapled(t, p, p.server, test.response, p.trusting())
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
			if test.want != "is revoked" {
				assert.Contains(t, tlsprops.Hint(err), "staple")
			}
			unverified := p.trusting()
			unverified.RejectUnauthorized = new(false)
			assert.NoError(t, stapled(t, p, p.server, test.response, unverified), "who verifies nothing does not verify this")
		})
	}
}

func TestACertificateThatDemandsAStapleIsRefusedWithoutAGoodOne(t *testing.T) {
	p := newPKI(t)
	demanding := p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, MustStaple: true})
	require.ErrorContains(t, stapled(t, p, demanding, nil, p.trusting()), "RFC 7633")
	require.NoError(t, stapled(t, p, demanding, staple{cert: demanding.Cert, issuer: p.ca}.response(t), p.trusting()))
	chainOnly := p.trusting()
	chainOnly.Verify = tlsprops.VerifyChainOnly
	require.ErrorContains(t, stapled(t, p, demanding, nil, chainOnly), "RFC 7633")
}

func TestAListenerStaplesWhatItsFileHolds(t *testing.T) {
	p := newPKI(t)
	response := staple{cert: p.server.Cert, issuer: p.ca}.response(t)
	path := filepath.Join(p.dir, "ocsp.der")
	require.NoError(t, os.WriteFile(path, response, 0o600))
	props := p.listener()
	props.OCSPStaplePath = path
	_, clientSide := handshake(serverConfig(t, props), clientConfig(t, p.trusting(), "localhost"))
	require.NoError(t, clientSide.err)
	assert.Equal(t, response, clientSide.state.OCSPResponse)

	for _, bad := range [][]byte{nil, []byte("no"), {0x30, 0x03, 0x0a, 0x01, 0x06}, append(response, 0)} {
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		_, err := tlsprops.Load(props)
		assert.Equal(t, "ocspStaplePath", fieldOf(t, err))
	}
}

// Where the chain shows the issuer, a response that no client would take stops
// the start.
func TestAListenerDoesNotStartWithAStapleThatClientsRefuse(t *testing.T) {
	p := newPKI(t)
	issuer := p.ca.Intermediate("intermediate")
	server := issuer.Issue(testpki.Options{Hosts: []string{"localhost"}})
	files := server.Write(p.dir, "below")
	path := filepath.Join(p.dir, "ocsp.der")
	props := tlsprops.TlsProperties{Enabled: true, KeyStorePath: files.Key, CertStorePath: files.Cert, OCSPStaplePath: path}
	for name, s := range map[string]staple{
		"":                       {cert: server.Cert, issuer: issuer},
		"out of date":            {cert: server.Cert, issuer: issuer, nextUpdate: time.Now().Add(-time.Minute)},
		"is revoked":             {cert: server.Cert, issuer: issuer, status: 1},
		"of another certificate": {cert: p.server.Cert, issuer: issuer},
		"not signed by":          {cert: server.Cert, issuer: issuer, signer: p.ca.Key},
	} {
		require.NoError(t, os.WriteFile(path, s.response(t), 0o600))
		_, err := tlsprops.Load(props)
		if name == "" {
			require.NoError(t, err)
			continue
		}
		assert.Equal(t, "ocspStaplePath", fieldOf(t, err))
		assert.ErrorContains(t, err, name)
	}
}

func TestAResponseThatOpenSSLMakesIsGood(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	p := newPKI(t)
	caKey := filepath.Join(p.dir, "ca.key")
	der, err := x509.MarshalPKCS8PrivateKey(p.ca.Key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(caKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	index := filepath.Join(p.dir, "index.txt")
	run := func(status string) []byte {
		line := fmt.Sprintf("%s\t391231235959Z\t%s\t%X\tunknown\t/CN=localhost\n", status, map[string]string{"V": "", "R": "250101000000Z"}[status], p.server.Cert.SerialNumber)
		require.NoError(t, os.WriteFile(index, []byte(line), 0o600))
		request, response := filepath.Join(p.dir, "req.der"), filepath.Join(p.dir, "resp.der")
		for _, args := range [][]string{
			{"ocsp", "-issuer", p.caFile, "-cert", p.serverFiles.Cert, "-no_nonce", "-reqout", request},
			{"ocsp", "-index", index, "-CA", p.caFile, "-rsigner", p.caFile, "-rkey", caKey, "-reqin", request, "-respout", response, "-ndays", "1"},
		} {
			out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
			require.NoError(t, err, "%s", out)
		}
		data, err := os.ReadFile(response)
		require.NoError(t, err)
		return data
	}
	require.NoError(t, stapled(t, p, p.server, run("V"), p.trusting()))
	require.ErrorContains(t, stapled(t, p, p.server, run("R"), p.trusting()), "is revoked")
}

// A response that was changed in any way that matters does not vouch.
func FuzzOnlyWhatTheIssuerSignedVouches(f *testing.F) {
	ca := testpki.NewCA(f, "CA")
	server := ca.Server()
	valid := staple{cert: server.Cert, issuer: ca}.response(f)
	f.Add(valid)
	f.Add([]byte{0x30, 0x07, 0x0a, 0x01, 0x00, 0xa0, 0x02, 0x30, 0x00})
	f.Add(staple{cert: server.Cert, issuer: ca, status: 1}.response(f))
	var whole struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type     asn1.ObjectIdentifier
			Response []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	signed := func(data []byte) string {
		var basic struct {
			Data asn1.RawValue
			Rest asn1.RawValue
			Sig  asn1.BitString
		}
		if _, err := asn1.Unmarshal(data, &whole); err != nil {
			return ""
		}
		_, _ = asn1.Unmarshal(whole.Bytes.Response, &basic)
		return string(basic.Data.FullBytes)
	}
	want := signed(valid)
	f.Fuzz(func(t *testing.T, data []byte) {
		if tlsprops.Vouches(data, server.Cert, ca.Cert) && signed(data) != want {
			t.Error("vouches although the issuer signed something else")
		}
	})
}
