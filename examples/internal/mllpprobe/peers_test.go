package mllpprobe_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/internal/mllpprobe"
	"github.com/carewire/carewire/internal/leakcheck"
	"github.com/carewire/carewire/internal/memnet"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// dial opens a connection to a listener of a test.
type dial = func(context.Context) (net.Conn, error)

// listen accepts connections until the test ends, has each handled, and returns
// how to dial it. It is for the bubbles of testing/synctest, where waiting for
// what does not come takes no time.
func listen(t *testing.T, handle func(net.Conn)) dial {
	t.Helper()
	ln := memnet.Listen()
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	return func(context.Context) (net.Conn, error) { return ln.Dial() }
}

// peer is a receiver as many have been written, of which a test sets what it does
// wrong.
type peer struct {
	// answers returns what is sent for the texts that one read has completed.
	answers func(texts []string) []string
}

// serve reads until FS CR, takes what came before for a message, and answers.
func (p peer) serve(conn net.Conn) {
	var buf []byte
	chunk := make([]byte, 64<<10)
	for {
		n, err := conn.Read(chunk)
		searched := max(0, len(buf)-1)
		buf = append(buf, chunk[:n]...)
		var texts []string
		for {
			i := bytes.Index(buf[searched:], []byte("\x1c\r"))
			if i < 0 {
				break
			}
			texts = append(texts, string(buf[:searched+i]))
			buf, searched = buf[searched+i+2:], 0
		}
		for _, answer := range p.answers(texts) {
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// controlID finds MSH-10 as simple receivers do.
func controlID(text string) string {
	line, _, _ := strings.Cut(text, "\r")
	if fields := strings.Split(line, "|"); len(fields) > 9 {
		return fields[9]
	}
	return ""
}

var acks = struct {
	sync.Mutex

	n int
}{}

// ack is an acknowledgement with an MSH-10 of its own.
func ack(code, id string) string {
	acks.Lock()
	defer acks.Unlock()
	acks.n++
	return ackWith(fmt.Sprintf("ACK%d", acks.n), code, id)
}

func ackWith(own, code, id string) string {
	return "\vMSH|^~\\&|RECEIVER|RECEIVER|CAREWIRE-PROBE|PROBE|20260101||ACK^A01^ACK|" + own + "|T|2.5\rMSA|" + code + "|" + id + "\r\x1c\r"
}

// each answers every message by itself.
func each(answer func(text string) string) peer {
	return peer{answers: func(texts []string) (answers []string) {
		for _, text := range texts {
			answers = append(answers, answer(text))
		}
		return answers
	}}
}

// naive answers AA to everything that ends with FS CR.
var naive = each(func(text string) string { return ack("AA", controlID(text)) })

// overTLS speaks TLS on what plain dials.
func overTLS(plain dial, config *tls.Config) dial {
	return func(ctx context.Context) (net.Conn, error) {
		raw, err := plain(ctx)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		return conn, nil
	}
}

// results runs a probe and returns its results, in order.
func results(t *testing.T, p *mllpprobe.Probe, names ...string) []*mllpprobe.Result {
	t.Helper()
	p.Conns = 24
	scenarios, err := p.Scenarios(names...)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute) // of the bubble's time, mostly
	defer cancel()
	var all []*mllpprobe.Result
	require.NoError(t, p.Run(ctx, scenarios, func(r *mllpprobe.Result) { all = append(all, r) }))
	require.Len(t, all, len(scenarios))
	for i, r := range all {
		require.Same(t, scenarios[i], r.Scenario, "the order is that of the list")
	}
	return all
}

// graded returns the results with a grade, as "name: what came".
func graded(all []*mllpprobe.Result, grade mllpprobe.Grade) []string {
	var lines []string
	for _, r := range all {
		if r.Grade == grade {
			lines = append(lines, r.Name+": "+r.Came)
		}
	}
	return slices.Clip(lines)
}
