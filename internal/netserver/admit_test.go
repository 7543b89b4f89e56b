package netserver_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/netserver"
	"github.com/carewire/carewire/internal/proxyproto"
)

func prefixes(t *testing.T, text string) netserver.Prefixes {
	t.Helper()
	ps, err := netserver.ParsePrefixes(text)
	require.NoError(t, err)
	return ps
}

func TestAllowAndDenyDecideBeforeAByteIsExchanged(t *testing.T) {
	for name, tc := range map[string]struct {
		allow, deny string
		ip          string
		ok          bool
	}{
		"no lists":               {ip: "10.0.0.1", ok: true},
		"allowed":                {allow: "10.0.0.0/8", ip: "10.0.0.1", ok: true},
		"not allowed":            {allow: "10.0.0.0/8", ip: "11.0.0.1"},
		"denied":                 {deny: "10.0.0.0/8", ip: "10.0.0.1"},
		"not denied":             {deny: "10.0.0.0/8", ip: "11.0.0.1", ok: true},
		"deny comes first":       {allow: "10.0.0.0/8", deny: "10.0.0.1", ip: "10.0.0.1"},
		"a mapped address":       {allow: "10.0.0.0/8", ip: "::ffff:10.0.0.1", ok: true},
		"a mapped address, deny": {deny: "10.0.0.0/8", ip: "::ffff:10.0.0.1"},
		"IPv6":                   {allow: "2001:db8::/32", ip: "2001:db8::7", ok: true},
		"another IPv6":           {allow: "2001:db8::/32", ip: "2001:db9::7"},
		"IPv4 is in no ::/0":     {allow: "::/0", ip: "10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, netserver.Options{Allow: prefixes(t, tc.allow), Deny: prefixes(t, tc.deny)}, nil)
				c, err := r.ln.DialFrom(net.ParseIP(tc.ip))
				require.NoError(t, err)
				defer c.Close()
				synctest.Wait()
				if tc.ok {
					assert.NoError(t, say(c, 'x'))
					assert.Empty(t, r.refused)
					return
				}
				_, err = c.Read(make([]byte, 1))
				assert.ErrorIs(t, err, io.EOF, "closed without a byte")
				assert.Equal(t, []refusal{{netserver.Peer{Addr: c.LocalAddr()}, netserver.ErrDenied}}, r.refused)
				assert.Zero(t, r.srv.Conns())
			})
		})
	}
}

func TestAPeerWithoutAnIPAddressIsOnNoList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{Allow: prefixes(t, "0.0.0.0/0 ::/0")}, nil)
		c, err := r.ln.DialFrom(nil)
		require.NoError(t, err)
		defer c.Close()
		synctest.Wait()
		assert.Equal(t, []error{netserver.ErrDenied}, r.why())
	})
}

// proxied is how a proxy begins a connection for a client.
func proxied(client string) string { return "PROXY TCP4 " + client + " 192.0.2.1 49152 2575\r\n" }

func TestATrustedProxyNamesTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{
			Proxies: prefixes(t, "10.0.0.1"), Allow: prefixes(t, "192.0.2.0/24 10.0.0.2"), HeaderTimeout: 10 * time.Second, MaxConnsPerHost: 1,
		}, nil)
		via := func(header string) *memnet.Conn {
			c := r.dial(t, 1)
			_, err := io.WriteString(c, header)
			require.NoError(t, err)
			synctest.Wait()
			return c
		}
		c := via(proxied("192.0.2.7") + "x")
		_, err := io.ReadFull(c, make([]byte, 1))
		require.NoError(t, err, "what follows the header reaches the Conn")
		r.srv.Each(func(nc netserver.Conn) {
			assert.Equal(t, "192.0.2.7:49152", nc.(*echo).peer.Addr.String())
			assert.Equal(t, c.LocalAddr(), nc.(*echo).peer.Proxy)
		})

		assert.Error(t, say(via(proxied("192.0.2.7")), 'x'), "limits count the client's address")
		assert.NoError(t, say(via(proxied("192.0.2.8")), 'x'), "and not the proxy's")
		assert.Error(t, say(via(proxied("198.51.100.1")), 'x'), "the client is not allowed")
		assert.Error(t, say(via("PROXY UNKNOWN\r\n"), 'x'), "the proxy itself is not")
		require.Len(t, r.refused, 3)
		assert.Equal(t, []error{netserver.ErrHostFull, netserver.ErrDenied, netserver.ErrDenied}, r.why())
		assert.Equal(t, "198.51.100.1:49152", r.refused[1].Addr.String())
		assert.Equal(t, "10.0.0.1", r.refused[1].Proxy.(*net.TCPAddr).IP.String())
		assert.Equal(t, "10.0.0.1", r.refused[2].Addr.(*net.TCPAddr).IP.String())
		assert.Nil(t, r.refused[2].Proxy)

		direct := r.dial(t, 2)
		assert.NoError(t, say(direct, 'P'), "others connect without one, and their bytes are the protocol's")
		assert.Equal(t, 3, r.srv.Conns())
	})
}

func TestATrustedProxyMustSendItsHeaderInTime(t *testing.T) {
	for name, tc := range map[string]struct {
		says string
		fin  bool
		why  error
		took time.Duration
	}{
		"silence":                    {why: os.ErrDeadlineExceeded, took: 10 * time.Second},
		"half a header":              {says: proxied("192.0.2.7")[:20], why: os.ErrDeadlineExceeded, took: 10 * time.Second},
		"the protocol without it":    {says: "\x0bMSH|", why: proxyproto.ErrNoHeader},
		"a malformed one":            {says: "PROXY TCP4 nobody\r\n", why: proxyproto.ErrMalformed},
		"one that is too long":       {says: "PROXY UNKNOWN " + strings.Repeat("x", 100), why: proxyproto.ErrTooLong},
		"the end in it":              {says: "PROXY", fin: true, why: io.ErrUnexpectedEOF},
		"a health check without one": {fin: true, why: io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, netserver.Options{Proxies: prefixes(t, "10.0.0.0/24"), HeaderTimeout: 10 * time.Second}, nil)
				began := time.Now()
				c := r.dial(t, 1)
				io.WriteString(c, tc.says)
				if tc.fin {
					c.CloseWrite()
				}
				io.Copy(io.Discard, c)
				synctest.Wait()
				assert.Equal(t, tc.took, time.Since(began))
				require.Len(t, r.refused, 1)
				assert.ErrorIs(t, r.refused[0].why, tc.why)
				assert.Zero(t, r.srv.Conns())
			})
		})
	}
}

func TestConnectionsWaitingForAHeaderAreLimitedAndEndWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{Proxies: prefixes(t, "10.0.0.1"), MaxConns: 2}, nil)
		first, second := r.dial(t, 1), r.dial(t, 1)
		assert.Error(t, say(r.dial(t, 1), 'x'))
		assert.Equal(t, []error{netserver.ErrFull}, r.why())
		direct := r.dial(t, 2)
		require.NoError(t, say(direct, 'x'), "they take no place from others")
		io.WriteString(first, proxied("192.0.2.7"))
		require.NoError(t, say(first, 'x'))
		io.WriteString(second, proxied("192.0.2.7"))
		synctest.Wait()
		assert.Error(t, say(second, 'x'))
		assert.Equal(t, []error{netserver.ErrFull, netserver.ErrFull}, r.why())
		r.dial(t, 1)
		began := time.Now()
		r.srv.Shutdown(t.Context())
		assert.Zero(t, time.Since(began))
		assert.Len(t, r.refused, 2, "the end of the server is no refusal")
		assert.ErrorIs(t, <-r.served, netserver.ErrClosed)
	})
}

func TestTheConnectionThatIsIdleLongestMakesRoomWhereThatIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, netserver.Options{MaxConns: 3, MaxConnsPerHost: 2, EvictIdle: time.Minute}, nil)
		ghost := r.dial(t, 1)
		time.Sleep(time.Second)
		busy := r.dial(t, 1)
		go say(busy, '*')
		assert.Error(t, say(r.dial(t, 1), 'x'), "nobody has been idle for long enough")
		time.Sleep(time.Minute)
		again := r.dial(t, 1)
		require.NoError(t, say(again, 'x'))
		assert.Error(t, say(ghost, 'x'))
		assert.Error(t, say(r.dial(t, 1), 'x'), "one is busy, the other is new")

		time.Sleep(time.Second)
		other := r.dial(t, 2)
		require.NoError(t, say(other, 'x'))
		time.Sleep(2 * time.Minute)
		require.NoError(t, say(r.dial(t, 3), 'x'), "beyond MaxConns anybody idle makes room")
		assert.Equal(t, 3, r.srv.Conns())
		assert.Error(t, say(again, 'x'), "the one that has been so longest")
		assert.NoError(t, say(other, 'x'))
		assert.Equal(t, []error{netserver.ErrHostFull, netserver.ErrHostFull}, r.why())
	})
}

func TestAbandonedConnsAreReportedBeforeTheyAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var abandoned []net.Addr
		r := start(t, netserver.Options{Abandoned: func(c netserver.Conn) {
			abandoned = append(abandoned, c.(*echo).peer.Addr)
			assert.False(t, errors.Is(c.(*echo).SetDeadline(time.Time{}), net.ErrClosed))
		}}, nil)
		busy := r.dial(t, 1)
		r.dial(t, 2)
		go say(busy, '*')
		synctest.Wait()
		r.srv.Close()
		r.srv.Close()
		assert.Equal(t, []net.Addr{busy.LocalAddr()}, abandoned)
		assert.Equal(t, 1, r.srv.Abandoned())
	})
}
