//go:build linux

package smtpx_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/smtpx"
	"github.com/carewire/carewire/tlsprops"
)

func TestPostfixTakesMail(t *testing.T) {
	python := interop.Need(t, "python3")
	p := startPostfix(t)

	t.Run("over every encryption", func(t *testing.T) {
		for encryption, port := range map[smtpx.SmtpEncryption]int{"none": portPlain, "tls": portTLS, "ssl": portSSL} {
			s := p.sender(t, port, encryption)
			for range 2 {
				result, err := s.Send(t.Context(), note("a@example.org"))
				require.NoError(t, err, encryption)
				assert.Equal(t, smtpx.Accepted, result.Recipients[0].Outcome)
			}
		}
	})
	t.Run("refuses one of three recipients", func(t *testing.T) {
		s := p.sender(t, portTLS, smtpx.EncryptionTLS)
		result, err := s.Send(t.Context(), note("a@example.org", "gone@example.org", "b@example.org"))
		failed := failure(t, err)
		assert.Equal(t, smtpx.Partial, failed.Outcome)
		assert.Equal(t, "550 5.1.1", failed.Code())
		assert.Equal(t, smtpx.Rejected, result.Recipients[1].Outcome)
		assert.Empty(t, result.Remaining())
		_, err = s.Send(t.Context(), note("relay@example.com"))
		assert.Equal(t, "554 5.7.1", failure(t, err).Code(), "no relaying without a password")
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err, "the connection is fit for another")
	})
	t.Run("with every mechanism that it has", func(t *testing.T) {
		for _, m := range []smtpx.Mechanism{"", smtpx.Plain, smtpx.Login, smtpx.CramMD5, smtpx.ScramSHA1, smtpx.ScramSHA256} {
			s := p.sender(t, portTLS, smtpx.EncryptionTLS)
			s.Auth = smtpx.Auth{Username: secretUser, Password: secretPassword, Mechanism: m}
			_, err := s.Send(t.Context(), note("a@example.org"))
			require.NoError(t, err, m)
			wrong := p.sender(t, portTLS, smtpx.EncryptionTLS)
			wrong.Auth = smtpx.Auth{Username: secretUser, Password: "wrong", Mechanism: m}
			_, err = wrong.Send(t.Context(), note("a@example.org"))
			require.ErrorIs(t, err, smtpx.ErrAuth, m)
			assert.False(t, failure(t, err).Retryable(), m)
			assert.Equal(t, "535 5.7.8", failure(t, err).Code())
		}
		s := p.sender(t, portPlain, smtpx.EncryptionNone)
		s.Auth = smtpx.Auth{Username: secretUser, Password: secretPassword, AllowPlaintext: true}
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
		assert.Contains(t, p.logged(), "sasl_method=SCRAM-SHA-256")
	})
	t.Run("with a client certificate", func(t *testing.T) {
		for name, ca := range map[string]*testpki.Authority{"": p.ca, "of another authority": testpki.NewCA(t, "Other CA"), "none": nil} {
			s := p.sender(t, portMutual, smtpx.EncryptionTLS)
			if ca != nil {
				files := ca.Client("carewire").Write(t.TempDir(), "client")
				s.TLS.KeyStorePath, s.TLS.CertStorePath, s.TLS.AlwaysSendClientCert = files.Key, files.Cert, true
			}
			_, err := s.Send(t.Context(), note("a@example.org"))
			if name == "" {
				require.NoError(t, err)
				continue
			}
			assert.Contains(t, []smtpx.Outcome{smtpx.NotSent, smtpx.Rejected}, failure(t, err).Outcome, name)
		}
	})
	t.Run("but not under another name, or from an authority that is not trusted", func(t *testing.T) {
		s := p.sender(t, portTLS, smtpx.EncryptionTLS)
		s.TLS.SniServerName = "mail.example.net"
		_, err := s.Send(t.Context(), note("a@example.org"))
		assert.ErrorContains(t, err, "mail.example.net")
		assert.False(t, failure(t, err).Retryable())
		s = p.sender(t, portSSL, smtpx.EncryptionSSL)
		s.TLS = &tlsprops.TlsProperties{Enabled: true, TrustStorePath: testpki.NewCA(t, "Other CA").Write(t.TempDir(), "ca.crt")}
		_, err = s.Send(t.Context(), note("a@example.org"))
		assert.False(t, failure(t, err).Retryable())
		s = p.sender(t, portPlain, smtpx.EncryptionTLS)
		s.TLS = &tlsprops.TlsProperties{Enabled: true, TrustStorePath: p.trust}
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, smtpx.ErrNoStartTLS)
		s = p.sender(t, portTLS, smtpx.EncryptionNone)
		_, err = s.Send(t.Context(), note("a@example.org"))
		assert.Equal(t, "530 5.7.0", failure(t, err).Code(), "Must issue STARTTLS first")
	})
	t.Run("and Python reads from the mailbox what was sent", func(t *testing.T) {
		blob := bytes.Repeat([]byte{0, 1, 2, '\r', '\n', '.', '\n', 0xff}, 20_000)
		s := p.sender(t, portTLS, smtpx.EncryptionTLS)
		m := &smtpx.Message{
			From: "Jörg Müller <j@example.org>", To: []string{"Björn <b@example.org>"}, Cc: []string{"jörg@example.org"},
			Subject: "Grüße " + strings.Repeat("aus dem Krankenhaus ", 20) + "日本",
			Text:    ".\r\n..\r\nFrom me\r\nGrüße\r\n" + strings.Repeat("x", 3000) + "\r\n", HTML: "<p>.\r\n日本</p>\r\n",
			Headers: map[string]string{"X-Long": strings.Repeat("word ", 100) + "ü"}, ID: "python@example.org", Importance: smtpx.ImportanceHigh,
			Attachments: []smtpx.Attachment{{Name: "Befund Müller.bin", Data: blob}, {Name: "i.png", ContentID: "i@x", Data: []byte("png")}},
		}
		_, err := s.Send(t.Context(), m)
		require.NoError(t, err)
		assert.Contains(t, p.box(t, "j", 1), "\nCc: <jörg@example.org>\n", "Python's parser takes no UTF-8 in addresses")
		const script = `
import mailbox, email, email.policy, json, sys, base64
box = mailbox.mbox(sys.argv[1], factory=lambda f: email.message_from_binary_file(f, policy=email.policy.SMTPUTF8))
m = list(box)[-1]
out = {"defects": [str(d) for p in m.walk() for d in p.defects], "subject": m["subject"], "long": m["x-long"], "id": m["message-id"],
  "from": [[a.display_name, a.addr_spec] for a in m["from"].addresses], "to": [[a.display_name, a.addr_spec] for a in m["to"].addresses],
  "text": m.get_body(("plain",)).get_content(), "html": m.get_body(("html",)).get_content(),
  "files": [[p.get_filename(), base64.b64encode(p.get_content()).decode()] for p in m.walk() if p.get_content_disposition()]}
print(json.dumps(out))`
		out, err := exec.CommandContext(t.Context(), python, "-c", script, filepath.Join(p.dir, "mail", "j")).Output()
		require.NoError(t, err)
		var got struct {
			Defects           []string
			Subject, Long, ID string
			From, To          [][2]string
			Text, HTML        string
			RawFiles          json.RawMessage `json:"files"`
		}
		require.NoError(t, json.Unmarshal(out, &got))
		var files []([]string)
		require.NoError(t, json.Unmarshal(got.RawFiles, &files))
		assert.Empty(t, got.Defects)
		assert.Equal(t, m.Subject, got.Subject)
		assert.Equal(t, m.Headers["X-Long"], got.Long)
		assert.Equal(t, "<python@example.org>", got.ID)
		assert.Equal(t, [][2]string{{"Jörg Müller", "j@example.org"}}, got.From)
		assert.Equal(t, [][2]string{{"Björn", "b@example.org"}}, got.To)
		// The mailbox has the line ends of Unix, and marks lines that begin with From.
		assert.Equal(t, strings.ReplaceAll(m.Text, "\r\n", "\n"), strings.ReplaceAll(got.Text, "\n>From", "\nFrom"))
		assert.Equal(t, strings.ReplaceAll(m.HTML, "\r\n", "\n"), got.HTML)
		want, _ := json.Marshal(blob)
		png, _ := json.Marshal([]byte("png"))
		byName := map[string]string{}
		for _, f := range files {
			byName[f[0]] = f[1]
		}
		assert.Equal(t, map[string]string{"Befund Müller.bin": strings.Trim(string(want), `"`), "i.png": strings.Trim(string(png), `"`)}, byName)
	})
	log := p.logged()
	assert.NotContains(t, log, "fatal")
}
