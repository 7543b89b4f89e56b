package smtpx

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carewire/carewire/tlsprops"
)

// conn is one connection to a server. It belongs to the goroutine that took it
// from the pool.
type conn struct {
	// static after connecting
	raw    net.Conn // TCP
	nc     net.Conn // that is read and written: tls, if there is one, or raw
	tls    *tls.Conn
	host   string
	local  string // the name in EHLO
	limits Timeouts
	ext    map[string]string // what EHLO offered: keyword, upper case, to its parameters
	opened time.Time
	source uint64 // generation of the TLS files

	// owned by the goroutine that has the conn
	br   *bufio.Reader
	bw   *bufio.Writer
	sent int  // messages that it carried
	dead bool // reading or writing has failed
	// copying is for what comes from the spool
	copying []byte
	since   time.Time // when it became idle

	mu  sync.Mutex
	end time.Time // guarded by mu: long past, once the context of what is done has ended; zero: it has not
}

// watch bounds what is done with c by ctx, until the returned function is called.
// That reports whether ctx was still alive; if not, c must not be used again.
func (c *conn) watch(ctx context.Context) (stop func() bool) {
	c.mu.Lock()
	c.end = time.Time{}
	c.mu.Unlock()
	return context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.end = time.Unix(1, 0) // in the past: wakes whoever reads or writes
		_ = c.nc.SetDeadline(c.end)
	})
}

// within gives what comes next d; zero or less: only the context's time.
func (c *conn) within(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.end
	if d > 0 && end.IsZero() {
		end = time.Now().Add(d)
	}
	_ = c.nc.SetDeadline(end) // fails on a closed connection, as what follows does
}

// connect makes a connection that is ready for MAIL.
func (s *Sender) connect(ctx context.Context) (*conn, *SendError) {
	config, generation, err := s.tlsConfig(ctx)
	if err != nil {
		return nil, unfit(fmt.Errorf("smtpx: %w", err))
	}
	limits := s.Timeouts
	nc, err := s.dial(ctx, limits.dial())
	if err != nil {
		return nil, notSent(fmt.Errorf("smtpx: %w", err))
	}
	c := &conn{raw: nc, nc: nc, host: s.Host, local: s.localName(nc), limits: limits, opened: time.Now(), source: generation, copying: make([]byte, copyBuffer)}
	stop := c.watch(ctx)
	sendErr := c.open(ctx, s.Encryption, config, s.Auth)
	stop()
	if sendErr != nil {
		c.abandon() // sendErr is the error that matters
		return nil, sendErr
	}
	return c, nil
}

func (s *Sender) dial(ctx context.Context, limit time.Duration) (net.Conn, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	port := s.Port
	if port == 0 {
		port = s.Encryption.DefaultPort()
	}
	addr := net.JoinHostPort(s.Host, strconv.Itoa(port))
	if s.NetDialer != nil {
		return s.NetDialer.DialContext(ctx, "tcp", addr)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// localName returns the name for EHLO: RFC 5321 section 4.1.4 wants the address
// where there is no name that others know.
func (s *Sender) localName(nc net.Conn) string {
	if s.LocalName != "" {
		return s.LocalName
	}
	tcp, ok := nc.LocalAddr().(*net.TCPAddr)
	switch {
	case !ok:
		return "localhost"
	case tcp.IP.To4() == nil:
		return "[IPv6:" + tcp.IP.String() + "]"
	}
	return "[" + tcp.IP.String() + "]"
}

// open takes the connection from its first byte to the end of AUTH. config is
// nil for encryption none, and only then.
func (c *conn) open(ctx context.Context, encryption SmtpEncryption, config *tls.Config, auth Auth) *SendError {
	if encryption == EncryptionSSL {
		if err := c.handshake(ctx, config); err != nil {
			return err
		}
	}
	c.buffers()
	c.within(c.limits.greeting())
	greeting, err := readAnswer(c.br, false)
	switch {
	case err != nil:
		return lost(err)
	case greeting.Code != 220:
		return c.unwanted("greeting", greeting)
	}
	if err := c.hello(encryption == EncryptionNone && auth.Username == ""); err != nil {
		return err
	}
	if encryption == EncryptionTLS {
		if err := c.startTLS(ctx, config); err != nil {
			return err
		}
	}
	return c.authenticate(ctx, auth)
}

func (c *conn) buffers() {
	c.br, c.bw = bufio.NewReaderSize(c.nc, maxReplyLine), bufio.NewWriterSize(c.nc, 16<<10)
}

func (c *conn) handshake(ctx context.Context, config *tls.Config) *SendError {
	secured := tls.Client(c.nc, config)
	if d := c.limits.handshake(); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	c.within(c.limits.handshake())
	if err := secured.HandshakeContext(ctx); err != nil {
		return handshakeError(err)
	}
	c.mu.Lock()
	c.tls, c.nc = secured, secured
	c.mu.Unlock()
	return nil
}

// startTLS turns the connection into one with TLS, or fails (RFC 3207). All that
// was learnt before is forgotten (section 4.2).
func (c *conn) startTLS(ctx context.Context, config *tls.Config) *SendError {
	if _, offered := c.ext["STARTTLS"]; !offered {
		return unfit(ErrNoStartTLS)
	}
	ans, err := c.command(c.limits.command(), "STARTTLS")
	switch {
	case err != nil:
		return err
	case ans.Temporary(): // 454: TLS not available due to temporary reason
		return declined("STARTTLS", ans.Reply, ErrNoStartTLS)
	case ans.Code/100 == 5:
		return declined("STARTTLS", ans.Reply, ErrNoStartTLS)
	case ans.Code != 220:
		return unfit(fmt.Errorf("%w: answer to STARTTLS", ErrProtocol))
	case c.br.Buffered() > 0:
		return unfit(ErrInjected)
	}
	if err := c.handshake(ctx, config); err != nil {
		return err
	}
	c.ext = nil
	c.buffers()
	return c.hello(false)
}

// hello says EHLO, and HELO to a server that does not know that, if it may.
func (c *conn) hello(mayBeOld bool) *SendError {
	ans, err := c.command(c.limits.command(), "EHLO "+c.local)
	switch {
	case err != nil:
		return err
	case ans.Code == 250:
		c.ext = extensions(ans.lines[1:])
		return nil
	case !mayBeOld || ans.Code/100 != 5:
		return c.unwanted("EHLO", ans)
	}
	ans, err = c.command(c.limits.command(), "HELO "+c.local)
	switch {
	case err != nil:
		return err
	case ans.Code != 250:
		return c.unwanted("HELO", ans)
	}
	return nil
}

// extensions reads what EHLO offered, one extension a line.
func extensions(lines []string) map[string]string {
	ext := make(map[string]string, len(lines))
	for _, line := range lines {
		// Some servers write "AUTH=PLAIN", for clients that died long ago.
		name, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name = strings.ToUpper(name); name != "" {
			ext[name] = strings.TrimSpace(params)
		}
	}
	return ext
}

// unwanted is the error of an answer that is not the one that must come.
func (c *conn) unwanted(command string, a answer) *SendError {
	if a.Code/100 >= 4 {
		return declined(command, a.Reply, nil)
	}
	return notSent(fmt.Errorf("%w: %d to %s", ErrProtocol, a.Code, command))
}

// command sends one line and reads the answer.
func (c *conn) command(limit time.Duration, line string) (answer, *SendError) {
	answers, err := c.commands(limit, []string{line})
	if err != nil {
		return answer{}, err
	}
	return answers[0], nil
}

// commands sends lines in one write and reads an answer to each. limit is for
// every one of them.
func (c *conn) commands(limit time.Duration, lines []string) ([]answer, *SendError) {
	// An answer that came too early would be taken for that of the next command,
	// and every one after it for that of the one before.
	if c.br.Buffered() > 0 {
		return nil, c.early()
	}
	c.within(limit)
	for _, line := range lines {
		_, _ = c.bw.WriteString(line)
		_, _ = c.bw.WriteString("\r\n")
	}
	if err := c.bw.Flush(); err != nil {
		return nil, c.lastWords(verb(lines[0]), err)
	}
	answers := make([]answer, len(lines))
	for i := range lines {
		c.within(limit)
		var err error
		if answers[i], err = readAnswer(c.br, len(lines) == 1); err != nil { // EHLO and AUTH go alone
			c.dead = true
			return nil, lost(err)
		}
		if answers[i].Code == 421 && i < len(lines)-1 { // the rest will not be answered (RFC 5321 section 3.8)
			return nil, declined(verb(lines[i]), answers[i].Reply, nil)
		}
	}
	return answers, nil
}

// early is the error of bytes that came before a command was sent. A server that
// wants to go says so with 421.
func (c *conn) early() *SendError {
	if ans, err := readAnswer(c.br, false); err == nil && ans.Code == 421 {
		return declined("", ans.Reply, nil)
	}
	return notSent(fmt.Errorf("%w: an answer to no command", ErrProtocol))
}

// lastWords is the error of a write that failed: the server may have said why
// before it closed the connection.
func (c *conn) lastWords(command string, cause error) *SendError {
	c.dead = true
	if errors.Is(cause, os.ErrDeadlineExceeded) {
		return notSent(cause)
	}
	c.within(time.Second)
	if ans, err := readAnswer(c.br, false); err == nil && ans.Code/100 >= 4 {
		return declined(command, ans.Reply, nil)
	} else if _, what := tlsprops.PeerAlert(err); what == tlsprops.RefusedCertificate {
		return lost(err)
	}
	return lost(cause)
}

// verb returns the command of a line, without what else it holds. The lines of
// AUTH after its first have no command.
func verb(line string) string {
	name, _, _ := strings.Cut(line, " ")
	switch name {
	case "EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT":
		return name
	}
	return "AUTH"
}

// quit closes the connection, politely if that takes no more than a second.
func (c *conn) quit() {
	c.mu.Lock()
	c.end = time.Time{}
	c.mu.Unlock()
	if _, err := c.command(time.Second, "QUIT"); err != nil {
		c.abandon()
		return
	}
	_ = c.nc.Close()
}

// abandon closes the connection without a word. To close TLS is to write, which
// takes another five seconds with a server that reads no more.
func (c *conn) abandon() { _ = c.raw.Close() }

// has tells whether the server offered an extension.
func (c *conn) has(extension string) bool {
	_, has := c.ext[extension]
	return has
}

// sizeLimit returns the largest message that the server takes, 0 if it did not say.
func (c *conn) sizeLimit() int64 {
	n, err := strconv.ParseInt(c.ext["SIZE"], 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// remote tells apart the connections in events.
func (c *conn) remote() net.Addr { return c.nc.RemoteAddr() }

// batches cuts lines into groups whose answers fit the buffers on the way, so
// that neither side waits for the other (RFC 2920 section 3.1).
func batches(lines []string, pipelining bool) [][]string {
	n := 1
	if pipelining {
		n = 64
	}
	return slices.Collect(slices.Chunk(lines, n))
}
