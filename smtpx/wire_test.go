package smtpx_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
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

// scripted serves one connection with script, and returns a Sender to it and what
// the script returned.
func scripted(t *testing.T, script func(nc net.Conn, lines *bufio.Reader) string) (*smtpx.Sender, <-chan string) {
	ln := memnet.Listen()
	said := make(chan string, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		said <- script(nc, bufio.NewReader(nc))
		nc.Close()
	}()
	s := &smtpx.Sender{Host: "mail.example.org", Encryption: "none", NetDialer: ln, LocalName: "client.example.org"}
	t.Cleanup(func() {
		s.Close()
		ln.Close()
	})
	return s, said
}

func TestCommandsAreSentAheadOfTheirAnswersWhereTheServerTakesThat(t *testing.T) {
	for _, extension := range []string{"PIPELINING", "HELP"} {
		synctest.Test(t, func(t *testing.T) {
			s, said := scripted(t, func(nc net.Conn, lines *bufio.Reader) string {
				io.WriteString(nc, "220 hi\r\n")
				lines.ReadString('\n')
				io.WriteString(nc, "250-hi\r\n250 "+extension+"\r\n")
				// What comes before anything is answered.
				lines.Peek(1)
				synctest.Wait()
				early, _ := lines.Peek(lines.Buffered())
				said := string(early)
				for range 3 { // MAIL and two RCPT
					lines.ReadString('\n')
					io.WriteString(nc, "250 ok\r\n")
				}
				synctest.Wait()
				data, _ := lines.ReadString('\n')
				said += data
				io.WriteString(nc, "354 go\r\n")
				for line := ""; line != ".\r\n"; {
					line, _ = lines.ReadString('\n')
				}
				io.WriteString(nc, "250 ok\r\n")
				return said
			})
			_, err := s.Send(t.Context(), note("a@example.org", "b@example.org"))
			require.NoError(t, err)
			want := "MAIL FROM:<carewire@example.org>\r\n"
			if extension == "PIPELINING" {
				want += "RCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
			}
			assert.Equal(t, want+"DATA\r\n", <-said)
		})
	}
}

func TestAServerThatDripsItsWordsHasNoMoreTimeThanOthers(t *testing.T) {
	for name, word := range map[string]string{"greeting": "", "answer": "EHLO"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, said := scripted(t, func(nc net.Conn, lines *bufio.Reader) string {
					if word != "" {
						io.WriteString(nc, "220 hi\r\n")
						lines.ReadString('\n')
					}
					for { // one byte in ten seconds, and never an end
						if _, err := io.WriteString(nc, "2"); err != nil {
							return ""
						}
						time.Sleep(10 * time.Second)
					}
				})
				began := time.Now()
				_, err := s.Send(t.Context(), note("a@example.org"))
				assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
				assert.True(t, failure(t, err).Retryable())
				assert.Equal(t, 5*time.Minute, time.Since(began))
				<-said
			})
		})
	}
}

func TestEveryByteIsASCIIForAServerWithout8BITMIME(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{ext: []string{"HELP"}}
		m := &smtpx.Message{
			From: "Jörg <a@example.org>", To: []string{"Björn <b@example.org>"}, ReplyTo: []string{"Zoë <r@example.org>"},
			Subject: "Grüße", Text: "Grüße", HTML: "<p>Grüße</p>", Headers: map[string]string{"X-A": "ü"},
			Attachments: []smtpx.Attachment{{Name: "Grüße.bin", Data: []byte{0x80, 0xff, 0}}},
		}
		_, err := p.inMemory(t, "none", nil).Send(t.Context(), m)
		require.NoError(t, err)
		assert.Contains(t, p.transcript(), "C: MAIL FROM:<a@example.org>\nS: ")
		assert.Less(t, bytes.IndexFunc([]byte(p.taken()[0].data), func(r rune) bool { return r > '~' }), 0)
	})
}

func TestAConnectionComesFromTheLocalAddressThatIsSet(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &peer{}
	p.start(t, ln)
	s := &smtpx.Sender{
		Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Encryption: "none",
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}},
	}
	defer s.Close()
	_, err = s.Send(t.Context(), note("a@example.org"))
	require.NoError(t, err)
	assert.Contains(t, p.transcript(), "C: EHLO [127.0.0.1]\n")

	// One that this machine does not have.
	s = &smtpx.Sender{
		Host: "127.0.0.1", Port: s.Port, Encryption: "none",
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}},
	}
	_, err = s.Send(t.Context(), note("a@example.org"))
	assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
	assert.True(t, failure(t, err).Retryable())
}

func TestTheSettingsOfTLSHold(t *testing.T) {
	ca := testpki.NewCA(t, "CA")
	trust := ca.Write(t.TempDir(), "ca.crt")
	for _, encryption := range []smtpx.SmtpEncryption{smtpx.EncryptionTLS, smtpx.EncryptionSSL} {
		for name, tt := range map[string]struct {
			props tlsprops.TlsProperties
			want  string // "": it goes
		}{
			"as they are":                    {tlsprops.TlsProperties{}, ""},
			"a version that the server has":  {tlsprops.TlsProperties{MinVersion: "TLSv1.2"}, ""},
			"one that it does not":           {tlsprops.TlsProperties{MinVersion: "TLSv1.3"}, "TLS handshake"},
			"another name":                   {tlsprops.TlsProperties{SniServerName: "other.example.org"}, ""},
			"a name that it is not":          {tlsprops.TlsProperties{SniServerName: "third.example.org"}, "third.example.org"},
			"nothing is checked, as is said": {tlsprops.TlsProperties{SniServerName: "third.example.org", RejectUnauthorized: new(false)}, ""},
		} {
			var asked string
			server := &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.Server("mail.example.org", "other.example.org").TLS()}}
			p := &peer{implicit: encryption == smtpx.EncryptionSSL, tls: server, secured: func(s *tls.ConnectionState) { asked = s.ServerName }}
			s := p.inMemory(t, encryption, nil)
			props := tt.props
			if props.Enabled = true; props.RejectUnauthorized == nil {
				props.TrustStorePath = trust
			}
			s.TLS = &props
			_, err := s.Send(t.Context(), note("a@example.org"))
			if tt.want == "" {
				require.NoError(t, err, name)
				want := props.SniServerName
				if want == "" {
					want = "mail.example.org"
				}
				assert.Equal(t, want, asked, name)
				continue
			}
			assert.ErrorContains(t, err, tt.want, name)
			assert.False(t, failure(t, err).Retryable(), name)
			assert.Empty(t, p.taken(), name)
		}
	}
}

func TestPlaintextThatComesLateAfterStartTLSIsRefusedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, client := pki(t)
		s, said := scripted(t, func(nc net.Conn, lines *bufio.Reader) string {
			io.WriteString(nc, "220 hi\r\n")
			lines.ReadString('\n')
			io.WriteString(nc, "250-hi\r\n250 STARTTLS\r\n")
			lines.ReadString('\n')
			io.WriteString(nc, "220 go\r\n")
			lines.Peek(1) // the handshake has begun
			io.WriteString(nc, "250-mail.example.org\r\n250 AUTH PLAIN\r\n")
			rest, _ := io.ReadAll(lines)
			return string(rest)
		})
		s.Encryption, s.TLSConfig, s.Auth = smtpx.EncryptionTLS, client, credentials
		_, err := s.Send(t.Context(), note("a@example.org"))
		assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
		assert.NotContains(t, <-said, "AUTH")
	})
}
