package smtpx_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/smtpx"
)

func TestAConnectionThatEndsAtAnyCommandLeavesTheMessageUnsent(t *testing.T) {
	for _, at := range []string{"GREETING", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT TO:<a@", "RCPT TO:<b@", "DATA"} {
		for _, pipelining := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				server, client := pki(t)
				p := &peer{tls: server, auth: plain, drop: is(at), ext: []string{"STARTTLS", "AUTH PLAIN"}}
				if pipelining {
					p.ext = append(p.ext, "PIPELINING")
				}
				p.firstOnly()
				s := p.inMemory(t, smtpx.EncryptionTLS, client)
				s.Auth = credentials
				result, err := s.Send(t.Context(), note("a@example.org", "b@example.org"))
				failed := failure(t, err)
				assert.Equal(t, smtpx.NotSent, failed.Outcome, at)
				assert.True(t, failed.Retryable(), at)
				assert.False(t, failed.MaybeDelivered(), at)
				assert.Empty(t, failed.Code())
				assert.Len(t, result.Remaining(), 2, at)
				assert.Empty(t, p.taken())

				// The control: the second connection does not end.
				_, err = s.Send(t.Context(), note("a@example.org", "b@example.org"))
				require.NoError(t, err, at)
			})
		}
	}
}

func TestAConnectionThatDiesAfterTheFinalDotLeavesTheOutcomeUnknown(t *testing.T) {
	for name, change := range map[string]func(*peer){
		"closed":           func(p *peer) { p.drop = is(".") },
		"no reply":         func(p *peer) { p.reply = say(".", "what?\r\n") },
		"a reply of 3xx":   func(p *peer) { p.reply = say(".", "354 more\r\n") },
		"half a reply":     func(p *peer) { p.reply = say(".", "250 2.0") },
		"an endless reply": func(p *peer) { p.reply = say(".", strings.Repeat("250-x\r\n", 1000)) },
		"silence": func(p *peer) {
			p.pause = func(l string) time.Duration { return map[string]time.Duration{".": time.Hour}[l] }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &peer{}
				change(p)
				p.firstOnly()
				s := p.inMemory(t, "none", nil)
				s.Timeouts.Final = time.Minute
				result, err := s.Send(t.Context(), note("a@example.org", "b@example.org"))
				failed := failure(t, err)
				assert.Equal(t, smtpx.Unknown, failed.Outcome)
				assert.True(t, failed.MaybeDelivered())
				assert.True(t, failed.Retryable())
				for _, r := range result.Recipients {
					assert.Equal(t, smtpx.Unknown, r.Outcome)
				}
				_, err = s.Send(t.Context(), note("a@example.org"))
				require.NoError(t, err)
				assert.Equal(t, 2, p.connections(), "the old connection is not used again")
			})
		})
	}
}

func TestAConnectionThatEndsAtAnyByteOfTheMessageIsNotTakenForSuccess(t *testing.T) {
	var length int
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		_, err := p.inMemory(t, "none", nil).Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
		length = len(p.taken()[0].data) + len(".\r\n")
	})
	outcomes := map[smtpx.Outcome]int{}
	for takes := 1; takes <= length; takes++ {
		synctest.Test(t, func(t *testing.T) {
			p := &peer{takes: takes}
			s := p.inMemory(t, "none", nil)
			_, err := s.Send(t.Context(), note("a@example.org"))
			failed := failure(t, err)
			outcomes[failed.Outcome]++
			if failed.Outcome == smtpx.NotSent {
				assert.Zero(t, p.whole)
			} else {
				assert.Equal(t, smtpx.Unknown, failed.Outcome, "after %d bytes", takes)
			}
			assert.True(t, failed.Retryable())
		})
	}
	assert.NotZero(t, outcomes[smtpx.Unknown])
}

func TestAMessageThatIsCutOffBeforeItsEndIsCertainNotToBeTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{takes: 100, ext: []string{"PIPELINING"}}
		s := p.inMemory(t, "none", nil)
		m := note("a@example.org")
		m.Text = strings.Repeat("a line of some length, many times over\r\n", 100_000)
		_, err := s.Send(t.Context(), m)
		assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
		assert.False(t, failure(t, err).MaybeDelivered())
	})
}

func TestAServerThatHasHadEnoughOfAMessageIsHeard(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(time.Minute))
		lines := bufio.NewReader(nc)
		io.WriteString(nc, "220 hi\r\n")
		for _, answer := range []string{"250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"} {
			lines.ReadString('\n')
			io.WriteString(nc, answer)
		}
		lines.ReadString('\n')
		io.WriteString(nc, "552 5.3.4 "+serverWords+"\r\n")
	}()
	s := &smtpx.Sender{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Encryption: "none"}
	defer s.Close()
	m := note("a@example.org")
	m.Text = strings.Repeat("a line of some length, many times over\r\n", 150_000)
	_, err = s.Send(t.Context(), m)
	failed := failure(t, err)
	assert.Equal(t, "552 5.3.4", failed.Code())
	assert.Equal(t, smtpx.Rejected, failed.Outcome)
	assert.False(t, failed.Retryable())
	<-done
}

func TestEveryStepHasItsTime(t *testing.T) {
	for at, tt := range map[string]struct {
		want    time.Duration
		outcome smtpx.Outcome
	}{
		"GREETING": {5 * time.Minute, smtpx.NotSent}, "EHLO client.example.org": {5 * time.Minute, smtpx.NotSent},
		"MAIL FROM:<carewire@example.org>": {5 * time.Minute, smtpx.NotSent}, "RCPT TO:<a@example.org>": {5 * time.Minute, smtpx.NotSent},
		"DATA": {2 * time.Minute, smtpx.NotSent}, ".": {10 * time.Minute, smtpx.Unknown},
	} {
		for _, own := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p := &peer{ext: []string{"HELP"}, pause: func(line string) time.Duration {
					if line == at {
						return 20 * time.Minute
					}
					return 0
				}}
				s := p.inMemory(t, "none", nil)
				want := tt.want
				if own {
					s.Timeouts = smtpx.Timeouts{Greeting: time.Second, Command: time.Second, Data: time.Second, Final: time.Second}
					want = time.Second
				}
				began := time.Now()
				_, err := s.Send(t.Context(), note("a@example.org"))
				assert.Equal(t, want, time.Since(began), at)
				failed := failure(t, err)
				assert.Equal(t, tt.outcome, failed.Outcome)
				assert.True(t, failed.Retryable())
				var timeout net.Error
				require.ErrorAs(t, err, &timeout)
				assert.True(t, timeout.Timeout())
			})
		}
	}
	synctest.Test(t, func(t *testing.T) { // TLS
		ln := memnet.Listen()
		defer ln.Close()
		_, client := pki(t)
		s := &smtpx.Sender{Host: "mail.example.org", Encryption: "ssl", TLSConfig: client, NetDialer: ln}
		began := time.Now()
		_, err := s.Send(t.Context(), note("a@example.org"))
		assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
		assert.True(t, failure(t, err).Retryable())
		assert.Equal(t, 30*time.Second, time.Since(began))
	})
}

func TestTheEndOfTheContextEndsSend(t *testing.T) {
	for at, outcome := range map[string]smtpx.Outcome{
		"GREETING": smtpx.NotSent, "EHLO client.example.org": smtpx.NotSent, "DATA": smtpx.NotSent, ".": smtpx.Unknown,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &peer{pause: func(line string) time.Duration {
				if line == at {
					return time.Minute
				}
				return 0
			}}
			s := p.inMemory(t, "none", nil)
			for _, cancelled := range []bool{true, false} {
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				if cancelled {
					ctx, cancel = context.WithCancel(t.Context())
					time.AfterFunc(3*time.Second, cancel)
				}
				began := time.Now()
				_, err := s.Send(ctx, note("a@example.org"))
				assert.Equal(t, 3*time.Second, time.Since(began), at)
				require.ErrorIs(t, err, ctx.Err())
				assert.Equal(t, outcome, failure(t, err).Outcome, at)
				assert.True(t, failure(t, err).Retryable())
				cancel()
			}
		})
	}
}

func TestAServerThatIsNoneIsFoundOutSoon(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, greeting := range map[string]string{
		"HTTP": "HTTP/1.1 400 Bad Request\r\n\r\n", "long line": "220 " + long + "\r\n", "endless lines": strings.Repeat("220-x\r\n", 100_000),
		"no code": "hello\r\n", "code of another class": "120 x\r\n", "codes that differ": "220-x\r\n250 x\r\n", "short": "22\r\n",
		"NUL": "\x00\x00\x00\x00\r\n", "code without space": "220x\r\n", "354": "354 go ahead\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &peer{greeting: greeting}
				_, err := p.inMemory(t, "none", nil).Send(t.Context(), note("a@example.org"))
				require.ErrorIs(t, err, smtpx.ErrProtocol)
				failed := failure(t, err)
				assert.Equal(t, smtpx.NotSent, failed.Outcome)
				assert.NotContains(t, p.transcript(), "MAIL")
				assert.Less(t, len(err.Error()), 200)
			})
		})
	}
}

func TestAnAnswerToNoCommandIsNotTakenForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The first recipient is refused, but an answer too many says otherwise.
		p := &peer{ext: []string{"HELP"}, reply: func(line string) string {
			switch {
			case strings.HasPrefix(line, "MAIL"):
				return "250 ok\r\n250 ok\r\n"
			case strings.HasPrefix(line, "RCPT"):
				return "550 5.1.1 no\r\n"
			}
			return ""
		}}
		_, err := p.inMemory(t, "none", nil).Send(t.Context(), note("a@example.org", "b@example.org"))
		require.ErrorIs(t, err, smtpx.ErrProtocol)
		assert.NotContains(t, p.transcript(), "DATA")
		assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
	})
}

func TestTheWireLooksLikeThis(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pki(t)
		p := &peer{tls: server, auth: plain}
		s := p.inMemory(t, smtpx.EncryptionTLS, client)
		s.Auth = smtpx.Auth{Username: secretUser, Password: secretPassword}
		m := note("a@example.org", "b@example.org")
		_, err := s.Send(t.Context(), m)
		require.NoError(t, err)
		_, err = s.Send(t.Context(), m)
		require.NoError(t, err)
		require.NoError(t, s.Close())
		ehlo := "S: 250-mail.example.org greets ServerCanary said no\r\n250-PIPELINING\r\n250-SIZE 10485760\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250"
		size := len(p.taken()[0].data)
		message := fmt.Sprintf(`
C: MAIL FROM:<carewire@example.org> SIZE=%d
S: 250 2.1.0 OK
C: RCPT TO:<a@example.org>
S: 250 2.1.5 OK
C: RCPT TO:<b@example.org>
S: 250 2.1.5 OK
C: DATA
S: 354 go ahead
C: (message)
S: 250 2.0.0 queued`, size)
		assert.Equal(t, strings.Join([]string{
			"S: 220 mail.example.org ESMTP", "C: EHLO client.example.org", ehlo + "-STARTTLS\r\n250 AUTH PLAIN LOGIN", "C: STARTTLS", "S: 220 2.0.0 go ahead",
			"C: EHLO client.example.org", ehlo + " AUTH PLAIN LOGIN", "C: AUTH PLAIN AHBhdGllbnRjYW5hcnkAUGFzc0NhbmFyeTc3MzE=", "S: 235 2.7.0 welcome",
		}, "\n")+message+message+"\nC: QUIT\nS: 221 2.0.0 bye", p.transcript())
		assert.Equal(t, strings.ReplaceAll(`Date: Fri, 02 Jan 2026 03:04:05 +0000
MIME-Version: 1.0
Message-ID: <1@example.org>
Subject: Result BodyCanary-Doe-4711
From: <carewire@example.org>
To: <a@example.org>, <b@example.org>
Content-Transfer-Encoding: quoted-printable
Content-Type: text/plain; charset=UTF-8

BodyCanary-Doe-4711
`, "\n", "\r\n"), p.taken()[0].data)
	})
}

func TestAConnectionThatHasGoneSilentIsReplacedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{pause: func(line string) time.Duration {
			if line == "NOOP" {
				return time.Hour
			}
			return 0
		}}
		s := p.inMemory(t, "none", nil)
		_, err := s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		began := time.Now()
		_, err = s.Send(t.Context(), note("a@example.org"))
		require.NoError(t, err)
		assert.Equal(t, 10*time.Second, time.Since(began))
		assert.Equal(t, 2, p.connections())
	})
}

func TestCloseLetsWhatIsBeingSentFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{pause: func(line string) time.Duration {
			if line == "DATA" {
				return time.Minute
			}
			return 0
		}}
		s := p.inMemory(t, "none", nil)
		done := make(chan error, 1)
		go func() {
			_, err := s.Send(t.Context(), note("a@example.org"))
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, s.Close())
		require.NoError(t, <-done)
		assert.Contains(t, p.transcript(), "C: QUIT")
	})
}
