package mllp_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/mllp"
)

// dialFunc is a NetDialer.
type dialFunc func(ctx context.Context) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, _, _ string) (net.Conn, error) { return f(ctx) }

func TestTheZeroDialerSendsOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		if _, err := mllp.NewReader(nc, 0).Next(); err == nil {
			nc.Write([]byte(answer(mllp.AA, "M1")))
		}
	}()
	var d mllp.Dialer
	assert.Equal(t, "MLLP", d.Transport())
	c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	assert.Equal(t, ln.Addr().String(), c.RemoteAddr().String())
	assert.NotEqual(t, ln.Addr().String(), c.LocalAddr().String())
	_, secured := c.ConnectionState()
	assert.False(t, secured)
	_, err = c.Send(t.Context(), adt("M1"))
	require.NoError(t, err)
}

func TestNobodyListeningIsNotSentAndRetryable(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ln.Close()
	c, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	assert.Nil(t, c)
	assert.True(t, failed(t, err, mllp.NotSent).Retryable())
}

func TestAFaultyConfigurationIsNotRetryable(t *testing.T) {
	ln := memnet.Listen()
	defer ln.Close()
	for name, tt := range map[string]struct {
		d             *mllp.Dialer
		network, addr string
	}{
		"no port":                 {&mllp.Dialer{}, "tcp", "receiver"},
		"another network":         {&mllp.Dialer{}, "udp", "receiver:2575"},
		"negative limit":          {&mllp.Dialer{MaxMessageBytes: -1}, "tcp", "receiver:2575"},
		"negative window":         {&mllp.Dialer{Window: -1}, "tcp", "receiver:2575"},
		"unknown match":           {&mllp.Dialer{Match: 7}, "tcp", "receiver:2575"},
		"match any with a window": {&mllp.Dialer{Match: mllp.MatchAny, Window: 2}, "tcp", "receiver:2575"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.d.NetDialer = ln
			c, err := tt.d.DialContext(t.Context(), tt.network, tt.addr)
			assert.Nil(t, c)
			assert.False(t, failed(t, err, mllp.NotSent).Retryable())
		})
	}
}

func TestConnectingIsBounded(t *testing.T) {
	hang := dialFunc(func(ctx context.Context) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for name, tt := range map[string]struct {
		d         *mllp.Dialer
		ctx, want time.Duration
	}{
		"by default":            {&mllp.Dialer{}, time.Hour, 10 * time.Second},
		"by DialTimeout":        {&mllp.Dialer{DialTimeout: 3 * time.Second}, time.Hour, 3 * time.Second},
		"by an earlier context": {&mllp.Dialer{DialTimeout: 3 * time.Second}, time.Second, time.Second},
		"by a context alone":    {&mllp.Dialer{DialTimeout: -1}, time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.d.NetDialer = hang
				ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
				defer cancel()
				start := time.Now()
				_, err := tt.d.DialContext(ctx, "tcp", "receiver:2575")
				assert.True(t, failed(t, err, mllp.NotSent).Retryable())
				require.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, tt.want, time.Since(start))
			})
		})
	}
}

func TestTheContextOfDialContextDoesNotBoundTheConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memnet.Listen()
		defer ln.Close()
		ctx, cancel := context.WithCancel(t.Context())
		c, err := (&mllp.Dialer{NetDialer: ln}).DialContext(ctx, "tcp", "receiver:2575")
		require.NoError(t, err)
		defer c.Close()
		cancel()
		synctest.Wait()
		assert.NoError(t, c.Err())
	})
}

func TestANetDialersErrorIsKept(t *testing.T) {
	broken := errors.New("no proxy")
	d := &mllp.Dialer{NetDialer: dialFunc(func(context.Context) (net.Conn, error) { return nil, broken })}
	_, err := d.DialContext(t.Context(), "tcp", "receiver:2575")
	failed(t, err, mllp.NotSent)
	require.ErrorIs(t, err, broken)
	assert.EqualError(t, err, "mllp: not sent: no proxy")
}

func TestMatchHasATextForm(t *testing.T) {
	for m, text := range map[mllp.Match]string{mllp.MatchControlID: "controlID", mllp.MatchStrict: "strict", mllp.MatchAny: "any", mllp.MatchNone: "none"} {
		b, err := json.Marshal(m)
		require.NoError(t, err)
		assert.Equal(t, `"`+text+`"`, string(b))
		var back mllp.Match
		require.NoError(t, json.Unmarshal(b, &back))
		assert.Equal(t, m, back)
		assert.Equal(t, text, m.String())
	}
	m := mllp.MatchAny
	require.NoError(t, m.UnmarshalText(nil))
	assert.Equal(t, mllp.MatchControlID, m)
	require.Error(t, m.UnmarshalText([]byte("Strict")))
	assert.Equal(t, "Match(7)", mllp.Match(7).String())
	_, err := mllp.Match(7).MarshalText()
	require.Error(t, err)
}

// countWrites counts the writes to a connection.
type countWrites struct {
	net.Conn
	n int
}

func (c *countWrites) Write(p []byte) (int, error) {
	c.n++
	return c.Conn.Write(p)
}
