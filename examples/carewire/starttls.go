package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// maxGreetingBytes bounds everything a mail server may say before TLS begins. The
// replies of RFC 5321 have lines of at most 512 bytes, and few of them.
const maxGreetingBytes = 16 << 10

// startTLS asks a mail server to begin TLS on conn (RFC 3207). The caller has set
// the deadline. On return without error the next byte on conn is TLS.
func startTLS(conn net.Conn) error {
	r := bufio.NewReader(io.LimitReader(conn, maxGreetingBytes))
	if _, err := smtpReply(r, "220"); err != nil {
		return fmt.Errorf("smtp greeting: %w", err)
	}
	if _, err := io.WriteString(conn, "EHLO "+addressLiteral(conn.LocalAddr())+"\r\n"); err != nil {
		return fmt.Errorf("smtp EHLO: %w", err)
	}
	extensions, err := smtpReply(r, "250")
	if err != nil {
		return fmt.Errorf("smtp EHLO: %w", err)
	}
	if !slices.ContainsFunc(extensions, func(e string) bool { return strings.EqualFold(strings.TrimSpace(e), "STARTTLS") }) {
		return errors.New("smtp: the server does not offer STARTTLS")
	}
	if _, err := io.WriteString(conn, "STARTTLS\r\n"); err != nil {
		return fmt.Errorf("smtp STARTTLS: %w", err)
	}
	if _, err := smtpReply(r, "220"); err != nil {
		return fmt.Errorf("smtp STARTTLS: %w", err)
	}
	// What came in the clear after the go-ahead would be taken for something said
	// under TLS (CVE-2011-0411).
	if r.Buffered() > 0 {
		return errors.New("smtp STARTTLS: the server spoke on before TLS began")
	}
	return nil
}

// smtpReply reads one reply, of one line or many, and returns its texts.
func smtpReply(r *bufio.Reader, code string) ([]string, error) {
	var texts []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("the connection ended, or more than %d bytes came, before a whole reply", maxGreetingBytes)
			}
			return nil, err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 || line[:3] != code || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
			return nil, fmt.Errorf("expected reply %s, got %s", code, printable(line[:min(len(line), 3)]))
		}
		texts = append(texts, line[min(len(line), 4):])
		if len(line) == 3 || line[3] == ' ' {
			return texts, nil
		}
	}
}

// addressLiteral names this machine to the server without telling its name (RFC
// 5321, section 4.1.3).
func addressLiteral(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return "localhost"
	}
	if tcp.IP.To4() == nil {
		return "[IPv6:" + tcp.IP.String() + "]"
	}
	return "[" + tcp.IP.String() + "]"
}
