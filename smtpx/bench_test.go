package smtpx_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gomail "github.com/wneessen/go-mail"

	"github.com/carewire/carewire/smtpx"
)

// tcpPeer starts a peer with STARTTLS on loopback, for mail.example.org.
func tcpPeer(tb testing.TB) (addr *net.TCPAddr, client *tls.Config, p *peer) {
	server, client := pki(tb)
	client.ServerName = "mail.example.org"
	p = &peer{tls: server}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	p.start(tb, ln)
	return ln.Addr().(*net.TCPAddr), client, p
}

// BenchmarkSend sends messages of 1 KB with STARTTLS to the same server: over one
// connection, over a new one each, with the bare go-mail client over one
// connection, and with bare net/smtp, which composes nothing.
func BenchmarkSend(b *testing.B) {
	text := string(bytes.Repeat([]byte("a line of 32 bytes, with its end\r\n"), 30))
	message := func() *smtpx.Message {
		return &smtpx.Message{From: "a@example.org", To: []string{"b@example.org"}, Subject: "s", Text: text}
	}
	for name, perConn := range map[string]int{"smtpx/reused": -1, "smtpx/new": 1} {
		b.Run(name, func(b *testing.B) {
			addr, client, _ := tcpPeer(b)
			s := &smtpx.Sender{Host: "127.0.0.1", Port: addr.Port, Encryption: smtpx.EncryptionTLS, TLSConfig: client, MaxMessagesPerConn: perConn}
			defer s.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Send(b.Context(), message()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("go-mail/reused", func(b *testing.B) {
		addr, client, _ := tcpPeer(b)
		c, err := gomail.NewClient("127.0.0.1", gomail.WithPort(addr.Port), gomail.WithTLSConfig(client), gomail.WithTLSPolicy(gomail.TLSMandatory))
		require.NoError(b, err)
		require.NoError(b, c.DialWithContext(b.Context()))
		defer c.Close()
		b.ReportAllocs()
		for b.Loop() {
			m := gomail.NewMsg()
			m.From("a@example.org")
			m.To("b@example.org")
			m.Subject("s")
			m.SetBodyString(gomail.TypeTextPlain, text)
			if err := c.Send(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("net-smtp/reused", func(b *testing.B) {
		addr, client, _ := tcpPeer(b)
		c, err := smtp.Dial(addr.String())
		require.NoError(b, err)
		defer c.Close()
		require.NoError(b, c.StartTLS(client))
		raw := []byte("From: a@example.org\r\nTo: b@example.org\r\nSubject: s\r\n\r\n" + text)
		b.ReportAllocs()
		for b.Loop() {
			if err := bare(c, raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// bare sends one message as a loop over net/smtp does.
func bare(c *smtp.Client, raw []byte) error {
	if err := c.Mail("a@example.org"); err != nil {
		return err
	}
	if err := c.Rcpt("b@example.org"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return err
	}
	return w.Close()
}

// pattern is a reader of n bytes that are nowhere.
type pattern struct{ n int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.n == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.n))
	for i := range b[:n] {
		b[i] = byte(i)
	}
	p.n -= int64(n)
	return n, nil
}

func TestMemoryStaysFlatWithALargeAttachment(t *testing.T) {
	size := int64(200 << 20)
	if raceDetector {
		size = 20 << 20 // the detector makes the rest slow, and no different
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	var server sync.WaitGroup
	var got int64
	server.Go(func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprint(nc, "220 hi\r\n")
		buf := make([]byte, 64<<10)
		for _, answer := range []string{"250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"} {
			nc.Read(buf)
			fmt.Fprint(nc, answer)
		}
		for {
			n, err := nc.Read(buf)
			if got += int64(n); err != nil {
				return
			}
			if bytes.HasSuffix(buf[:n], []byte("\r\n.\r\n")) || bytes.Equal(buf[:n], []byte(".\r\n")) {
				fmt.Fprint(nc, "250 ok\r\n")
			}
		}
	})
	s := &smtpx.Sender{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Encryption: "none", SpoolDir: t.TempDir()}
	m := note("a@example.org")
	m.Attachments = []smtpx.Attachment{{Name: "large.bin", Open: smtpx.Stream(&pattern{size})}}
	var result *smtpx.Result
	grown := heapGrowth(func() { result, err = s.Send(t.Context(), m) })
	require.NoError(t, err)
	s.Close()
	server.Wait()
	require.Greater(t, result.Bytes, size*4/3)
	require.Greater(t, got, result.Bytes)
	if grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes for an attachment of %d", grown, size)
	}
}

// heapGrowth returns by how much the heap was larger than before, at most, while
// do ran.
func heapGrowth(do func()) int64 {
	stop := make(chan struct{})
	var peak uint64
	var watch sync.WaitGroup
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	watch.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapAlloc)
			}
		}
	})
	do()
	close(stop)
	watch.Wait()
	return int64(peak) - int64(before.HeapAlloc)
}

func TestMemoryStaysFlatWithAServerOfManyWords(t *testing.T) {
	words := []byte(strings.Repeat("250-"+strings.Repeat("x", 4000)+"\r\n", 100) + "250 ok\r\n")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	var server sync.WaitGroup
	server.Go(func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		lines := bufio.NewReader(nc)
		io.WriteString(nc, "220 hi\r\n")
		for {
			switch line, err := lines.ReadSlice('\n'); {
			case err != nil:
				return
			case bytes.HasPrefix(line, []byte("EHLO")):
				io.WriteString(nc, "250-hi\r\n250 PIPELINING\r\n")
			case bytes.HasPrefix(line, []byte("DATA")):
				io.WriteString(nc, "354 go\r\n")
				for string(line) != ".\r\n" {
					line, _ = lines.ReadSlice('\n')
				}
				nc.Write(words)
			default:
				nc.Write(words)
			}
		}
	})
	s := &smtpx.Sender{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Encryption: "none"}
	var to []string
	for i := range 500 {
		to = append(to, fmt.Sprint(i, "@example.org"))
	}
	grown := heapGrowth(func() { _, err = s.Send(t.Context(), note(to...)) })
	require.NoError(t, err)
	s.Close()
	server.Wait()
	if grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes for answers of %d", grown, len(to)*len(words))
	}
}
