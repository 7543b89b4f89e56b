package mllp_test

import (
	"context"
	"encoding/binary"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

// listen serves every connection to a port of host with serve, until the test ends.
func listen(t *testing.T, host string, serve func(*net.TCPConn, *mllp.Reader)) *net.TCPAddr {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	require.NoError(t, err)
	serveOn(t, ln, serve)
	return ln.Addr().(*net.TCPAddr)
}

func serveOn(t *testing.T, ln net.Listener, serve func(*net.TCPConn, *mllp.Reader)) {
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer nc.Close()
				defer context.AfterFunc(t.Context(), func() { nc.Close() })()
				serve(nc.(*net.TCPConn), mllp.NewReader(nc, 0))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		running.Wait()
	})
}

// acceptAll answers every message AA.
func acceptAll(nc *net.TCPConn, frames *mllp.Reader) {
	for {
		msg, err := frames.Next()
		if err != nil {
			return
		}
		var h mllp.Header
		if h.Parse(msg) != nil {
			return
		}
		if _, err := nc.Write([]byte(answer(mllp.AA, string(h.ControlID)))); err != nil {
			return
		}
	}
}

func TestAResetAfterTheMessageWasWrittenIsUnknownAndNothingIsResent(t *testing.T) {
	var mu sync.Mutex
	var received []string
	addr := listen(t, "127.0.0.1", func(nc *net.TCPConn, frames *mllp.Reader) {
		msg, err := frames.Next()
		var h mllp.Header
		if err != nil || h.Parse(msg) != nil {
			return
		}
		mu.Lock()
		received = append(received, string(h.ControlID))
		mu.Unlock()
		if string(h.ControlID) == "M1" {
			nc.SetLinger(0) // closing sends a reset
			return
		}
		nc.Write([]byte(answer(mllp.AA, string(h.ControlID))))
	})
	c := &mllp.Client{Addr: addr.String(), MinBackoff: time.Millisecond}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.Send(ctx, adt("M1"))
	failed(t, err, mllp.Unknown)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = c.Send(ctx, adt("M2"))
	require.NoError(t, err)
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []string{"M1", "M2"}, received)
}

func TestAConnectionThatTheReceiverHasClosedCostsNoMessage(t *testing.T) {
	ends := make(chan struct{})
	addr := listen(t, "127.0.0.1", func(nc *net.TCPConn, frames *mllp.Reader) {
		if msg, err := frames.Next(); err == nil {
			var h mllp.Header
			if h.Parse(msg) == nil {
				nc.Write([]byte(answer(mllp.AA, string(h.ControlID))))
			}
		}
		nc.Close()
		ends <- struct{}{}
	})
	closed := make(chan struct{}, 9)
	c := &mllp.Client{Addr: addr.String(), MinBackoff: time.Millisecond, Observe: func(e mllp.Event) {
		if e.Kind == mllp.EventClosed {
			closed <- struct{}{}
		}
	}}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, id := range []string{"M1", "M2", "M3"} {
		_, err := c.Send(ctx, adt(id))
		require.NoError(t, err)
		<-ends
		select {
		case <-closed: // the FIN has come
		case <-ctx.Done():
			t.Fatal("the Client did not notice the end of the connection within a minute")
		}
	}
}

// nameServer answers every question for an A record with what addresses returns.
// It is a DNS server (RFC 1035) in as many words as the resolver of package net needs.
func nameServer(t *testing.T, addresses func() []net.IP) *net.Resolver {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			end := 12
			for end < n && buf[end] != 0 {
				end += int(buf[end]) + 1
			}
			end += 5 // the root label, type and class
			if end > n {
				continue
			}
			var ips []net.IP
			if binary.BigEndian.Uint16(buf[end-4:]) == 1 { // A
				ips = addresses()
			}
			reply := append([]byte{buf[0], buf[1], 0x84, 0, 0, 1, 0, byte(len(ips)), 0, 0, 0, 0}, buf[12:end]...)
			for _, ip := range ips {
				reply = append(reply, 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				reply = append(reply, ip.To4()...)
			}
			pc.WriteTo(reply, from)
		}
	}()
	t.Cleanup(func() {
		pc.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func TestAllAddressesOfANameAreTriedAndTheNameIsResolvedAnew(t *testing.T) {
	first := listen(t, "127.0.0.1", func(nc *net.TCPConn, frames *mllp.Reader) {
		if msg, err := frames.Next(); err == nil {
			var h mllp.Header
			if h.Parse(msg) == nil {
				nc.Write([]byte(answer(mllp.AA, string(h.ControlID))))
			}
		}
	})
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77), Port: first.Port})
	if err != nil {
		t.Skipf("skipped: no second loopback address here: %v", err) // such as on macOS
	}
	serveOn(t, ln, acceptAll)

	var mu sync.Mutex
	questions, ips := 0, []net.IP{net.IPv4(127, 0, 0, 9), net.IPv4(127, 0, 0, 8), net.IPv4(127, 0, 0, 1)} // nobody listens on the first two
	resolver := nameServer(t, func() []net.IP {
		mu.Lock()
		defer mu.Unlock()
		questions++
		return ips
	})
	dialed, closed := make(chan string, 9), make(chan struct{}, 9)
	c := &mllp.Client{
		Addr: net.JoinHostPort("receiver.example.", strconv.Itoa(first.Port)), MinBackoff: time.Millisecond, MaxAttempts: 1,
		Dialer: &mllp.Dialer{NetDialer: &net.Dialer{Resolver: resolver}},
		Observe: func(e mllp.Event) {
			switch e.Kind {
			case mllp.EventDialed:
				dialed <- e.RemoteAddr.String()
			case mllp.EventClosed:
				closed <- struct{}{}
			default:
			}
		},
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = c.Send(ctx, adt("M1"))
	require.NoError(t, err, "the third address answers")
	assert.Equal(t, first.String(), <-dialed)
	mu.Lock()
	asked := questions
	ips = []net.IP{net.IPv4(127, 0, 0, 77)} // the receiver has moved
	mu.Unlock()
	select {
	case <-closed:
	case <-ctx.Done():
		t.Fatal("the Client did not notice the end of the connection within a minute")
	}
	_, err = c.Send(ctx, adt("M2"))
	require.NoError(t, err)
	assert.Equal(t, ln.Addr().String(), <-dialed)
	mu.Lock()
	defer mu.Unlock()
	assert.Greater(t, questions, asked)
}

func TestWithoutAcknowledgementsClosingLosesNothingOfWhatWasWritten(t *testing.T) {
	const messages = 500
	received := make(chan int, 1)
	addr := listen(t, "127.0.0.1", func(nc *net.TCPConn, frames *mllp.Reader) {
		count := 0
		defer func() { received <- count }()
		for {
			if _, err := frames.Next(); err != nil {
				return
			}
			if count++; count == 1 {
				time.Sleep(100 * time.Millisecond) // so that much is under way when the Client is closed
			}
			nc.Write([]byte(answer(mllp.AA, "M"))) // whether anybody listens or not
		}
	})
	c := &mllp.Client{Addr: addr.String(), Dialer: &mllp.Dialer{Match: mllp.MatchNone}}
	msg := append(adt("M"), make([]byte, 2<<10)...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range messages {
		_, err := c.Send(ctx, msg)
		require.NoError(t, err)
	}
	require.NoError(t, c.Close())
	select {
	case n := <-received:
		assert.Equal(t, messages, n)
	case <-ctx.Done():
		t.Fatal("the receiver did not see the end of the connection within a minute")
	}
}
