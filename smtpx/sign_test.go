package smtpx_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/smtpx"
)

// wire sends m and returns it as it came.
func wire(t *testing.T, m *smtpx.Message) string {
	t.Helper()
	var text string
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		_, err := p.inMemory(t, "none", nil).Send(t.Context(), m)
		require.NoError(t, err)
		text = p.taken()[0].data
	})
	return text
}

func signable() *smtpx.Message {
	m := note("a@example.org")
	m.Subject, m.Text, m.HTML = "Grüße "+strings.Repeat("long ", 40), ".\r\nGrüße  \r\n", "<p>x</p>"
	m.Attachments = []smtpx.Attachment{{Name: "a.bin", Data: []byte(strings.Repeat("content", 1000))}}
	return m
}

func TestASignatureIsOneThatOpenSSLVerifies(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	ca := testpki.NewCA(t, "CA")
	dir := t.TempDir()
	trust := ca.Write(dir, "ca.crt")
	pair := ca.Issue(testpki.Options{CommonName: "carewire", Emails: []string{"carewire@example.org"}}).TLS()
	m := signable()
	m.SMIME = &pair
	text := wire(t, m)
	verify := func(text string) error {
		cmd := exec.CommandContext(t.Context(), openssl, "cms", "-verify", "-CAfile", trust, "-purpose", "any", "-out", filepath.Join(dir, "out"))
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.CombinedOutput()
		t.Log(string(out))
		return err
	}
	require.NoError(t, verify(text))
	assert.Error(t, verify(strings.Replace(text, "<p>x</p>", "<p>y</p>", 1)), "the control")
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	pair.PrivateKey = key
	_, err = (&smtpx.Sender{Host: "x.invalid", Encryption: "tls"}).Send(t.Context(), m)
	require.ErrorContains(t, err, "must be RSA or ECDSA")
	// What is to be signed is held in memory, and so bounded.
	m.SMIME, m.DKIM = nil, &smtpx.DKIM{Domain: "example.org", Selector: "s", Key: key}
	m.Attachments = []smtpx.Attachment{{Name: "a", Open: smtpx.Stream(&pattern{40 << 20})}}
	_, err = (&smtpx.Sender{Host: "x.invalid", Encryption: "tls"}).Send(t.Context(), m)
	require.ErrorIs(t, err, smtpx.ErrTooLarge)
}

var (
	spaces = regexp.MustCompile(`[ \t]+`)
	tag    = regexp.MustCompile(`(?s)[;\s]b=[^;]*`)
)

// relaxed is a header field in the relaxed form of RFC 6376 section 3.4.2.
func relaxed(field string) string {
	name, value, _ := strings.Cut(field, ":")
	value = strings.TrimSpace(spaces.ReplaceAllString(strings.ReplaceAll(value, "\r\n", ""), " "))
	return strings.ToLower(strings.TrimSpace(name)) + ":" + value
}

// dkimHolds verifies the first signature of text as RFC 6376 section 6.1 says.
func dkimHolds(t *testing.T, text string, verify func(digest, signature []byte) bool) bool {
	t.Helper()
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	var fields []string
	for line := range strings.SplitSeq(head, "\r\n") {
		if line[0] == ' ' || line[0] == '\t' {
			fields[len(fields)-1] += "\r\n" + line
		} else {
			fields = append(fields, line)
		}
	}
	signature := fields[0]
	require.True(t, strings.HasPrefix(signature, "DKIM-Signature:"))
	tags := map[string]string{}
	for part := range strings.SplitSeq(strings.SplitN(signature, ":", 2)[1], ";") {
		name, value, _ := strings.Cut(part, "=")
		tags[strings.TrimSpace(name)] = strings.Join(strings.Fields(value), "")
	}
	require.Equal(t, "relaxed/relaxed", tags["c"])
	lines := strings.Split(body, "\r\n")
	for i := range lines {
		lines[i] = strings.TrimRight(spaces.ReplaceAllString(lines[i], " "), " ")
	}
	sum := sha256.Sum256([]byte(strings.TrimRight(strings.Join(lines, "\r\n"), "\r\n") + "\r\n"))
	if base64.StdEncoding.EncodeToString(sum[:]) != tags["bh"] {
		return false
	}
	var signed strings.Builder
	for name := range strings.SplitSeq(tags["h"], ":") {
		for _, field := range fields[1:] {
			if strings.EqualFold(strings.SplitN(field, ":", 2)[0], name) {
				signed.WriteString(relaxed(field) + "\r\n")
				break
			}
		}
	}
	at := tag.FindStringIndex(signature)
	require.NotNil(t, at)
	signed.WriteString(relaxed(signature[:at[0]+3] + signature[at[1]:]))
	digest := sha256.Sum256([]byte(signed.String()))
	raw, err := base64.StdEncoding.DecodeString(tags["b"])
	require.NoError(t, err)
	return verify(digest[:], raw)
}

func TestADKIMSignatureHolds(t *testing.T) {
	key := testpki.RSAKey(t, 2048)
	m := signable()
	m.DKIM = &smtpx.DKIM{Domain: "example.org", Selector: "s1", Key: key}
	text := wire(t, m)
	verify := func(digest, signature []byte) bool {
		return rsa.VerifyPKCS1v15(key.Public().(*rsa.PublicKey), crypto.SHA256, digest, signature) == nil
	}
	assert.True(t, dkimHolds(t, text, verify))
	assert.False(t, dkimHolds(t, strings.Replace(text, "long", "wrong", 1), verify) && dkimHolds(t, strings.Replace(text, "<p>x", "<p>y", 1), verify), "the control")
	for _, bad := range []*smtpx.DKIM{{}, {Domain: "example.org", Selector: "s", Key: nil}, {Domain: "example.org; x=y", Selector: "s", Key: key}, {Domain: "example.org", Selector: "s", Key: testpki.RSAKey(t, 1024)}} {
		m.DKIM = bad
		_, err := (&smtpx.Sender{Host: "x.invalid", Encryption: "tls"}).Send(t.Context(), m)
		assert.ErrorContains(t, err, "Message.DKIM")
	}
}
