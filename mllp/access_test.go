package mllp_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// from makes a connection from an address.
func (s *site) from(ip string) *caller {
	s.t.Helper()
	raw, err := s.ln.DialFrom(net.ParseIP(ip))
	require.NoError(s.t, err)
	return s.callOn(raw)
}

func ranges(t *testing.T, text string) mllp.Prefixes {
	t.Helper()
	ps, err := mllp.ParsePrefixes(text)
	require.NoError(t, err)
	return ps
}

func TestAddressesThatMayNotConnectAreClosedWithoutAByte(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{Allow: ranges(t, "10.0.0.0/8, 2001:db8::/32"), Deny: ranges(t, "10.0.0.66")})
		for _, ip := range []string{"10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"} {
			c := s.from(ip)
			c.say(frame(msgA))
			assert.Equal(t, "AA id1", c.hear(), ip)
		}
		for _, ip := range []string{"10.0.0.66", "::ffff:10.0.0.66", "11.0.0.1", "2001:db9::1"} {
			got, err := io.ReadAll(s.from(ip).raw)
			assert.NoError(t, err)
			assert.Empty(t, got, ip)
		}
		synctest.Wait()
		assert.Equal(t, slicesOf("refused address_denied", 4), s.told())
	})
}

// slicesOf returns a slice of n times s.
func slicesOf(s string, n int) []string {
	return strings.Split(strings.Repeat(s+"\n", n-1)+s, "\n")
}

func TestAStormOfRefusalsIsCountedButDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{Deny: ranges(t, "0.0.0.0/0")})
		for range 1000 {
			io.Copy(io.Discard, s.call().raw)
		}
		synctest.Wait()
		assert.Len(t, s.told(), 1000, "Observe gets them all")
		lines := func() string {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.log.String()
		}
		assert.Equal(t, 10, strings.Count(lines(), "event=refused"))
		time.Sleep(10 * time.Second)
		io.Copy(io.Discard, s.call().raw)
		synctest.Wait()
		assert.Equal(t, 11, strings.Count(lines(), "event=refused"))
		assert.Contains(t, lines(), "unlogged=990")
	})
}

func TestTheClientBehindATrustedProxyIsTheOneThatCounts(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		var remote, proxy, info string
		s := start(&mllp.Server{
			TrustedProxies: ranges(t, "198.51.100.1"), Allow: ranges(t, "192.0.2.0/24"), MaxConnsPerHost: 1,
			ConnContext: func(ctx context.Context, i mllp.ConnInfo) context.Context {
				info = fmt.Sprint(i.RemoteAddr, " ", i.ProxyAddr)
				return ctx
			},
			Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				remote, proxy = r.RemoteAddr.String(), r.ProxyAddr.String()
				return nil, nil
			}),
		})
		via := func(client string) *caller {
			c := s.from("198.51.100.1")
			_, err := io.WriteString(c.raw, "PROXY TCP4 "+client+" 192.0.2.1 49152 2575\r\n")
			require.NoError(t, err)
			return c
		}
		c := via("192.0.2.7")
		c.say(frame(msgA))
		require.Equal(t, "AA id1", c.hear())
		assert.Equal(t, "192.0.2.7:49152", remote)
		assert.Equal(t, c.raw.LocalAddr().String(), proxy)
		assert.Equal(t, remote+" "+proxy, info)
		opened := s.event(mllp.EventOpened)
		assert.Equal(t, remote, opened.RemoteAddr.String())
		assert.Contains(t, opened.String(), "proxy="+proxy)

		got, _ := io.ReadAll(via("203.0.113.1").raw)
		assert.Empty(t, got)
		synctest.Wait()
		assert.Equal(t, []string{"refused address_denied"}, s.told())
		assert.Equal(t, "203.0.113.1:49152", s.event(mllp.EventRefused).RemoteAddr.String())

		io.ReadAll(via("192.0.2.7").raw)
		synctest.Wait()
		assert.Equal(t, "refused too_many_conns_of_host", s.told()[1])
	})
}

func TestATrustedProxyWithoutAGoodHeaderIsRefusedWithTheReason(t *testing.T) {
	for says, want := range map[string]string{
		frame(msgA):                "no PROXY protocol header",
		"PROXY TCP4 nobody\r\n":    "malformed PROXY protocol header",
		"PROXY TCP4 192.0.2.7 192": "timeout",
	} {
		modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
			s := start(&mllp.Server{TrustedProxies: ranges(t, "198.51.100.1"), HandshakeTimeout: 3 * time.Second})
			c := s.call()
			io.WriteString(c.raw, says)
			io.Copy(io.Discard, c.raw)
			synctest.Wait()
			e := s.event(mllp.EventRefused)
			assert.Equal(t, mllp.ReasonProxyHeader, e.Reason)
			assert.Equal(t, want, e.Detail)
			assert.Empty(t, s.delivered())
		})
	}
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{TrustedProxies: ranges(t, "198.51.100.1")})
		s.call().raw.Close()
		synctest.Wait()
		assert.Equal(t, []string{"probe"}, s.told(), "a proxy that looks whether the port is open")
	})
}

func TestAProxyHeaderFromAnybodyElseEndsTheConnection(t *testing.T) {
	for name, header := range map[string]string{
		"version 1": "PROXY TCP4 192.0.2.7 192.0.2.1 49152 2575\r\n",
		"version 2": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\xc0\x00\x0a\x0f",
	} {
		modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
			s := start(&mllp.Server{TrustedProxies: ranges(t, "10.0.0.1")})
			c := s.call()
			io.WriteString(c.raw, header+frame(msgA))
			io.Copy(io.Discard, c.raw)
			synctest.Wait()
			assert.Empty(t, s.delivered())
			if s.clients != nil {
				e := s.event(mllp.EventHandshakeFailed)
				assert.Equal(t, mllp.ReasonNotTLS, e.Reason)
				assert.Equal(t, "PROXY protocol, "+name[:7]+" "+name[8:], e.Detail)
				return
			}
			assert.Equal(t, []string{"bad_frame wrong_protocol", "closed wrong_protocol"}, s.told())
			assert.Equal(t, "PROXY protocol, "+name[:7]+" "+name[8:], s.event(mllp.EventBadFrame).Detail)
		})
	}
}

func TestAnIdleConnectionMakesRoomForANewOneWhereThatIsAllowed(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{MaxConnsPerHost: 2, EvictIdle: time.Minute})
		ghost, live := s.call(), s.call()
		for _, c := range []*caller{ghost, live} {
			c.say(frame(msgA))
			require.Equal(t, "AA id1", c.hear())
		}
		io.Copy(io.Discard, s.call().raw) // refused: nobody has been idle for long enough
		time.Sleep(59 * time.Second)
		live.say(frame(msgB))
		require.Equal(t, "AA id2", live.hear())
		time.Sleep(2 * time.Second)
		again := s.call()
		again.say(frame(msgA))
		assert.Equal(t, "AA id1", again.hear())
		live.say(frame(msgA))
		assert.Equal(t, "AA id1", live.hear(), "the one that is in use stays")
		assert.Equal(t, "end", ghost.hear())
		synctest.Wait()
		assert.Equal(t, []string{"refused too_many_conns_of_host", "closed evicted"}, s.told())
		assert.Equal(t, 2, s.srv.Conns())
	})
}

func TestAnEstablishedConnectionIsNotEndedForANewOneByDefault(t *testing.T) {
	modes(t, func(t *testing.T, start func(*mllp.Server) *site) {
		s := start(&mllp.Server{MaxConns: 1})
		c := s.call()
		c.say(frame(msgA))
		require.Equal(t, "AA id1", c.hear())
		time.Sleep(1000 * time.Hour)
		io.Copy(io.Discard, s.call().raw)
		c.say(frame(msgA))
		assert.Equal(t, "AA id1", c.hear())
	})
}

func TestAClientMaySendOnlyInTheNamesThatItsCertificateIsPermitted(t *testing.T) {
	p := pki()
	client := p.ca.Issue(testpki.Options{CommonName: "lab 1", Hosts: []string{"Lab1.example.org"}, URIs: []string{"urn:example:lab:1"}})
	msh := func(app, facility string) string {
		return "MSH|^~\\&|" + app + "|" + facility + "|C|D|20260101||ADT^A01|id1|P|2.5\r"
	}
	rule := func(apps, facilities string) mllp.SenderRule {
		return mllp.SenderRule{CommonName: "lab 1", Applications: strings.Fields(apps), Facilities: strings.Fields(facilities)}
	}
	batch := "FHS|^~\\&|LAB|H1|C|D|20260101|||c|f1\rBHS|^~\\&|LAB|H1|C|D\r"
	deliver := mllp.PolicyDeliver
	for name, tc := range map[string]struct {
		rules   []mllp.SenderRule
		message string
		answer  string
	}{
		"exact":                         {[]mllp.SenderRule{rule("LAB", "H1")}, msh("LAB", "H1"), "AA id1"},
		"one of several":                {[]mllp.SenderRule{rule("RAD LAB", "H2 H1")}, msh("LAB", "H1"), "AA id1"},
		"another application":           {[]mllp.SenderRule{rule("LAB", "H1")}, msh("RAD", "H1"), "AR id1"},
		"another facility":              {[]mllp.SenderRule{rule("LAB", "H1")}, msh("LAB", "H2"), "AR id1"},
		"another case":                  {[]mllp.SenderRule{rule("LAB", "H1")}, msh("lab", "H1"), "AR id1"},
		"a longer name":                 {[]mllp.SenderRule{rule("LAB", "H1")}, msh("LABX", "H1"), "AR id1"},
		"none":                          {[]mllp.SenderRule{rule("LAB", "H1")}, msh("", "H1"), "AR id1"},
		"anything":                      {[]mllp.SenderRule{rule("*", "*")}, msh("", ""), "AA id1"},
		"the namespace":                 {[]mllp.SenderRule{rule("LAB", "*")}, msh("LAB^1.2.3^ISO", "H1"), "AA id1"},
		"the whole field":               {[]mllp.SenderRule{rule("LAB^1.2.3^ISO", "*")}, msh("LAB^1.2.3^ISO", "H1"), "AA id1"},
		"the whole field, another":      {[]mllp.SenderRule{rule("LAB^1.2.3^ISO", "*")}, msh("LAB^1.2.4^ISO", "H1"), "AR id1"},
		"a repetition is no component":  {[]mllp.SenderRule{rule("LAB", "*")}, msh("LAB~RAD", "H1"), "AR id1"},
		"a subcomponent is none either": {[]mllp.SenderRule{rule("LAB", "*")}, msh("LAB&RAD", "H1"), "AR id1"},
		"the first rule decides":        {[]mllp.SenderRule{rule("RAD", "*"), rule("LAB", "*")}, msh("LAB", "H1"), "AR id1"},
		"by DNS name":                   {[]mllp.SenderRule{{DNSName: "lab1.EXAMPLE.org", Applications: []string{"*"}, Facilities: []string{"*"}}}, msh("LAB", "H1"), "AA id1"},
		"by URI":                        {[]mllp.SenderRule{{URI: "urn:example:lab:1", Applications: []string{"*"}, Facilities: []string{"*"}}}, msh("LAB", "H1"), "AA id1"},
		"by key":                        {[]mllp.SenderRule{{SPKI: client.Pin(), Applications: []string{"*"}, Facilities: []string{"*"}}}, msh("LAB", "H1"), "AA id1"},
		"all that is asked for":         {[]mllp.SenderRule{{SPKI: client.Pin(), CommonName: "lab 2", Applications: []string{"*"}, Facilities: []string{"*"}}}, msh("LAB", "H1"), "AR id1"},
		"no rule for the client":        {[]mllp.SenderRule{{SPKI: p.client.Pin(), Applications: []string{"*"}, Facilities: []string{"*"}}}, msh("LAB", "H1"), "AR id1"},
		"a name is no pattern":          {[]mllp.SenderRule{{DNSName: "*.example.org", Applications: []string{"*"}, Facilities: []string{"*"}}}, msh("LAB", "H1"), "AR id1"},
		"a batch":                       {[]mllp.SenderRule{rule("LAB", "H1")}, batch + msh("LAB", "H1"), "AA f1"},
		"another in a batch":            {[]mllp.SenderRule{rule("LAB", "H1")}, batch + msh("LAB", "H1") + msh("RAD", "H1"), "AR f1"},
		"a batch within a batch file":   {[]mllp.SenderRule{rule("LAB", "H1")}, batch + "BHS|^~\\&|RAD|H1|C|D\r" + msh("LAB", "H1"), "AR f1"},
		"a broken header in a batch":    {[]mllp.SenderRule{rule("LAB", "H1")}, batch + "MSH|^^^^^^^|LAB|H1\r", "AR f1"},
		"another in one frame":          {[]mllp.SenderRule{rule("LAB", "H1")}, msh("LAB", "H1") + msh("RAD", "H1"), "AR id1"},
		"not HL7":                       {[]mllp.SenderRule{rule("*", "*")}, "PID|1\r", "end"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, &mllp.Server{
					Senders: tc.rules, Batches: deliver, MultipleMSH: deliver, NotHL7: deliver,
					TLSConfig: &tls.Config{
						Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12,
						ClientCAs: p.ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
					},
				})
				s.clients = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{client.TLS()}}
				c := s.call()
				c.say(frame(tc.message))
				assert.Equal(t, tc.answer, c.hear())
				if strings.HasPrefix(tc.answer, "AA") {
					assert.Len(t, s.delivered(), 1)
					assert.Empty(t, s.told())
					return
				}
				synctest.Wait()
				assert.Empty(t, s.delivered())
				e := s.event(mllp.EventRejected)
				assert.Equal(t, mllp.ReasonSenderNotPermitted, e.Reason)
				assert.Equal(t, "CN=lab 1", e.Certificate.Subject)
				assert.NotContains(t, e.String(), "RAD")
			})
		})
	}
}

func TestWithSendersAClientWithoutACertificateMaySendNothing(t *testing.T) {
	p := pki()
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{
			Senders: []mllp.SenderRule{{CommonName: "x", Applications: []string{"*"}, Facilities: []string{"*"}}},
			TLSConfig: &tls.Config{
				Certificates: []tls.Certificate{p.server.TLS()}, MinVersion: tls.VersionTLS12,
				ClientCAs: p.ca.Pool(), ClientAuth: tls.VerifyClientCertIfGiven,
			},
		})
		s.clients = &tls.Config{RootCAs: p.ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
		c := s.call()
		c.say(frame(msgA))
		assert.Equal(t, "AR id1", c.hear())
		assert.Empty(t, s.delivered())
		assert.Nil(t, s.event(mllp.EventRejected).Certificate)
	})
}

func TestBadSettingsOfAccessAreRefusedByName(t *testing.T) {
	h := mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })
	any1 := []string{"*"}
	mutual := &tlsprops.TlsProperties{Enabled: true, KeyStorePath: "k", TrustStorePath: "t", RequireClientCert: true}
	pinned := &tlsprops.TlsProperties{Enabled: true, KeyStorePath: "k", RequireClientCert: true, Verify: tlsprops.VerifyPinned, Pins: []string{pki().client.Pin()}}
	bad := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}
	named := []mllp.SenderRule{{CommonName: "x", Applications: any1, Facilities: any1}}
	for want, srv := range map[string]*mllp.Server{
		"Server.Allow: 10.0.0.1/8 has bits set":          {Allow: bad},
		"Server.Deny: 10.0.0.1/8 has bits set":           {Deny: bad},
		"Server.TrustedProxies: invalid Prefix is not":   {TrustedProxies: []netip.Prefix{{}}},
		"Server.MaxBufferedBytesPerHost is 1048576":      {MaxBufferedBytesPerHost: 1 << 20},
		"Server.Senders[0] names no client":              {TLS: mutual, Senders: []mllp.SenderRule{{Applications: any1, Facilities: any1}}},
		"Server.Senders[1] has no applications":          {TLS: mutual, Senders: append(named, mllp.SenderRule{CommonName: "x", Facilities: any1})},
		"Server.Senders[0] has no facilities":            {TLS: mutual, Senders: []mllp.SenderRule{{CommonName: "x", Applications: any1, Facilities: []string{""}}}},
		"Server.Senders[0] spki":                         {TLS: mutual, Senders: []mllp.SenderRule{{SPKI: "sha256/AAAA", Applications: any1, Facilities: any1}}},
		"Server.Senders[0] has no spki, but with verify": {TLS: pinned, Senders: named},
		"Server.Senders is set, but clients are not":     {Senders: named},
		"Server.RecheckClients is set":                   {RecheckClients: true},
	} {
		srv.Handler = h
		assert.ErrorContains(t, srv.Validate(), want)
	}
	assert.NoError(t, (&mllp.Server{Handler: h, TLS: mutual, Senders: named, RecheckClients: true}).Validate())
}

func TestSettingsOfAccessHaveAFormInConfigurations(t *testing.T) {
	var cfg struct {
		Allow   mllp.Prefixes
		Senders []mllp.SenderRule
	}
	require.NoError(t, json.Unmarshal([]byte(`{"allow": ["10.0.0.0/8", "192.0.2.7"],
		"senders": [{"dnsName": "lab.example.org", "applications": ["LAB"], "facilities": ["*"]}]}`), &cfg))
	assert.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32")}, []netip.Prefix(cfg.Allow))
	assert.Equal(t, []mllp.SenderRule{{DNSName: "lab.example.org", Applications: []string{"LAB"}, Facilities: []string{"*"}}}, cfg.Senders)
}
