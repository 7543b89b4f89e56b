package smtpx_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/smtpx"
	"github.com/carewire/carewire/tlsprops"
)

// credentials are planted: they must not be seen.
var credentials = smtpx.Auth{Username: secretUser, Password: secretPassword}

func TestAServerWithoutStartTLSGetsNothing(t *testing.T) {
	for name, p := range map[string]*peer{
		"not offered":       {},
		"stripped":          {ext: []string{"PIPELINING", "AUTH PLAIN", "XXXXXXXA"}},
		"offered, refused":  {ext: []string{"STARTTLS", "AUTH PLAIN"}, reply: say("STARTTLS", "502 5.5.1 no\r\n")},
		"offered, odd":      {ext: []string{"STARTTLS", "AUTH PLAIN"}, reply: say("STARTTLS", "250 fine, go on\r\n")},
		"no EHLO":           {reply: say("EHLO", "502 what\r\n")},
		"offered in a HELP": {ext: []string{"HELP STARTTLS", "AUTH PLAIN"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, client := pki(t)
				s := p.inMemory(t, smtpx.EncryptionTLS, client)
				s.Auth = credentials
				_, err := s.Send(t.Context(), note("a@example.org"))
				failed := failure(t, err)
				assert.False(t, failed.Retryable())
				assert.False(t, failed.MaybeDelivered())
				if name != "offered, odd" && name != "no EHLO" {
					require.ErrorIs(t, err, smtpx.ErrNoStartTLS)
				}
				for _, word := range []string{"MAIL", "AUTH ", "RCPT", "DATA"} {
					assert.NotContains(t, p.transcript(), "C: "+word)
				}
			})
		})
	}
	// 454: for now.
	synctest.Test(t, func(t *testing.T) {
		p := &peer{ext: []string{"STARTTLS"}, reply: say("STARTTLS", "454 4.7.0 later\r\n")}
		_, client := pki(t)
		_, err := p.inMemory(t, smtpx.EncryptionTLS, client).Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, smtpx.ErrNoStartTLS)
		assert.True(t, failure(t, err).Retryable())
	})
}

func TestPlaintextAfterStartTLSIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pki(t)
		p := &peer{tls: server, reply: say("STARTTLS", "220 go\r\n250-mail.example.org\r\n250 AUTH PLAIN\r\n")}
		s := p.inMemory(t, smtpx.EncryptionTLS, client)
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, smtpx.ErrInjected)
		assert.False(t, failure(t, err).Retryable())
		assert.Empty(t, p.taken())
		// The control: the same without the injected lines.
		p.reply = say("STARTTLS", "220 go\r\n")
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
	})
}

func TestWhatWasOfferedBeforeTLSIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pki(t)
		hellos := 0
		p := &peer{tls: server, reply: func(line string) string {
			if !strings.HasPrefix(line, "EHLO") {
				return ""
			}
			if hellos++; hellos == 1 { // somebody on the way adds a small SIZE and a weak AUTH
				return "250-mail.example.org\r\n250-SIZE 1\r\n250-AUTH LOGIN\r\n250 STARTTLS\r\n"
			}
			return "250-mail.example.org\r\n250 PIPELINING\r\n"
		}}
		s := p.inMemory(t, smtpx.EncryptionTLS, client)
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
		s.Close()
		hellos = 0
		s2 := &smtpx.Sender{Host: s.Host, Encryption: s.Encryption, TLSConfig: client, NetDialer: s.NetDialer, Auth: credentials}
		_, err = s2.Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, smtpx.ErrAuth, "AUTH was offered before TLS alone")
		assert.NotContains(t, p.transcript(), "C: AUTH")
	})
}

func TestAServerThatIsNotTrustedGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := testpki.NewCA(t, "CA"), testpki.NewCA(t, "Other CA")
		for name, cert := range map[string]tls.Certificate{
			"another authority": other.Server("mail.example.org").TLS(),
			"another name":      ca.Server("mail.example.net").TLS(),
			"expired":           ca.Issue(testpki.Options{Hosts: []string{"mail.example.org"}, NotAfter: time.Now().Add(-time.Hour)}).TLS(),
		} {
			for _, encryption := range []smtpx.SmtpEncryption{smtpx.EncryptionTLS, smtpx.EncryptionSSL} {
				p := &peer{implicit: encryption == smtpx.EncryptionSSL, tls: &tls.Config{Certificates: []tls.Certificate{cert}}}
				s := p.inMemory(t, encryption, &tls.Config{RootCAs: ca.Pool()})
				s.Auth = credentials
				_, err := s.Send(t.Context(), note("a@example.org"))
				assert.False(t, failure(t, err).Retryable(), name)
				assert.ErrorContains(t, err, "TLS handshake", name)
				assert.NotContains(t, p.transcript(), "AUTH", name)
				assert.Empty(t, p.taken())
			}
		}
	})
}

func TestAPortWithoutTLSGetsNothingFromSSL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		_, client := pki(t)
		_, err := p.inMemory(t, smtpx.EncryptionSSL, client).Send(t.Context(), note("a@example.org"))
		failed := failure(t, err)
		assert.Equal(t, smtpx.NotSent, failed.Outcome)
		assert.Empty(t, p.taken())
		assert.NotContains(t, p.transcript(), "EHLO")
	})
}

func TestAClientCertificateIsShownAndItsRefusalIsSaid(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, encryption := range []smtpx.SmtpEncryption{smtpx.EncryptionTLS, smtpx.EncryptionSSL} {
			synctest.Test(t, func(t *testing.T) {
				ca := testpki.NewCA(t, "CA")
				p := &peer{implicit: encryption == smtpx.EncryptionSSL, tls: &tls.Config{
					Certificates: []tls.Certificate{ca.Server("mail.example.org").TLS()}, MaxVersion: version,
					ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
				}}
				client := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Client("carewire").TLS()}}
				_, err := p.inMemory(t, encryption, client).Send(t.Context(), note("a@example.org"))
				require.NoError(t, err)
				s := p.inMemory(t, encryption, &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{testpki.NewCA(t, "X").Client("x").TLS()}})
				_, err = s.Send(t.Context(), note("a@example.org"))
				assert.False(t, failure(t, err).Retryable(), "%s %x: %v", encryption, version, err)
			})
		}
	}
}

// plain accepts the planted credentials with AUTH PLAIN.
func plain(mechanism, initial string, _ func(string) (string, bool)) bool {
	want := base64.StdEncoding.EncodeToString([]byte("\x00" + secretUser + "\x00" + secretPassword))
	return mechanism == "PLAIN" && initial == want
}

func TestCredentialsNeedTLS(t *testing.T) {
	// Without leave: not even to loopback.
	s := &smtpx.Sender{Host: "127.0.0.1", Encryption: smtpx.EncryptionNone, Auth: credentials}
	_, err := s.Send(t.Context(), note("a@example.org"))
	require.ErrorIs(t, err, smtpx.ErrPlaintextAuth)

	// With leave: not to anywhere else, whatever the host is called.
	synctest.Test(t, func(t *testing.T) {
		p := &peer{auth: plain}
		s := p.inMemory(t, smtpx.EncryptionNone, nil)
		s.Host, s.Auth = "localhost", credentials
		s.Auth.AllowPlaintext = true
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, smtpx.ErrPlaintextAuth)
		assert.False(t, failure(t, err).Retryable())
		assert.NotContains(t, p.transcript(), "C: AUTH")
	})

	// With leave, to loopback: the control.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &peer{auth: plain}
	p.start(t, ln)
	s = &smtpx.Sender{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Encryption: smtpx.EncryptionNone, Auth: credentials}
	s.Auth.AllowPlaintext = true
	defer s.Close()
	_, err = s.Send(t.Context(), note("a@example.org"))
	require.NoError(t, err)
}

func TestNoFieldCanBringAHeaderOrARecipient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		s := p.inMemory(t, "none", nil)
		for _, evil := range []string{"\r\nBcc: evil@example.com", "\nX-Evil: 1", "\rX-Evil: 1", "\x00", "\u0085X-Evil: 1", "\r\n\r\nbody"} {
			for name, change := range map[string]func(*smtpx.Message){
				"From":         func(m *smtpx.Message) { m.From = "a" + evil + "@example.org" },
				"From name":    func(m *smtpx.Message) { m.From = "\"A" + evil + "\" <a@example.org>" },
				"From after":   func(m *smtpx.Message) { m.From = "a@example.org" + evil },
				"To":           func(m *smtpx.Message) { m.To = []string{"a@example.org" + evil} },
				"Cc":           func(m *smtpx.Message) { m.Cc = []string{"A" + evil + " <a@example.org>"} },
				"Bcc":          func(m *smtpx.Message) { m.Bcc = []string{"<a@example.org>" + evil} },
				"ReplyTo":      func(m *smtpx.Message) { m.ReplyTo = []string{"a@example.org" + evil} },
				"EnvelopeFrom": func(m *smtpx.Message) { m.EnvelopeFrom = "a@example.org>" + evil },
				"Recipients":   func(m *smtpx.Message) { m.Recipients = []string{"a@example.org" + evil} },
				"Subject":      func(m *smtpx.Message) { m.Subject = "s" + evil },
				"header":       func(m *smtpx.Message) { m.Headers = map[string]string{"X-A": "v" + evil} },
				"header name":  func(m *smtpx.Message) { m.Headers = map[string]string{"X-A: v" + evil: "v"} },
				"ID":           func(m *smtpx.Message) { m.ID = "a@b" + evil },
				"DSN.ID":       func(m *smtpx.Message) { m.DSN.ID = "a" + evil },
				"Importance":   func(m *smtpx.Message) { m.Importance = smtpx.Importance("high" + evil) },
				"Charset":      func(m *smtpx.Message) { m.Charset = "UTF-8" + evil },
				"content type": func(m *smtpx.Message) {
					m.Attachments = []smtpx.Attachment{{Data: []byte{}, Name: "a", ContentType: "text/plain" + evil}}
				},
				"content id": func(m *smtpx.Message) {
					m.Attachments = []smtpx.Attachment{{Data: []byte{}, Name: "a", ContentID: "a" + evil}}
				},
				"DKIM": func(m *smtpx.Message) {
					m.DKIM = &smtpx.DKIM{Domain: "example.org" + evil, Selector: "s", Key: testpki.NewCA(t, "k").Key}
				},
			} {
				m := note("a@example.org")
				change(m)
				_, err := s.Send(t.Context(), m)
				if assert.Error(t, err, "%s %q", name, evil) {
					assert.False(t, failure(t, err).Retryable())
					assert.NotContains(t, err.Error(), "vil", "%s", name)
				}
			}
		}
		// More than one address in one entry; what breaks out of < and >.
		for _, evil := range []string{
			"a@example.org, evil@example.com", "a@example.org;evil@example.com", `"a> NOTIFY=NEVER <"@example.org`, `"a b"@example.org`,
			"group: a@example.org, b@example.org;", "a@example.org> SIZE=1", "<>", "", "a", "@", "a@", "=?utf-8?q?a=0d=0aBcc:=20evil@example.com?= <a@example.org>",
		} {
			m := note(evil)
			_, err := s.Send(t.Context(), m)
			assert.Error(t, err, "%q", evil)
		}
		for _, name := range []string{"from", "To", "BCC", "Subject", "content-type", "Content-Transfer-Encoding", "MIME-Version", "DKIM-Signature", "message-ID", "Date", "Return-Path", ""} {
			m := note("a@example.org")
			m.Headers = map[string]string{name: "x"}
			_, err := s.Send(t.Context(), m)
			assert.Error(t, err, name)
		}
		assert.Zero(t, p.connections(), "all this is found before a connection is made")
	})
}

func TestTheNameOfAnAttachmentIsMadeSafe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		s := p.inMemory(t, "none", nil)
		for name, want := range map[string]string{
			"report.pdf":                      "report.pdf",
			"Grüße 1.pdf":                     "Grüße 1.pdf",
			"../../etc/passwd":                "_._.._etc_passwd",
			`..\..\windows\x.exe`:             "_._.._windows_x.exe",
			"a\r\nX-Evil: 1":                  "a__X-Evil_ 1",
			`a"; filename="evil.exe`:          "a__ filename=_evil.exe",
			".htaccess":                       "_htaccess",
			"con.txt":                         "_con.txt",
			"COM1":                            "_COM1",
			"x.txt. . ":                       "x.txt",
			"a\u202Efdp.exe":                  "a_fdp.exe",
			strings.Repeat("ü", 300) + ".pdf": strings.Repeat("ü", 58) + ".pdf",
			"a\x00b":                          "a_b",
			"=?utf-8?q?evil?=":                "=_utf-8_q_evil_=",
			"a'b%41.txt":                      "a'b%41.txt",
		} {
			m := note("a@example.org")
			m.Attachments = []smtpx.Attachment{{Name: name, Data: []byte("x")}}
			_, err := s.Send(t.Context(), m)
			require.NoError(t, err, "%q", name)
			mails := p.taken()
			_, parts := parse(t, mails[len(mails)-1].data)
			assert.Equal(t, want, parts[len(parts)-1].name, "%q", name)
		}
	})
}

func TestCredentialsAndTextsAreInNoLogAndNoError(t *testing.T) {
	var log, seen bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 100}))
	leaked := func(text string) bool {
		for _, secret := range []string{
			secretPassword, secretUser, secretBody, "ServerCanary",
			base64.StdEncoding.EncodeToString([]byte(secretPassword)), base64.StdEncoding.EncodeToString([]byte(secretUser)),
		} {
			if strings.Contains(text, secret) {
				return true
			}
		}
		return false
	}
	assert.True(t, leaked("x "+secretPassword), "the control: the scan finds what is there")
	for _, at := range []string{"", "GREETING", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "."} {
		for _, how := range []string{"drop", "450 4.1.1 ", "550 5.1.1 ", "299 ", "nonsense "} {
			synctest.Test(t, func(t *testing.T) {
				server, client := pki(t)
				p := &peer{tls: server, auth: plain}
				words := how + secretUser + " " + secretPassword + " " + secretBody + " " + serverWords + "\r\n"
				switch {
				case at == "":
				case how == "drop":
					p.drop = is(at)
				case at == "GREETING":
					p.greeting = words
				default:
					p.reply = say(at, words)
				}
				s := p.inMemory(t, smtpx.EncryptionTLS, client)
				s.Auth, s.Logger = credentials, logger
				s.Observe = func(e smtpx.Event) { fmt.Fprintf(&seen, "%v %+v %s\n", e.String(), e.Err, e.Reply) }
				m := note(secretUser + "@example.org")
				m.Headers = map[string]string{"X-Secret": secretBody}
				m.Attachments = []smtpx.Attachment{{Name: secretBody, Data: []byte(secretBody)}}
				result, err := s.Send(t.Context(), m)
				fmt.Fprintf(&seen, "%v %+v %#v\n", err, err, result.Recipients)
				fmt.Fprintf(&seen, "%v %+v %#v %v %+v %#v\n", m, m, *m, s.Auth, s.Auth, &s.Auth)
				fmt.Fprintf(&seen, "%+v\n", result)
				logger.Error("x", "err", err, "result", result.Recipients, "message", m, "auth", s.Auth)
			})
		}
	}
	assert.NotEmpty(t, log.String())
	assert.Contains(t, log.String(), "550 5.1.1")
	for line := range strings.SplitSeq(log.String()+seen.String(), "\n") {
		if leaked(line) {
			t.Fatalf("leaked: %.300q", line)
		}
	}
}

func TestTemplatesThatDoNotResolveAreErrorsAndValuesAreNotExpandedAgain(t *testing.T) {
	vars := map[string]string{
		"A": "${B} $${x}", "B": secretBody, "mail": "ops@example.org", "html": "<script>&'\"", "evil": "x\r\nBcc: evil@example.com",
		"two": "a@example.org, evil@example.com", "SMTP_PASSWORD": "p$${w",
		"set": "US-ASCII", "high": "high",
	}
	for in, want := range map[string]string{
		"": "", "plain": "plain", "${A}": "${B} $${x}", "<${B}>": "<" + secretBody + ">", "$${A}": "${A}", "5$ ${B}$": "5$ " + secretBody + "$",
		"${SMTP_PASSWORD}": "p$${w", "}": "}", "$": "$",
	} {
		got, err := smtpx.Expand(in, vars)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for in, want := range map[string]string{
		"a ${NOT_SET} b": "${NOT_SET} has no value", "${B": "without its }", "${}": "has no value", "x ${" + secretBody + " y}": "${…} has no value",
	} {
		_, err := smtpx.Expand(in, vars)
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), secretBody)
	}
	m := &smtpx.Message{
		From: "${mail}", To: []string{"${mail}"}, Cc: []string{"${mail}"}, Bcc: []string{"${mail}"}, ReplyTo: []string{"${mail}"}, EnvelopeFrom: "${mail}",
		Subject: "${A}", Text: "${A}", HTML: "<p>${html}</p>", Headers: map[string]string{"X-A": "${A}"}, ID: "${B}@x",
		Charset: "${set}", Importance: "${high}", DSN: smtpx.DSN{ID: "${B}"},
		Attachments: []smtpx.Attachment{{Name: "${B}.txt", Data: []byte("${B}")}},
	}
	got, err := m.Expand(vars)
	require.NoError(t, err)
	assert.Equal(t, &smtpx.Message{
		From: "ops@example.org", To: []string{"ops@example.org"}, Cc: []string{"ops@example.org"}, Bcc: []string{"ops@example.org"},
		ReplyTo: []string{"ops@example.org"}, EnvelopeFrom: "ops@example.org",
		Subject: "${B} $${x}", Text: "${B} $${x}", HTML: "<p>&lt;script&gt;&amp;&#39;&#34;</p>",
		Headers: map[string]string{"X-A": "${B} $${x}"}, ID: secretBody + "@x",
		Charset: "US-ASCII", Importance: smtpx.ImportanceHigh, DSN: smtpx.DSN{ID: secretBody},
		Attachments: []smtpx.Attachment{{Name: secretBody + ".txt", Data: []byte("${B}")}},
	}, got)
	assert.Equal(t, "${mail}", m.To[0], "the template is not changed")
	assert.Equal(t, "${A}", m.Headers["X-A"])
	for _, change := range []func(*smtpx.Message){
		func(m *smtpx.Message) { m.To = []string{"${none}"} }, func(m *smtpx.Message) { m.HTML = "${none}" },
		func(m *smtpx.Message) { m.Headers = map[string]string{"X": "${none}"} },
		func(m *smtpx.Message) { m.Attachments = []smtpx.Attachment{{Path: "${none}"}} },
	} {
		bad := *m
		change(&bad)
		_, err := bad.Expand(vars)
		assert.ErrorContains(t, err, "${none} has no value")
	}
	// A value cannot do what the template's author did not mean.
	for _, name := range []string{"evil", "two"} {
		m := &smtpx.Message{From: "a@example.org", To: []string{"${" + name + "}"}}
		got, err := m.Expand(vars)
		require.NoError(t, err)
		_, err = (&smtpx.Sender{Host: "x.invalid", Encryption: "tls"}).Send(t.Context(), got)
		assert.ErrorContains(t, err, "Message.To[0]")
	}
}

func TestRotatedFilesAreUsedForTheNextMessage(t *testing.T) {
	dir := t.TempDir()
	first, second := testpki.NewCA(t, "First CA"), testpki.NewCA(t, "Second CA")
	server := &tls.Config{Certificates: []tls.Certificate{first.Server("mail.example.org").TLS()}, ClientAuth: tls.RequireAnyClientCert}
	p := &peer{tls: &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return server, nil }}}
	ln := memnet.Listen()
	p.start(t, ln)
	files := first.Client("one").Write(dir, "client")
	trust := first.Write(dir, "ca.crt")
	var closed []smtpx.Reason
	s := &smtpx.Sender{
		Host: "mail.example.org", Encryption: smtpx.EncryptionTLS, NetDialer: ln,
		TLS: &tlsprops.TlsProperties{
			Enabled: true, TrustStorePath: trust, KeyStorePath: files.Key, CertStorePath: files.Cert, ReloadInterval: time.Nanosecond,
		},
		Observe: func(e smtpx.Event) {
			if e.Kind == smtpx.EventClosed {
				closed = append(closed, e.Reason)
			}
		},
	}
	defer s.Close()
	for range 2 {
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
	}
	require.Equal(t, 1, p.connections())
	// The server's authority changes, and with it the files here.
	server = &tls.Config{Certificates: []tls.Certificate{second.Server("mail.example.org").TLS()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: second.Pool()}
	second.Client("two").Write(dir, "client")
	second.Write(dir, "ca.crt")
	_, err := s.Send(t.Context(), note("a@example.org"))
	require.NoError(t, err)
	assert.Equal(t, 2, p.connections())
	assert.Equal(t, []smtpx.Reason{smtpx.ReasonRotated}, closed)
	// Half-written files: the set before goes on.
	require.NoError(t, os.WriteFile(files.Cert, []byte("-----BEGIN"), 0o600))
	_, err = s.Send(t.Context(), note("a@example.org"))
	require.NoError(t, err)
	assert.Equal(t, 2, p.connections())
}

func TestTLSFilesThatCannotBeUsedAreNamed(t *testing.T) {
	s := &smtpx.Sender{
		Host: "mail.example.org", Encryption: smtpx.EncryptionSSL, NetDialer: memnet.Listen(),
		TLS: &tlsprops.TlsProperties{Enabled: true, TrustStorePath: "/does/not/exist/ca.crt"},
	}
	_, err := s.Send(t.Context(), note("a@example.org"))
	field, ok := errors.AsType[*tlsprops.FieldError](err)
	require.True(t, ok)
	assert.Equal(t, "trustStorePath", field.Field)
	assert.False(t, failure(t, err).Retryable())
}

func TestPasswordsSurviveNeitherPrintingNorLogging(t *testing.T) {
	for _, text := range []string{
		fmt.Sprint(credentials), fmt.Sprintf("%#v", credentials), fmt.Sprintf("%+v", struct{ A smtpx.Auth }{credentials}), fmt.Sprintf("%d", credentials),
	} {
		assert.NotContains(t, text, secretPassword)
		assert.NotContains(t, text, secretUser)
	}
	var m smtpx.Mechanism
	assert.NoError(t, json.Unmarshal([]byte(`"SCRAM-SHA-256"`), &m))
	assert.Error(t, json.Unmarshal([]byte(`"NTLM"`), &m))
}

func TestTheSourceOfTokensIsAskedForEachConnectionAndNotQuoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pki(t)
		var got []string
		p := &peer{tls: server, ext: []string{"STARTTLS", "AUTH XOAUTH2 PLAIN"}, auth: func(mechanism, initial string, ask func(string) (string, bool)) bool {
			text, _ := base64.StdEncoding.DecodeString(initial)
			got = append(got, mechanism+" "+string(text))
			if strings.Contains(string(text), "stale") {
				ask(base64.StdEncoding.EncodeToString([]byte(`{"status":"401"}`)))
				return false
			}
			return true
		}}
		s := p.inMemory(t, smtpx.EncryptionTLS, client)
		token := "token1"
		var fails error
		s.Auth = smtpx.Auth{Username: secretUser, Token: func(context.Context) (string, error) { return token, fails }}
		s.MaxMessagesPerConn = 1
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
		token = "stale"
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, smtpx.ErrAuth)
		assert.Equal(t, "535 5.7.8", failure(t, err).Code())
		assert.Equal(t, []string{
			"XOAUTH2 user=" + secretUser + "\x01auth=Bearer token1\x01\x01", "XOAUTH2 user=" + secretUser + "\x01auth=Bearer stale\x01\x01",
		}, got)
		fails = fmt.Errorf("response: %s: %w", secretPassword, io.ErrUnexpectedEOF)
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		assert.True(t, failure(t, err).Retryable())
	})
}
