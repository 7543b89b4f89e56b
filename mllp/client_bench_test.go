package mllp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
)

// echoPeer accepts one connection after the other and answers each message of
// it at the least cost: it looks for FS CR, and answers with the acknowledgement
// of message "M". With config it speaks TLS. It returns its address.
func echoPeer(tb testing.TB, config *tls.Config) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	reply := []byte(answer(mllp.AA, "M"))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				buf := make([]byte, 64<<10)
				for last := byte(0); ; {
					n, err := nc.Read(buf)
					if err != nil {
						return
					}
					for _, c := range buf[max(0, n-2):n] { // a frame at a time: its end is the end of a read
						if last == '\x1C' && c == '\r' {
							if _, err := nc.Write(reply); err != nil {
								return
							}
						}
						last = c
					}
				}
			})
		}
	})
	tb.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// BenchmarkSend compares Send with the least loop that can do its work: write a
// frame, read until FS CR.
func BenchmarkSend(b *testing.B) {
	ca := testpki.NewCA(b, "CA")
	for _, secured := range []bool{false, true} {
		var server, client *tls.Config
		mode := "plain"
		if secured {
			mode = "TLS"
			server = &tls.Config{Certificates: []tls.Certificate{ca.Server("127.0.0.1").TLS()}}
			client = &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"}
		}
		for _, size := range []int{255, 4 << 10, 64 << 10, 1 << 20} {
			msg := adt("M")
			msg = append(msg, strings.Repeat("x", size-len(msg)-1)+"\r"...)
			b.Run(fmt.Sprintf("%s/%d/limit", mode, size), func(b *testing.B) {
				nc, err := net.Dial("tcp", echoPeer(b, server))
				require.NoError(b, err)
				if secured {
					nc = tls.Client(nc, client)
				}
				defer nc.Close()
				r := bufio.NewReader(nc)
				frame := append(append([]byte{0x0B}, msg...), 0x1C, '\r')
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := nc.Write(frame); err != nil {
						b.Fatal(err)
					}
					for {
						if _, err := r.ReadSlice(0x1C); err != nil {
							b.Fatal(err)
						}
						if c, err := r.ReadByte(); err != nil || c == '\r' {
							break
						}
					}
				}
			})
			b.Run(fmt.Sprintf("%s/%d/Send", mode, size), func(b *testing.B) {
				c, err := (&mllp.Dialer{TLSConfig: client}).DialContext(b.Context(), "tcp", echoPeer(b, server))
				require.NoError(b, err)
				defer c.Close()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Send(context.Background(), msg); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkHeaderParse(b *testing.B) {
	msg := []byte(sampleADT)
	b.Run("limit", func(b *testing.B) { // find the end of the segment and its separators
		b.ReportAllocs()
		for b.Loop() {
			segment := msg[:bytes.IndexByte(msg, '\r')]
			for rest := segment; ; {
				i := bytes.IndexByte(rest, '|')
				if i < 0 {
					break
				}
				rest = rest[i+1:]
			}
		}
	})
	b.Run("Parse", func(b *testing.B) {
		b.ReportAllocs()
		var h mllp.Header
		for b.Loop() {
			if err := h.Parse(msg); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestSendAllocatesOnlyItsReply(t *testing.T) {
	c, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", echoPeer(t, nil))
	require.NoError(t, err)
	defer c.Close()
	msg := adt("M")
	assert.LessOrEqual(t, testing.AllocsPerRun(200, func() {
		if _, err := c.Send(context.Background(), msg); err != nil {
			t.Error(err)
		}
	}), 4.0, "the Reply, its bytes, MSA-2 and MSA-3")
	assert.LessOrEqual(t, testing.AllocsPerRun(200, func() {
		if _, err := c.Send(t.Context(), msg); err != nil {
			t.Error(err)
		}
	}), 9.0, "and what it takes to be woken by the context")
}
