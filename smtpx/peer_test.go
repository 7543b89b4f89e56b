package smtpx_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/smtpx"
)

// The words that must show up nowhere: in no error, event or log line.
const (
	secretPassword = "PassCanary7731"
	secretBody     = "BodyCanary-Doe-4711"
	secretUser     = "patientcanary"
	serverWords    = "ServerCanary said no"
)

// mailIn is what a peer has taken.
type mailIn struct {
	from, data string
	to         []string
	conn       int // the number of the connection, from 1
	secured    bool
}

// peer is a server that keeps to SMTP where a test does not say otherwise.
type peer struct {
	// static after start
	ext      []string                 // offered in EHLO; nil: PIPELINING, SIZE 10485760, 8BITMIME, STARTTLS where it fits
	tls      *tls.Config              // for STARTTLS, or implicit
	implicit bool                     // TLS from the start
	reply    func(line string) string // an answer in place of the usual one, as it goes over the wire; "" for the usual one
	drop     func(line string) bool   // close the connection instead of answering
	auth     func(mechanism, initial string, ask func(challenge string) (string, bool)) bool
	takes    int // bytes of the message, after which the connection is closed; 0: all
	pause    func(line string) time.Duration
	greeting string
	secured  func(*tls.ConnectionState) // told of each TLS handshake

	mu sync.Mutex
	// guarded by mu
	mails  []mailIn
	lines  []string // the transcript of commands and codes
	conns  int
	whole  int // messages whose end was read
	active []net.Conn
	lns    []net.Listener
	wg     sync.WaitGroup
}

// start serves on ln until the test ends.
func (p *peer) start(t testing.TB, ln net.Listener) {
	p.mu.Lock()
	p.lns = append(p.lns, ln)
	p.mu.Unlock()
	p.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns++
			n := p.conns
			p.active = append(p.active, nc)
			p.mu.Unlock()
			p.wg.Go(func() {
				defer nc.Close()
				p.serve(nc, n)
			})
		}
	})
	t.Cleanup(func() {
		p.mu.Lock()
		for _, ln := range p.lns {
			ln.Close()
		}
		for _, nc := range p.active {
			nc.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
}

// inMemory starts p on a network in memory, and returns a Sender to it.
func (p *peer) inMemory(t testing.TB, encryption smtpx.SmtpEncryption, config *tls.Config) *smtpx.Sender {
	ln := memnet.Listen()
	p.start(t, ln)
	s := &smtpx.Sender{Host: "mail.example.org", Encryption: encryption, TLSConfig: config, NetDialer: ln, LocalName: "client.example.org"}
	t.Cleanup(func() { s.Close() })
	return s
}

func (p *peer) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, fmt.Sprintf(format, args...))
}

// transcript is what was said, a line for each command and answer.
func (p *peer) transcript() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

func (p *peer) taken() []mailIn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]mailIn(nil), p.mails...)
}

func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

// firstOnly confines what p does wrong to the first connection.
func (p *peer) firstOnly() {
	drop, reply, pause := p.drop, p.reply, p.pause
	p.drop = func(line string) bool { return drop != nil && p.connections() == 1 && drop(line) }
	p.reply = func(line string) string {
		if reply == nil || p.connections() > 1 {
			return ""
		}
		return reply(line)
	}
	p.pause = func(line string) time.Duration {
		if pause == nil || p.connections() > 1 {
			return 0
		}
		return pause(line)
	}
}

// session is one connection.
type session struct {
	*peer
	nc      net.Conn
	br      *bufio.Reader
	overTLS bool
	number  int
}

func (p *peer) serve(nc net.Conn, number int) {
	s := &session{peer: p, nc: nc, number: number}
	if p.implicit && !s.handshake() {
		return
	}
	s.br = bufio.NewReader(s.nc)
	greeting := "220 mail.example.org ESMTP\r\n"
	if p.greeting != "" {
		greeting = p.greeting
	}
	if p.drop != nil && p.drop("GREETING") {
		return
	}
	s.wait("GREETING")
	s.answer(greeting)
	var mail mailIn
	for {
		line, err := s.br.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		s.note("C: %s", line)
		if p.drop != nil && p.drop(line) {
			return
		}
		s.wait(line)
		verb := strings.ToUpper(strings.SplitN(line, " ", 2)[0])
		custom := ""
		if p.reply != nil {
			custom = p.reply(line)
		}
		if custom != "" {
			s.answer(custom)
			if verb != "STARTTLS" || !strings.HasPrefix(custom, "220") {
				if strings.HasPrefix(custom, "421") {
					return
				}
				continue
			}
		}
		switch verb {
		case "EHLO":
			s.ehlo()
		case "HELO", "NOOP":
			s.answer("250 OK\r\n")
		case "RSET":
			mail = mailIn{}
			s.answer("250 2.0.0 OK\r\n")
		case "STARTTLS":
			if custom == "" {
				s.answer("220 2.0.0 go ahead\r\n")
			}
			if !s.handshake() {
				return
			}
			s.br = bufio.NewReader(s.nc)
		case "AUTH":
			if !s.login(line) {
				return
			}
		case "MAIL":
			mail = mailIn{from: line[len("MAIL FROM:"):], conn: number, secured: s.overTLS}
			s.answer("250 2.1.0 OK\r\n")
		case "RCPT":
			mail.to = append(mail.to, line[len("RCPT TO:"):])
			s.answer("250 2.1.5 OK\r\n")
		case "DATA":
			s.answer("354 go ahead\r\n")
			if !s.data(&mail) {
				return
			}
		case "QUIT":
			s.answer("221 2.0.0 bye\r\n")
			return
		default:
			s.answer("500 5.5.2 what?\r\n")
		}
	}
}

func (s *session) wait(line string) {
	if s.pause != nil {
		time.Sleep(s.pause(line)) // in a bubble: it takes no time
	}
}

func (s *session) answer(text string) {
	if len(text) < 4000 {
		s.note("S: %s", strings.TrimSuffix(text, "\r\n"))
	}
	io.WriteString(s.nc, text)
}

func (s *session) handshake() bool {
	secured := tls.Server(s.nc, s.tls)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if secured.HandshakeContext(ctx) != nil {
		// A connection that is closed with something unread is reset, and then the alert
		// may not arrive: what the client has sent is read to its end.
		_ = s.nc.SetReadDeadline(time.Now().Add(time.Minute))
		_, _ = io.Copy(io.Discard, s.nc)
		return false
	}
	s.nc, s.overTLS = secured, true
	if s.secured != nil {
		state := secured.ConnectionState()
		s.secured(&state)
	}
	return true
}

func (s *session) ehlo() {
	lines := []string{"mail.example.org greets " + serverWords}
	if s.ext == nil {
		lines = append(lines, "PIPELINING", "SIZE 10485760", "8BITMIME", "ENHANCEDSTATUSCODES")
	}
	if s.ext == nil && s.tls != nil && !s.overTLS {
		lines = append(lines, "STARTTLS")
	}
	if s.auth != nil && s.ext == nil {
		lines = append(lines, "AUTH PLAIN LOGIN")
	}
	lines = append(lines, s.ext...)
	var b strings.Builder
	for i, line := range lines {
		mark := "-"
		if i == len(lines)-1 {
			mark = " "
		}
		b.WriteString("250" + mark + line + "\r\n")
	}
	s.answer(b.String())
}

func (s *session) login(line string) bool {
	words := append(strings.Fields(line), "", "")
	ok := s.auth != nil && s.auth(words[1], words[2], func(challenge string) (string, bool) {
		s.answer("334 " + challenge + "\r\n")
		answer, err := s.br.ReadString('\n')
		return strings.TrimSuffix(answer, "\r\n"), err == nil
	})
	if !ok {
		s.answer("535 5.7.8 " + serverWords + "\r\n")
		return true
	}
	s.answer("235 2.7.0 welcome\r\n")
	return true
}

// data reads a message and takes it.
func (s *session) data(mail *mailIn) bool {
	var raw bytes.Buffer
	for {
		var line []byte
		if s.takes > 0 {
			// byte by byte, as far as the test wants
			b, err := s.br.ReadByte()
			if err != nil {
				return false
			}
			raw.WriteByte(b)
			if raw.Len() >= s.takes {
				return false
			}
			if !bytes.HasSuffix(raw.Bytes(), []byte("\r\n.\r\n")) {
				continue
			}
		} else {
			var err error
			line, err = s.br.ReadBytes('\n')
			raw.Write(line)
			if err != nil {
				return false
			}
			if !bytes.Equal(line, []byte(".\r\n")) {
				continue
			}
		}
		break
	}
	text := strings.TrimSuffix(raw.String(), ".\r\n")
	text = strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n")[2:]
	s.note("C: (message)")
	s.mu.Lock()
	s.whole++
	s.mu.Unlock()
	if s.drop != nil && s.drop(".") {
		return false
	}
	s.wait(".")
	if s.reply != nil {
		if custom := s.reply("."); custom != "" {
			s.answer(custom)
			return !strings.HasPrefix(custom, "421")
		}
	}
	mail.data = text
	s.mu.Lock()
	s.mails = append(s.mails, *mail)
	s.mu.Unlock()
	*mail = mailIn{}
	s.answer("250 2.0.0 queued\r\n")
	return true
}

// is returns a function that knows lines beginning with prefix.
func is(prefix string) func(string) bool {
	return func(line string) bool { return strings.HasPrefix(line, prefix) }
}

// say returns a function that answers lines beginning with prefix.
func say(prefix, answer string) func(string) string {
	return func(line string) string {
		if strings.HasPrefix(line, prefix) {
			return answer
		}
		return ""
	}
}

// pki makes a server's configuration for mail.example.org and a client's.
func pki(t testpki.TB) (server, client *tls.Config) {
	ca := testpki.NewCA(t, "CA")
	return &tls.Config{Certificates: []tls.Certificate{ca.Server("mail.example.org").TLS()}}, &tls.Config{RootCAs: ca.Pool()}
}

// note returns a message to all of to.
func note(to ...string) *smtpx.Message {
	return &smtpx.Message{
		From: "carewire@example.org", To: to, Subject: "Result " + secretBody, Text: secretBody + "\r\n",
		ID: "1@example.org", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

// failure returns the SendError of err.
func failure(t testing.TB, err error) *smtpx.SendError {
	t.Helper()
	var failed *smtpx.SendError
	require.ErrorAs(t, err, &failed)
	for _, secret := range []string{secretPassword, secretBody, secretUser, serverWords, "ServerCanary"} {
		require.NotContains(t, err.Error(), secret)
	}
	return failed
}
