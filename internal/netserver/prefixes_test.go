package netserver_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/netserver"
)

func TestPrefixesHoldTheAddressesOfTheirRanges(t *testing.T) {
	ps, err := netserver.ParsePrefixes("10.1.0.0/16, 192.0.2.7 2001:db8::/32\n::1,::ffff:172.16.0.0/108 ::ffff:198.51.100.9")
	require.NoError(t, err)
	assert.Equal(t, "10.1.0.0/16, 192.0.2.7, 2001:db8::/32, ::1, 172.16.0.0/12, 198.51.100.9", ps.String())
	for addr, want := range map[string]bool{
		"10.1.255.255": true, "10.2.0.0": false, "192.0.2.7": true, "192.0.2.8": false, "172.31.0.1": true, "198.51.100.9": true,
		"::ffff:10.1.2.3": true, "::ffff:10.2.2.3": false, "2001:db8:ffff::1": true, "2001:db8:ffff::1%eth0": true, "2001:db9::": false, "::1": true, "::2": false,
	} {
		assert.Equal(t, want, ps.Contains(netip.MustParseAddr(addr)), addr)
	}
	assert.False(t, ps.Contains(netip.Addr{}))
	everything := netserver.Prefixes{netip.MustParsePrefix("::/0")}
	assert.False(t, everything.Contains(netip.MustParseAddr("::ffff:10.0.0.1")), "an IPv4 address is in no IPv6 range")
}

func TestPrefixesAsAProgramWritesThemAreMadeCanonical(t *testing.T) {
	ps, err := netserver.Prefixes{netip.MustParsePrefix("::ffff:10.0.0.0/104")}.Canonical()
	require.NoError(t, err)
	assert.True(t, ps.Contains(netip.MustParseAddr("10.9.9.9")))
	_, err = netserver.Prefixes{netip.MustParsePrefix("10.0.0.1/8")}.Canonical()
	assert.ErrorContains(t, err, "write 10.0.0.0/8, or 10.0.0.1 for the one address")
	_, err = netserver.Prefixes{netip.MustParsePrefix("::ffff:10.0.0.0/80")}.Canonical()
	assert.ErrorContains(t, err, "bits set behind its length")
	_, err = netserver.Prefixes{{}}.Canonical()
	assert.ErrorContains(t, err, "not a range")
}

func TestPrefixesHaveTheFormsOfConfigurations(t *testing.T) {
	want := netserver.Prefixes{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::7/128")}
	for _, in := range []string{`["10.0.0.0/8","2001:db8::7"]`, `"10.0.0.0/8, 2001:db8::7"`} {
		var ps netserver.Prefixes
		require.NoError(t, json.Unmarshal([]byte(in), &ps))
		assert.Equal(t, want, ps)
		require.NoError(t, ps.UnmarshalYAML(func(v any) error { return json.Unmarshal([]byte(in), v) }))
		assert.Equal(t, want, ps)
	}
	out, err := json.Marshal(want)
	require.NoError(t, err)
	assert.JSONEq(t, `["10.0.0.0/8","2001:db8::7"]`, string(out))
	texts, err := want.MarshalYAML()
	require.NoError(t, err)
	assert.Equal(t, []string{"10.0.0.0/8", "2001:db8::7"}, texts)
	for in, message := range map[string]string{
		`["10.0.0.0/33"]`: "neither an IP address nor a range", `["lab.example.org"]`: "neither", `["fe80::1%eth0"]`: "neither",
		`["10.0.0.1/8"]`: "bits set", `[7]`: "ranges of addresses", `{}`: "ranges of addresses",
	} {
		var ps netserver.Prefixes
		assert.ErrorContains(t, json.Unmarshal([]byte(in), &ps), message)
		assert.Nil(t, ps)
	}
}

// FuzzPrefixes: what is read is the same when it is written and read again, and
// holds its own addresses.
func FuzzPrefixes(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "::ffff:10.0.0.1", "::/0,0.0.0.0/0", "2001:db8::/32 ::1", "1.2.3.4/33", "::ffff:0:0/96"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		ps, err := netserver.ParsePrefixes(in)
		if err != nil {
			assert.Nil(t, ps)
			return
		}
		again, err := netserver.ParsePrefixes(ps.String())
		require.NoError(t, err)
		assert.Equal(t, ps, again)
		canonical, err := ps.Canonical()
		require.NoError(t, err)
		assert.ElementsMatch(t, ps, canonical)
		for _, p := range ps {
			assert.True(t, ps.Contains(p.Addr()), "%s", p)
		}
	})
}
