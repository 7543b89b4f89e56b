package dicomtls_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

func TestWhoMayAssociate(t *testing.T) {
	rules := func() *dicomtls.Server {
		return &dicomtls.Server{AETitles: []string{"CAREWIRE", "SECOND"}, CallingAETitles: []string{"TESTER", "CT 1"}}
	}
	for _, c := range []struct {
		name   string
		rq     associateRQ
		hear   string
		reason string
	}{
		{"a known caller", associateRQ{}, "AC 1=0 3=3", ""},
		{"another of our titles", associateRQ{called: "SECOND"}, "AC 1=0 3=3", ""},
		{"titles with spaces before and NULs behind", associateRQ{called: "  SECOND\x00\x00", calling: " CT 1"}, "AC 1=0 3=3", ""},
		{"a title that is not ours", associateRQ{called: "OTHER"}, "RJ 1,1,7", "called_ae"},
		{"another case", associateRQ{called: "carewire"}, "RJ 1,1,7", "called_ae"},
		{"an unknown caller", associateRQ{calling: "OTHER"}, "RJ 1,1,3", "calling_ae"},
		{"a called title of spaces", associateRQ{called: " "}, "RJ 1,1,7", "called_ae"},
		{"a calling title of spaces", associateRQ{calling: " "}, "RJ 1,1,3", "calling_ae"},
		{"a title with a control character", associateRQ{calling: "TEST\nER"}, "RJ 1,1,3", "calling_ae"},
		{"version 2", associateRQ{version: 2}, "RJ 1,2,2", "protocol_version"},
		{"versions 1 and 2", associateRQ{version: 3}, "AC 1=0 3=3", ""},
		{"another application context", associateRQ{application: pduItem(0x10, "1.2.3")}, "RJ 1,1,2", "application_context"},
		{"no application context", associateRQ{application: pduItem(0x77, "")}, "RJ 1,1,2", "application_context"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, rules(), func(t *testing.T, s *site) {
				p := s.call()
				p.say(c.rq.String())
				assert.Equal(t, c.hear, p.hear())
				p.Close()
				synctest.Wait()
				if c.reason != "" {
					e := s.event("rejected " + c.reason)
					assert.Equal(t, "A-ASSOCIATE-"+strings.Replace(c.hear, "RJ ", "RJ(", 1)+")", e.Code)
				}
				assert.Zero(t, s.srv.Associations())
			})
		})
	}
	t.Run("anyone, without rules", func(t *testing.T) {
		in(t, &dicomtls.Server{}, func(t *testing.T, s *site) {
			for _, rq := range []associateRQ{{}, {called: "X"}, {calling: "Y"}} {
				p := s.call()
				p.say(rq.String())
				assert.Equal(t, "AC 1=0 3=3", p.hear())
			}
			p := s.call()
			p.say(associateRQ{calling: " "}.String())
			assert.Equal(t, "RJ 1,1,3", p.hear(), "but with a title")
		})
	})
}

func TestUserInformation(t *testing.T) {
	identity := func(kind, response byte, first, second string) string {
		return pduItem(0x58, string([]byte{kind, response}), be16(len(first)), first, be16(len(second)), second)
	}
	role := func(class string, scu, scp byte) string {
		return pduItem(0x54, be16(len(class)), class, string([]byte{scu, scp}))
	}
	length := pduItem(0x51, be32(16384))
	for _, c := range []struct {
		name string
		user []string
		srv  *dicomtls.Server
		hear string
	}{
		{"none at all", []string{}, nil, "AC 1=0 3=0"},
		{"unknown sub-items", []string{length, pduItem(0x7A, "xyz"), pduItem(0xFF)}, nil, "AC 1=0 3=0"},
		{"a maximum length of 0", []string{pduItem(0x51, be32(0))}, nil, "AC 1=0 3=0"},
		{"a maximum length of 128", []string{pduItem(0x51, be32(128))}, nil, "AC 1=0 3=0"},
		{"a maximum length of 7, which holds nothing", []string{pduItem(0x51, be32(7))}, nil, "ABORT 2,6"},
		{"a maximum length of three bytes", []string{pduItem(0x51, "\x00\x01\x02")}, nil, "ABORT 2,6"},
		{"the last maximum length counts", []string{pduItem(0x51, be32(1)), length}, nil, "AC 1=0 3=0"},
		{"any number of operations, which is not granted", []string{length, pduItem(0x53, "\x00\x00\x00\x00")}, nil, "AC 1=0 3=0"},
		{"any number of operations, of which 4 are granted", []string{length, pduItem(0x53, "\x00\x00\x00\x00")}, &dicomtls.Server{Window: 4}, "AC 1=0 3=0 window=4"},
		{"two operations, which are granted", []string{length, pduItem(0x53, "\x00\x02\x00\x01")}, &dicomtls.Server{Window: 4}, "AC 1=0 3=0 window=2"},
		{"roles of a storage class", []string{length, role(ctImage, 1, 1)}, nil, "AC 1=0 3=0 role=10"},
		{"the SCP role alone", []string{length, role(ctImage, 0, 1)}, nil, "AC 1=0 3=1"},
		{"roles of a class that was not proposed", []string{length, role("1.2.3", 1, 1)}, nil, "AC 1=0 3=0"},
		{"extended negotiation", []string{length, pduItem(0x56, be16(5), "1.2.3", "info"), pduItem(0x57, be16(3), "1.2", be16(3), "1.3", be16(5), be16(3), "1.4")}, nil, "AC 1=0 3=0"},
		{"extended negotiation that is cut off", []string{length, pduItem(0x56, be16(50), "1.2.3")}, nil, "ABORT 2,6"},
		{"an identity that nobody asks for", []string{length, identity(2, 1, "user", "secret")}, nil, "AC 1=0 3=0"},
		{"an identity that is accepted and confirmed", []string{length, identity(2, 1, "alice", "secret")}, authenticating(), `AC 1=0 3=0 identity="hello"`},
		{"an identity that is accepted", []string{length, identity(1, 0, "alice", "")}, authenticating(), "AC 1=0 3=0"},
		{"a JSON web token", []string{length, identity(5, 0, "alice", "")}, authenticating(), "AC 1=0 3=0"},
		{"an identity that is not accepted", []string{length, identity(2, 1, "mallory", "secret")}, authenticating(), "RJ 1,2,1"},
		{"no identity where one is needed", []string{length}, authenticating(), "RJ 1,2,1"},
		{"an identity that makes the callback panic", []string{length, identity(2, 1, "boom", "secret")}, authenticating(), "RJ 1,2,1"},
		{"an identity that is cut off", []string{length, pduItem(0x58, "\x02\x01\x00\x09user")}, nil, "ABORT 2,6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := c.srv
			if srv == nil {
				srv = &dicomtls.Server{}
			}
			srv.Store = newKeeper()
			in(t, srv, func(t *testing.T, s *site) {
				p := s.call()
				user := c.user
				p.say(associateRQ{user: user}.String())
				assert.Equal(t, c.hear, p.hear())
				if strings.HasPrefix(c.hear, "AC") {
					assert.Equal(t, []string{"P 8030 0000 to 1"}, p.talk(pdata(pdv(1, 3, echoRQ(1)))))
				}
				p.Close()
				synctest.Wait()
				assert.Zero(t, srv.Associations())
				assert.NotContains(t, s.logged(), "secret")
				assert.NotContains(t, s.logged(), "mallory")
			})
		})
	}
}

// authenticating is a Server that knows alice.
func authenticating() *dicomtls.Server {
	return &dicomtls.Server{Authenticate: func(_ context.Context, a *dicomtls.AssociationInfo) ([]byte, error) {
		switch {
		case a.Identity == nil:
			return nil, errors.New("who are you?")
		case string(a.Identity.Primary) == "boom":
			panic(string(a.Identity.Secondary))
		case string(a.Identity.Primary) != "alice":
			return nil, fmt.Errorf("mallory with %s", a.Identity.Secondary)
		}
		return []byte("hello"), nil
	}}
}

func TestPrintingAnIdentityShowsNothingOfIt(t *testing.T) {
	u := dicomtls.UserIdentity{Type: dicomtls.IdentityPasscode, Primary: []byte("alice"), Secondary: []byte("secret")}
	for _, text := range []string{fmt.Sprint(u), fmt.Sprint(&u), fmt.Sprintf("%v %+v %#v %s", u, u, u, u), u.LogValue().String()} {
		assert.NotContains(t, text, "alice")
		assert.NotContains(t, text, "secret")
		assert.NotContains(t, text, "115") // the first letter of it
	}
}

func TestResponsesToAPeerWithTinyPDUsAreInPieces(t *testing.T) {
	in(t, &dicomtls.Server{}, func(t *testing.T, s *site) {
		p := s.call()
		p.say(associateRQ{user: []string{pduItem(0x51, be32(17))}}.String())
		require.Equal(t, "AC 1=0 3=3", p.hear())
		p.say(pdata(pdv(1, 3, echoRQ(9))))
		command := ""
		for last := false; !last; {
			kind, b, err := p.next()
			require.NoError(t, err)
			require.EqualValues(t, 4, kind)
			require.LessOrEqual(t, len(b), 17)
			require.Zero(t, len(b)%2, "fragments are even")
			command += b[6:]
			last = b[5]&2 != 0
		}
		assert.Equal(t, le16(9), elements(command)[0x120])
	})
}

func TestTransferSyntaxesAreChosenByTheServersPreference(t *testing.T) {
	srv := &dicomtls.Server{Store: newKeeper(), SOPClasses: map[string][]string{
		ctImage:          {jpegBaseline, explicitLE},
		secondaryCapture: {explicitLE, "*"},
		"1.2.3":          nil,
	}}
	in(t, srv, func(t *testing.T, s *site) {
		p := s.call()
		p.say(associateRQ{contexts: []string{
			proposal(1, ctImage, implicitLE, explicitLE, jpegBaseline),
			proposal(3, ctImage, implicitLE),
			proposal(5, secondaryCapture, "1.2.840.113619.5.2", implicitLE),
			proposal(7, secondaryCapture, implicitLE, explicitLE),
			proposal(9, "1.2.3", "1.2.3.4", implicitLE, explicitLE),
			proposal(11, "1.2.840.10008.5.1.4.1.1.4", implicitLE),
		}}.String())
		kind, b, err := p.next()
		require.NoError(t, err)
		require.EqualValues(t, 2, kind)
		chosen := map[byte]string{}
		items(b[68:], func(kind byte, body string) {
			if kind == 0x21 && body[2] == 0 {
				chosen[body[0]] = body[8:]
			}
		})
		assert.Equal(t, map[byte]string{1: jpegBaseline, 5: "1.2.840.113619.5.2", 7: explicitLE, 9: implicitLE}, chosen)
	})
}

func TestConnectionsFromElsewhereAreClosedWithoutAByte(t *testing.T) {
	srv := &dicomtls.Server{Allow: dicomtls.Prefixes{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")}}
	in(t, srv, func(t *testing.T, s *site) {
		s.associatedFor(t, "AC 1=0 3=3")
		c, err := s.mem.DialFrom(net.IPv4(10, 0, 0, 1))
		require.NoError(t, err)
		stranger := &peer{t, c}
		stranger.say(associateRQ{}.String())
		assert.Contains(t, []string{"end", "reset"}, stranger.hear())
		synctest.Wait()
		assert.Equal(t, 1, s.count("refused address"))
	})
}

// associatedFor makes an association that is answered so.
func (s *site) associatedFor(t *testing.T, answer string) *peer {
	t.Helper()
	p := s.call()
	p.say(associateRQ{}.String())
	require.Equal(t, answer, p.hear())
	return p
}

func TestLimitsOfAssociations(t *testing.T) {
	srv := &dicomtls.Server{MaxAssociations: 4, MaxAssociationsPerAE: 2, MaxAssociationsPerHost: 2}
	in(t, srv, func(t *testing.T, s *site) {
		from := func(host byte, calling, answer string) *peer {
			c, err := s.mem.DialFrom(net.IPv4(10, 0, 0, host))
			require.NoError(t, err)
			p := &peer{t, c}
			t.Cleanup(func() { p.Close() })
			p.say(associateRQ{calling: calling}.String())
			require.Equal(t, answer, p.hear(), "%d %s", host, calling)
			return p
		}
		const yes, no = "AC 1=0 3=3", "RJ 2,3,2"
		first := from(1, "A", yes)
		from(2, "A", yes)
		from(3, "A", no)
		from(1, "B", yes)
		from(1, "C", no)
		from(2, "D", yes)
		from(4, "E", no)
		assert.Equal(t, 4, s.srv.Associations())
		synctest.Wait()
		assert.Equal(t, 1, s.count("rejected too_many_of_ae"))
		assert.Equal(t, 1, s.count("rejected too_many_of_host"))
		assert.Equal(t, 1, s.count("rejected too_many"))
		first.say(releaseRQ)
		require.Equal(t, "release!", first.hear())
		first.Close()
		synctest.Wait()
		from(4, "E", yes)
		require.Equal(t, 4, s.srv.Associations())
	})
	t.Run("every way out gives the place back", func(t *testing.T) {
		in(t, &dicomtls.Server{MaxAssociations: 1, Store: newKeeper()}, func(t *testing.T, s *site) {
			for _, leave := range []func(p *peer){
				func(p *peer) { p.say(releaseRQ); p.hear() },
				func(p *peer) { p.say(abort(0, 0)) },
				func(p *peer) { p.say(pdu(0x99)); p.hear() },
				func(p *peer) { p.say(pdata(pdv(3, 3, storeRQ(1, ctImage, "1.2.3")), pdv(3, 0, someData))) },
				func(*peer) {},
			} {
				p := s.associated()
				leave(p)
				p.Close()
				synctest.Wait()
				require.Zero(t, s.srv.Associations())
			}
		})
	})
	t.Run("far too many connections are closed at once", func(t *testing.T) {
		in(t, &dicomtls.Server{MaxAssociations: 2, MaxAssociationsPerHost: -1}, func(t *testing.T, s *site) {
			for range 4 {
				s.call()
			}
			synctest.Wait()
			assert.Contains(t, []string{"end", "reset"}, s.call().hear())
			synctest.Wait()
			assert.Equal(t, 1, s.count("refused too_many"))
		})
	})
}

func TestSettingsThatCannotBeHonouredAreErrors(t *testing.T) {
	for want, srv := range map[string]*dicomtls.Server{
		"AETitles":             {AETitles: []string{"WAY TOO LONG A TITLE"}},
		"CallingAETitles":      {CallingAETitles: []string{"BACK\\SLASH"}},
		"MaxPDUBytes":          {MaxPDUBytes: 100},
		"CertificateAEs":       {CertificateAEs: map[string][]string{"cn:x": {"A"}}},
		"is not dns:":          {CertificateAEs: map[string][]string{"x": {"A"}}},
		"SOPClasses":           {SOPClasses: map[string][]string{"CT": nil}},
		"of \"1.2\" is no UID": {SOPClasses: map[string][]string{"1.2": {"jpeg"}}},
	} {
		require.ErrorContains(t, srv.Validate(), want)
		assert.ErrorContains(t, srv.ListenAndServe(t.Context()), want)
	}
}
