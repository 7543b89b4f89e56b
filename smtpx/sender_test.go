package smtpx_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/smtpx"
	"github.com/carewire/carewire/tlsprops"
)

func TestTheWordsOfEncryptionAreThoseOfTheGuideAndNoOthers(t *testing.T) {
	for word, port := range map[smtpx.SmtpEncryption]int{"none": 25, "tls": 587, "ssl": 465} {
		assert.Equal(t, port, word.DefaultPort())
		data, err := json.Marshal(map[string]smtpx.SmtpEncryption{"encryption": word})
		require.NoError(t, err)
		var back map[string]smtpx.SmtpEncryption
		require.NoError(t, json.Unmarshal(data, &back))
		assert.Equal(t, word, back["encryption"])
	}
	for _, word := range []string{"", "TLS", "starttls", "smtps", "true", "none "} {
		var e smtpx.SmtpEncryption
		assert.ErrorContains(t, json.Unmarshal([]byte(`"`+word+`"`), &e), "use none", "%q", word)
		assert.Zero(t, smtpx.SmtpEncryption(word).DefaultPort())
		_, err := json.Marshal(smtpx.SmtpEncryption(word))
		assert.Error(t, err, "%q", word)
	}
}

func TestSettingsThatContradictEachOtherAreRefused(t *testing.T) {
	good := func() *smtpx.Sender { return &smtpx.Sender{Host: "mail.example.org", Encryption: smtpx.EncryptionTLS} }
	require.NoError(t, good().Validate())
	for want, change := range map[string]func(*smtpx.Sender){
		"Host is empty":           func(s *smtpx.Sender) { s.Host = "" },
		"use none":                func(s *smtpx.Sender) { s.Encryption = "" },
		"encryption \"starttls\"": func(s *smtpx.Sender) { s.Encryption = "starttls" },
		"control characters":      func(s *smtpx.Sender) { s.Host = "mail\r\nMAIL" },
		"Port must be":            func(s *smtpx.Sender) { s.Port = 65536 },
		"LocalName must be":       func(s *smtpx.Sender) { s.LocalName = "me\r\nMAIL" },
		"MaxConns is negative":    func(s *smtpx.Sender) { s.MaxConns = -1 },
		"MaxMessageBytes is neg":  func(s *smtpx.Sender) { s.MaxMessageBytes = -1 },
		"TLS has enabled false":   func(s *smtpx.Sender) { s.TLS = &tlsprops.TlsProperties{} },
		"but TLS is enabled":      func(s *smtpx.Sender) { s.Encryption, s.TLS = "none", &tlsprops.TlsProperties{Enabled: true} },
		"trustStorePath":          func(s *smtpx.Sender) { s.Encryption, s.TLS = "none", &tlsprops.TlsProperties{TrustStorePath: "ca.crt"} },
		"no Username":             func(s *smtpx.Sender) { s.Auth.Password = "x" },
		"no Password":             func(s *smtpx.Sender) { s.Auth.Username = "x" },
		"no credentials without":  func(s *smtpx.Sender) { s.Encryption, s.Auth = "none", smtpx.Auth{Username: "u", Password: "p"} },
		"needs TLS": func(s *smtpx.Sender) {
			s.Encryption, s.Auth = "none", smtpx.Auth{Username: "u", Password: "p", Mechanism: smtpx.ScramSHA256Plus}
		},
		"unknown mechanism":       func(s *smtpx.Sender) { s.Auth = smtpx.Auth{Username: "u", Password: "p", Mechanism: "NTLM"} },
		"Token go together":       func(s *smtpx.Sender) { s.Auth = smtpx.Auth{Username: "u", Password: "p", Mechanism: smtpx.XOAuth2} },
		"control characters in U": func(s *smtpx.Sender) { s.Auth = smtpx.Auth{Username: "u\x00v", Password: "p"} },
	} {
		s := good()
		change(s)
		_, err := s.Send(t.Context(), note("a@example.org"))
		failed := failure(t, err)
		assert.ErrorContains(t, err, want)
		assert.Equal(t, smtpx.NotSent, failed.Outcome)
		assert.False(t, failed.Retryable())
	}
	_, err := new(smtpx.Sender).Send(t.Context(), note("a@example.org"))
	assert.Error(t, err)
}

func TestAMessageGoesOverEveryKindOfEncryption(t *testing.T) {
	for _, encryption := range []smtpx.SmtpEncryption{smtpx.EncryptionNone, smtpx.EncryptionTLS, smtpx.EncryptionSSL} {
		t.Run(string(encryption), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := pki(t)
				p := &peer{tls: server, implicit: encryption == smtpx.EncryptionSSL}
				if encryption == smtpx.EncryptionNone {
					client = nil
				}
				s := p.inMemory(t, encryption, client)
				result, err := s.Send(t.Context(), note("a@example.org", "b@example.net"))
				require.NoError(t, err)
				mails := p.taken()
				require.Len(t, mails, 1)
				assert.Equal(t, encryption != smtpx.EncryptionNone, mails[0].secured)
				assert.Equal(t, []string{"<a@example.org>", "<b@example.net>"}, mails[0].to)
				assert.Equal(t, "1@example.org", result.MessageID)
				assert.EqualValues(t, len(mails[0].data), result.Bytes)
				for _, r := range result.Recipients {
					assert.Equal(t, smtpx.Accepted, r.Outcome)
				}
				assert.Empty(t, result.Remaining())
			})
		})
	}
}

func TestEachRecipientHasAnOutcomeOfItsOwn(t *testing.T) {
	for _, pipelining := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := &peer{ext: []string{"ENHANCEDSTATUSCODES"}}
			if pipelining {
				p.ext = append(p.ext, "PIPELINING")
			}
			p.reply = func(line string) string {
				switch {
				case strings.HasPrefix(line, "RCPT TO:<gone@"):
					return "550 5.1.1 <gone@example.org> " + serverWords + "\r\n"
				case strings.HasPrefix(line, "RCPT TO:<full@"):
					return "452-4.2.2 " + serverWords + "\r\n452 4.2.2 later\r\n"
				}
				return ""
			}
			s := p.inMemory(t, "none", nil)
			m := note("a@example.org", "gone@example.org")
			m.Cc, m.Bcc = []string{"Full Box <full@example.net>"}, []string{"b@example.org", "a@example.org"}
			result, err := s.Send(t.Context(), m)
			failed := failure(t, err)
			assert.Equal(t, smtpx.Partial, failed.Outcome)
			assert.Equal(t, "550 5.1.1", failed.Code())
			assert.True(t, failed.Retryable(), "for one of them")
			assert.True(t, failed.MaybeDelivered())
			assert.EqualError(t, err, "smtpx: refused for 2 of 4 recipients: 550 5.1.1 to RCPT")
			var got []string
			for _, r := range result.Recipients {
				got = append(got, r.Address+" "+r.Outcome.String()+" "+r.Reply.String())
			}
			assert.Equal(t, []string{
				"a@example.org accepted ", "gone@example.org rejected 550 5.1.1",
				"full@example.net rejected 452 4.2.2", "b@example.org accepted ",
			}, got)
			assert.Equal(t, []string{"full@example.net"}, result.Remaining())
			require.Len(t, p.taken(), 1)
			assert.Equal(t, []string{"<a@example.org>", "<b@example.org>"}, p.taken()[0].to)
			assert.NotContains(t, p.taken()[0].data, "b@example.org", "nobody sees Bcc")

			// Another try goes to the one that is left, over the same connection.
			p.reply = nil
			m.Recipients = result.Remaining()
			_, err = s.Send(t.Context(), m)
			require.NoError(t, err)
			assert.Equal(t, []string{"<full@example.net>"}, p.taken()[1].to)
			assert.Equal(t, 1, p.connections())
			assert.Equal(t, p.taken()[0].data, p.taken()[1].data)
		})
	}
}

func TestARefusalSaysWhetherAnotherTryCanHelp(t *testing.T) {
	for _, at := range []string{"GREETING", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "."} {
		for _, answer := range []string{"450 4.3.2 x", "550 5.7.1 x", "421 4.3.2 x", "554 x", "451 5.1.1 x"} {
			synctest.Test(t, func(t *testing.T) {
				p := &peer{reply: say(at, answer+serverWords+"\r\n")}
				encryption := smtpx.EncryptionNone
				var client *tls.Config
				if at == "STARTTLS" || at == "AUTH" {
					encryption, p.auth = smtpx.EncryptionTLS, plain
					p.tls, client = pki(t)
				}
				if at == "GREETING" {
					p.greeting = answer + serverWords + "\r\n"
				}
				s := p.inMemory(t, encryption, client)
				if encryption == smtpx.EncryptionTLS {
					s.Auth = credentials
				}
				if at == "EHLO" && answer[0] == '5' { // HELO is tried, and does
					_, err := s.Send(t.Context(), note("a@example.org"))
					require.NoError(t, err)
					return
				}
				result, err := s.Send(t.Context(), note("a@example.org"))
				failed := failure(t, err)
				assert.Equal(t, smtpx.Rejected, failed.Outcome, "%s %s", at, answer)
				assert.Equal(t, answer[0] == '4', failed.Retryable(), "%s %s", at, answer)
				assert.False(t, failed.MaybeDelivered())
				assert.Equal(t, answer[:3], failed.Code()[:3])
				assert.Equal(t, strings.NewReplacer("GREETING", "greeting", ".", "DATA").Replace(at), failed.Command)
				if answer[4] == answer[0] {
					assert.Equal(t, answer[:9], failed.Code())
				} else {
					assert.Len(t, failed.Code(), 3, "an enhanced code of another class is none")
				}
				require.Len(t, result.Recipients, 1)
				assert.Equal(t, smtpx.Rejected, result.Recipients[0].Outcome)
				assert.Equal(t, answer[0] == '4', len(result.Remaining()) == 1)
				assert.Empty(t, p.taken())
			})
		}
	}
}

func TestAConnectionIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		s := p.inMemory(t, "none", nil)
		s.MaxMessagesPerConn, s.IdleTimeout = 3, 20*time.Second
		var events []string
		var mu sync.Mutex
		s.Observe = func(e smtpx.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind != smtpx.EventMessage {
				events = append(events, strings.TrimSpace(string(e.Kind)+" "+string(e.Reason)))
			}
		}
		send := func() {
			t.Helper()
			_, err := s.Send(t.Context(), note("a@example.org"))
			require.NoError(t, err)
		}
		send()
		send()
		time.Sleep(6 * time.Second)
		assert.NotContains(t, p.transcript(), "NOOP")
		send()
		assert.Contains(t, p.transcript(), "C: NOOP", "after a while the server is asked first")
		assert.Equal(t, 1, p.connections())
		send() // the first has carried three
		assert.Equal(t, 2, p.connections())
		time.Sleep(time.Minute) // the second is idle too long
		synctest.Wait()
		send()
		assert.Equal(t, 3, p.connections())
		require.NoError(t, s.Close())
		assert.Equal(t, 3, strings.Count(p.transcript(), "C: QUIT"))
		assert.Equal(t, []string{"opened", "closed messages", "opened", "closed idle", "opened", "closed closed"}, events)
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, smtpx.ErrClosed)
		assert.False(t, failure(t, err).Retryable())
		require.NoError(t, s.Close())
	})
}

func TestARefusedTransactionIsResetBeforeTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{reply: say("RCPT TO:<gone@", "550 5.1.1 no\r\n")}
		s := p.inMemory(t, "none", nil)
		_, err := s.Send(t.Context(), note("gone@example.org"))
		assert.Equal(t, smtpx.Rejected, failure(t, err).Outcome)
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
		assert.Equal(t, 1, p.connections())
		assert.Contains(t, p.transcript(), "C: RSET")
		assert.Equal(t, []string{"<a@example.org>"}, p.taken()[0].to)
	})
}

func TestAConnectionThatTheServerClosedMeanwhileIsReplaced(t *testing.T) {
	for name, change := range map[string]func(*peer, *bool){
		"closed at MAIL": func(p *peer, now *bool) {
			p.drop = func(line string) bool { return *now && strings.HasPrefix(line, "MAIL") && p.connections() == 1 }
		},
		"421 at MAIL": func(p *peer, now *bool) {
			p.reply = func(line string) string {
				if *now && strings.HasPrefix(line, "MAIL") && p.connections() == 1 {
					return "421 4.4.2 timeout\r\n"
				}
				return ""
			}
		},
		"closed at RCPT": func(p *peer, now *bool) {
			p.drop = func(line string) bool { return *now && strings.HasPrefix(line, "RCPT") && p.connections() == 1 }
		},
		"closed at DATA": func(p *peer, now *bool) {
			p.drop = func(line string) bool { return *now && strings.HasPrefix(line, "DATA") && p.connections() == 1 }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, now := &peer{}, false
				change(p, &now)
				s := p.inMemory(t, "none", nil)
				_, err := s.Send(t.Context(), note("a@example.org"))
				require.NoError(t, err)
				synctest.Wait()
				now = true
				_, err = s.Send(t.Context(), note("b@example.org"))
				require.NoError(t, err)
				assert.Equal(t, 2, p.connections())
				assert.Len(t, p.taken(), 2)
			})
		})
	}
}

func TestNoMoreConnectionsThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{pause: func(line string) time.Duration {
			if line == "DATA" {
				return time.Second
			}
			return 0
		}}
		s := p.inMemory(t, "none", nil)
		s.MaxConns = 2
		began := time.Now()
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				_, err := s.Send(t.Context(), note("a@example.org"))
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		assert.Equal(t, 3*time.Second, time.Since(began))
		assert.Equal(t, 2, p.connections())

		// Who waits for a place can be called off.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		for range 2 {
			wg.Go(func() { s.Send(t.Context(), note("a@example.org")) })
		}
		synctest.Wait()
		_, err := s.Send(ctx, note("a@example.org"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		failed := failure(t, err)
		assert.Equal(t, smtpx.NotSent, failed.Outcome)
		assert.True(t, failed.Retryable())
		wg.Wait()
	})
}

func TestEventsTellWhatHappenedAndNotToWhom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{reply: say("RCPT TO:<"+secretUser, "550 5.1.1 "+serverWords+"\r\n")}
		s := p.inMemory(t, "none", nil)
		var events []smtpx.Event
		s.Observe = func(e smtpx.Event) { events = append(events, e) }
		s.Send(t.Context(), note("a@example.org", secretUser+"@example.org"))
		require.Len(t, events, 2)
		m := events[1]
		assert.Equal(t, smtpx.EventMessage, m.Kind)
		assert.Equal(t, smtpx.Partial, m.Outcome)
		assert.Equal(t, [2]int{2, 1}, [2]int{m.Recipients, m.Accepted})
		assert.Equal(t, "550 5.1.1", m.Reply.String())
		for _, e := range events {
			assert.NotContains(t, e.String(), secretUser)
			assert.NotContains(t, e.String(), "ServerCanary")
		}
	})
}

func TestAMessageThatIsTooLargeIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{ext: []string{"SIZE 1000", "PIPELINING"}}
		s := p.inMemory(t, "none", nil)
		m := note("a@example.org")
		m.Text = strings.Repeat("a line of some length\r\n", 100)
		_, err := s.Send(t.Context(), m)
		require.ErrorIs(t, err, smtpx.ErrTooLarge)
		assert.False(t, failure(t, err).Retryable())
		assert.NotContains(t, p.transcript(), "MAIL")
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
		assert.Equal(t, 1, p.connections())
		assert.Contains(t, p.transcript(), " SIZE=")

		s.MaxMessageBytes = 100
		_, err = s.Send(t.Context(), m)
		require.ErrorIs(t, err, smtpx.ErrTooLarge)
	})
}

func TestInternationalAddressesNeedAServerThatTakesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, change := range []func(*smtpx.Message){
			func(m *smtpx.Message) { m.To = []string{"jörg@example.org"} },
			func(m *smtpx.Message) { m.From = "Jörg <jörg@example.org>" },
			func(m *smtpx.Message) { m.ReplyTo = []string{"a@bücher.example"} },
			func(m *smtpx.Message) { m.EnvelopeFrom = "jörg@example.org" },
		} {
			old, recent := &peer{}, &peer{ext: []string{"SMTPUTF8", "8BITMIME"}}
			m := note("a@example.org")
			change(m)
			s := old.inMemory(t, "none", nil)
			_, err := s.Send(t.Context(), m)
			require.ErrorIs(t, err, smtpx.ErrNoSMTPUTF8)
			assert.False(t, failure(t, err).Retryable())
			assert.NotContains(t, old.transcript(), "MAIL")
			_, err = recent.inMemory(t, "none", nil).Send(t.Context(), m)
			require.NoError(t, err)
			assert.Contains(t, recent.transcript(), " SMTPUTF8 BODY=8BITMIME")
			s.Close()
		}
		// Names and texts are encoded, and need nothing of the server.
		p := &peer{ext: []string{"HELP"}}
		m := note("Jörg <a@example.org>")
		m.Subject, m.Text = "Grüße", "Grüße"
		_, err := p.inMemory(t, "none", nil).Send(t.Context(), m)
		require.NoError(t, err)
		assert.Contains(t, p.transcript(), "C: MAIL FROM:<carewire@example.org>\n")
	})
}

func TestNotificationsAreAskedForWhereTheServerKnowsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := note("a@example.org")
		m.DSN = smtpx.DSN{Notify: []smtpx.DSNNotify{smtpx.NotifySuccess, smtpx.NotifyFailure}, ID: "A+1=2"}
		m.EnvelopeFrom = "bounces@example.org"
		p := &peer{ext: []string{"DSN"}}
		result, err := p.inMemory(t, "none", nil).Send(t.Context(), m)
		require.NoError(t, err)
		assert.True(t, result.DSN)
		assert.Contains(t, p.transcript(), "C: MAIL FROM:<bounces@example.org> RET=HDRS ENVID=A+2B1+3D2\n")
		assert.Contains(t, p.transcript(), "C: RCPT TO:<a@example.org> NOTIFY=SUCCESS,FAILURE\n")
		plain := &peer{}
		m.EnvelopeFrom = "<>"
		result, err = plain.inMemory(t, "none", nil).Send(t.Context(), m)
		require.NoError(t, err)
		assert.False(t, result.DSN)
		assert.Contains(t, plain.transcript(), "C: MAIL FROM:<> SIZE=")
		assert.NotContains(t, plain.transcript(), "NOTIFY")
	})
}

// The interface that an engine declares.
var _ interface {
	error
	MaybeDelivered() bool
	Retryable() bool
	Code() string
} = (*smtpx.SendError)(nil)

func TestErrorsUnwrap(t *testing.T) {
	cause := errors.New("cause")
	assert.ErrorIs(t, &smtpx.SendError{Err: cause}, cause)
	assert.EqualError(t, &smtpx.SendError{Err: cause}, "smtpx: sent, but not acknowledged: cause", "the zero outcome promises nothing")
}
