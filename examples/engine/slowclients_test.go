package main

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Row 39, at the port: headers are bounded in length and in time, and who is cut off
// takes nothing from others.
func TestTheAPIEndsRequestsWhoseHeadersAreTooLongOrDoNotCome(t *testing.T) {
	t.Parallel()
	p := launch(t, nil, "-config", writeConfig(t, `users: [{name: test, role: admin, password: `+secret+`}]
channels:
  - {id: adt, source: {type: channel}, destinations: [{name: archive, type: file, directory: ./archive}]}
`))
	base := p.api()
	// answer returns what comes after text until the engine closes.
	answer := func(text string) string {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(base, "http://"))
		if !assert.NoError(t, err) {
			return ""
		}
		defer conn.Close()
		assert.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, _ = io.WriteString(conn, text) // it may be cut off before the end
		got, err := io.ReadAll(conn)
		if err != nil {
			assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the engine has not closed")
		}
		return string(got)
	}
	slow := make(chan string, 1)
	go func() { slow <- answer("POST /api/users/_login HTTP/1.1\r\nHost: localhost\r\nContent-Type: appl") }()
	long := answer("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n")
	assert.True(t, long == "" || strings.HasPrefix(long, "HTTP/1.1 431 "), "%.100s", long)
	assert.True(t, strings.HasPrefix(answer("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), "HTTP/1.1 200 "))
	select {
	case got := <-slow:
		assert.True(t, got == "" || strings.HasPrefix(got, "HTTP/1.1 408 ") || strings.HasPrefix(got, "HTTP/1.1 400 "), "%.100s", got)
	case <-time.After(2 * patience):
		t.Fatal("the engine waits for headers that do not come")
	}
}
