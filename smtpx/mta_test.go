//go:build linux

package smtpx_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/smtpx"
	"github.com/carewire/carewire/tlsprops"
)

func TestARealServerTakesMail(t *testing.T) {
	t.Run("Postfix", func(t *testing.T) { takesMail(t, startPostfix(t)) })
	t.Run("Exim", func(t *testing.T) { takesMail(t, startExim(t)) })
}

func takesMail(t *testing.T, p *mta) {
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
		assert.Equal(t, p.codes.unknown, failed.Code())
		assert.Equal(t, smtpx.Rejected, result.Recipients[1].Outcome)
		assert.Empty(t, result.Remaining())
		_, err = s.Send(t.Context(), note("relay@example.com"))
		assert.Equal(t, p.codes.relay, failure(t, err).Code(), "no relaying without a password")
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err, "the connection is fit for another")
	})
	t.Run("with every mechanism that it has", func(t *testing.T) {
		for _, m := range p.mechanisms {
			s := p.sender(t, portTLS, smtpx.EncryptionTLS)
			s.Auth = smtpx.Auth{Username: secretUser, Password: secretPassword, Mechanism: m}
			_, err := s.Send(t.Context(), note("relay@example.com"))
			require.NoError(t, err, m)
			wrong := p.sender(t, portTLS, smtpx.EncryptionTLS)
			wrong.Auth = smtpx.Auth{Username: secretUser, Password: "wrong", Mechanism: m}
			_, err = wrong.Send(t.Context(), note("a@example.org"))
			require.ErrorIs(t, err, smtpx.ErrAuth, m)
			assert.False(t, failure(t, err).Retryable(), m)
			assert.Equal(t, p.codes.password, failure(t, err).Code())
		}
		s := p.sender(t, portPlain, smtpx.EncryptionNone)
		s.Auth = smtpx.Auth{Username: secretUser, Password: secretPassword, AllowPlaintext: true}
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
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
		assert.Equal(t, p.codes.plaintext, failure(t, err).Code(), "Must issue STARTTLS first")
	})
	t.Run("and Python reads from the mailbox what was sent", func(t *testing.T) { pythonReads(t, p) })
	assert.NotContains(t, p.logged(), "fatal")
}

// inPython prints the last message of a mailbox as Python's parser has it.
const inPython = `
import mailbox, email, email.policy, json, sys, base64
box = mailbox.mbox(sys.argv[1], factory=lambda f: email.message_from_binary_file(f, policy=email.policy.SMTPUTF8))
m = list(box)[-1]
out = {"defects": [str(d) for p in m.walk() for d in p.defects], "subject": m["subject"], "long": m["x-long"], "id": m["message-id"],
  "from": [[a.display_name, a.addr_spec] for a in m["from"].addresses], "to": [[a.display_name, a.addr_spec] for a in m["to"].addresses],
  "text": m.get_body(("plain",)).get_content(), "html": m.get_body(("html",)).get_content(),
  "bcc": m["bcc"] or "", "importance": m["importance"], "replyTo": m["reply-to"], "date": m["date"].datetime.isoformat(),
  "files": {p.get_filename(): [base64.b64encode(p.get_content()).decode(), p.get_content_disposition(), p["content-id"] or ""]
    for p in m.walk() if p.get_content_disposition()}}
print(json.dumps(out))`

// pythonReads sends what is hard to carry, and compares what Python's email
// package makes of the file of the mailbox.
func pythonReads(t *testing.T, p *mta) {
	python := interop.Need(t, "python3")
	blob := bytes.Repeat([]byte{0, 1, 2, '\r', '\n', '.', '\n', 0xff}, 20_000)
	s := p.sender(t, portTLS, smtpx.EncryptionTLS)
	m := &smtpx.Message{
		From: "Jörg Müller <j@example.org>", To: []string{"Björn <b@example.org>"}, Cc: []string{"jörg@example.org"}, Bcc: []string{"a@example.org"},
		ReplyTo: []string{"r@example.org"}, Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Subject: "Grüße " + strings.Repeat("aus dem Krankenhaus ", 20) + "日本",
		Text:    ".\r\n..\r\nFrom me\r\nGrüße\r\na CR\ra LF\n.\n.\rboth\r\n\r\n.\r\n" + strings.Repeat("x", 3000) + "\r\n.", HTML: "<p>.\r\n日本</p>\r\n",
		Headers: map[string]string{"X-Long": strings.Repeat("word ", 100) + "ü"}, ID: "python@example.org", Importance: smtpx.ImportanceHigh,
		Attachments: []smtpx.Attachment{{Name: "Befund Müller.bin", Data: blob}, {Name: "i.png", ContentID: "i@x", Data: []byte("png")}},
	}
	_, err := s.Send(t.Context(), m)
	require.NoError(t, err)
	require.Contains(t, p.box(t, "jörg", 1), "\nCc: <jörg@example.org>\n", "Python's parser takes no UTF-8 in addresses")
	out, err := exec.CommandContext(t.Context(), python, "-c", inPython, filepath.Join(p.mailboxes, "jörg")).Output()
	require.NoError(t, err)
	type fromPython struct {
		Defects                                                       []string
		Subject, Long, ID, Text, HTML, Bcc, Importance, ReplyTo, Date string
		From, To                                                      [][2]string
		Files                                                         map[string][3]string
	}
	var got fromPython
	require.NoError(t, json.Unmarshal(out, &got))
	got.Text = strings.ReplaceAll(got.Text, "\n>From", "\nFrom") // a mailbox marks lines that begin with From
	unix := strings.NewReplacer("\r\n", "\n", "\r", "\n")        // and has the line ends of Unix
	assert.Equal(t, fromPython{
		Defects: []string{}, Subject: m.Subject, Long: m.Headers["X-Long"], ID: "<python@example.org>", Text: unix.Replace(m.Text), HTML: unix.Replace(m.HTML),
		Importance: "high", ReplyTo: "r@example.org", Date: "2026-01-02T03:04:05+00:00",
		From: [][2]string{{"Jörg Müller", "j@example.org"}}, To: [][2]string{{"Björn", "b@example.org"}},
		Files: map[string][3]string{
			"Befund Müller.bin": {base64.StdEncoding.EncodeToString(blob), "attachment", ""},
			"i.png":             {base64.StdEncoding.EncodeToString([]byte("png")), "inline", "<i@x>"},
		},
	}, got)
}
