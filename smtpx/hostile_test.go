package smtpx_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/smtpx"
)

func TestAnAnswerThatCameBeforeTheMessageIsNotTakenForItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{ext: []string{"PIPELINING"}, reply: say("DATA", "354 go\r\n250 2.0.0 queued\r\n")}
		_, err := p.inMemory(t, "none", nil).Send(t.Context(), note("a@example.org"))
		require.ErrorIs(t, err, smtpx.ErrProtocol)
		assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
	})
}

func TestAServerThatReadsNoMoreDoesNotHoldSendBeyondItsTime(t *testing.T) {
	for _, how := range []string{"timeout", "context"} {
		for _, encryption := range []smtpx.SmtpEncryption{smtpx.EncryptionNone, smtpx.EncryptionSSL} {
			synctest.Test(t, func(t *testing.T) {
				server, client := pki(t)
				ended := make(chan struct{})
				s, said := scripted(t, func(nc net.Conn, _ *bufio.Reader) string {
					if encryption == smtpx.EncryptionSSL {
						nc = tls.Server(nc, server)
					}
					lines := bufio.NewReader(nc)
					io.WriteString(nc, "220 hi\r\n")
					for _, answer := range []string{"250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"} {
						lines.ReadString('\n')
						io.WriteString(nc, answer)
					}
					<-ended
					return ""
				})
				if s.Encryption = encryption; encryption == smtpx.EncryptionSSL {
					s.TLSConfig = client
				}
				ctx := t.Context()
				if how == "context" {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 20*time.Second)
					defer cancel()
				} else {
					s.Timeouts.Block = 20 * time.Second
				}
				m := note("a@example.org")
				m.Attachments = []smtpx.Attachment{{Name: "a", Open: smtpx.Stream(&pattern{4 << 20})}}
				began := time.Now()
				_, err := s.Send(ctx, m)
				assert.Equal(t, 20*time.Second, time.Since(began), "%s %s", how, encryption)
				assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
				close(ended)
				<-said
			})
		}
	}
}

func TestTheEndOfTheContextEndsThePreparationOfAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		s := p.inMemory(t, "none", nil)
		s.SpoolDir = t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		m := note("a@example.org")
		m.Attachments = []smtpx.Attachment{{Name: "a", Open: smtpx.Stream(slow{})}}
		_, err := s.Send(ctx, m)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
		assert.True(t, failure(t, err).Retryable())
		assert.Zero(t, p.connections())
	})
}

// slow is a reader without end.
type slow struct{}

func (slow) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return len(p), nil
}

func TestWhatIsWrongWithThisMachineIsNotTheMessagesFault(t *testing.T) {
	p := &peer{}
	s := p.inMemory(t, "none", nil)
	s.SpoolDir = t.TempDir() + "/not there"
	m := note("a@example.org")
	m.Attachments = []smtpx.Attachment{{Name: "a", Open: smtpx.Stream(&pattern{4 << 20})}}
	_, err := s.Send(t.Context(), m)
	require.ErrorContains(t, err, "temporary file")
	assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
	assert.True(t, failure(t, err).Retryable(), "there may be room again")
}

func TestNoErrorNamesAFile(t *testing.T) {
	dir := t.TempDir() + "/" + secretBody
	s := &smtpx.Sender{Host: "x.invalid", Encryption: "tls"}
	for name, a := range map[string]smtpx.Attachment{
		"no file": {Path: dir}, "a directory": {Path: t.TempDir()},
		"a reader that says so": {Name: "a", Open: func() (io.ReadCloser, error) { return nil, &net.OpError{Op: "open", Err: errors.New("no")} }},
	} {
		m := note("a@example.org")
		m.Attachments = []smtpx.Attachment{a}
		for _, signed := range []bool{false, true} {
			if signed {
				certificate := testpki.NewCA(t, "CA").Client("c").TLS()
				m.SMIME = &certificate
			}
			_, err := s.Send(t.Context(), m)
			failure(t, err)
			assert.ErrorContains(t, err, "Message.Attachments[0]", name)
			assert.NotContains(t, err.Error(), t.TempDir()[:8], name)
		}
	}
}

func TestAnEmptyListOfNotificationsAsksForNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{ext: []string{"DSN"}}
		m := note("a@example.org")
		m.DSN.Notify = []smtpx.DSNNotify{}
		result, err := p.inMemory(t, "none", nil).Send(t.Context(), m)
		require.NoError(t, err)
		assert.False(t, result.DSN)
		assert.NotContains(t, p.transcript(), "NOTIFY")
		assert.NotContains(t, p.transcript(), "RET")
	})
}

func TestAsManyRecipientsAsThereMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peer{}
		var to []string
		for i := range 1000 {
			to = append(to, fmt.Sprintf("Nämé of %d <%s%d@example.org>", i, strings.Repeat("x", 40), i))
		}
		result, err := p.inMemory(t, "none", nil).Send(t.Context(), note(to...))
		require.NoError(t, err)
		assert.Len(t, result.Recipients, 1000)
		header, _ := parse(t, p.taken()[0].data)
		list, err := header.AddressList("To")
		require.NoError(t, err)
		assert.Len(t, list, 1000)
		_, err = p.inMemory(t, "none", nil).Send(t.Context(), note(append(to, "one@example.org")...))
		assert.False(t, failure(t, err).Retryable())
	})
}

func TestAMessageInAMessageIsAFile(t *testing.T) {
	m := note("a@example.org")
	m.Attachments = []smtpx.Attachment{{Name: "forwarded.eml", Data: []byte("Subject: x\r\n\r\nx\r\n")}}
	_, parts := arrives(t, m)
	assert.Equal(t, "application/octet-stream", parts[1].kind)
	m.Attachments[0].ContentType = "message/rfc822"
	_, err := (&smtpx.Sender{Host: "x.invalid", Encryption: "tls"}).Send(t.Context(), m)
	assert.ErrorContains(t, err, "ContentType")
}

func TestASourceOfTokensThatDoesNotAnswerHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := pki(t)
		p := &peer{tls: server, ext: []string{"STARTTLS", "AUTH XOAUTH2"}}
		s := p.inMemory(t, smtpx.EncryptionTLS, client)
		s.Auth = smtpx.Auth{Username: secretUser, Token: func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}}
		s.Timeouts.Command = time.Minute
		began := time.Now()
		_, err := s.Send(t.Context(), note("a@example.org"))
		assert.Equal(t, time.Minute, time.Since(began))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.True(t, failure(t, err).Retryable())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		_, err = s.Send(ctx, note("a@example.org"))
		assert.Equal(t, time.Second, time.Since(began))
		assert.Equal(t, smtpx.NotSent, failure(t, err).Outcome)
		assert.NotContains(t, p.transcript(), "C: AUTH")
	})
}

func TestCloseAmongSendsLosesNoneAndLeavesNoConnection(t *testing.T) {
	for range 10 {
		p := &peer{}
		s := p.inMemory(t, "none", nil)
		s.MaxConns, s.MaxMessagesPerConn = 3, 2
		var sent atomic.Int32
		var sends, closing sync.WaitGroup
		for range 8 {
			sends.Go(func() {
				for range 5 {
					_, err := s.Send(t.Context(), note("a@example.org"))
					if err == nil {
						if sent.Add(1) == 10 {
							closing.Go(func() { assert.NoError(t, s.Close()) })
						}
						continue
					}
					if !errors.Is(err, smtpx.ErrClosed) {
						t.Error(err)
					}
				}
			})
		}
		sends.Wait()
		closing.Wait()
		assert.Len(t, p.taken(), int(sent.Load()))
		// All of its connections have ended, or this waits for ever.
		p.mu.Lock()
		for _, ln := range p.lns {
			ln.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	}
}
