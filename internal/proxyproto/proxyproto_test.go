package proxyproto_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/proxyproto"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// v2 returns a header of version 2.
func v2(command, family byte, block string) string {
	return signature + string([]byte{command, family, byte(len(block) >> 8), byte(len(block))}) + block
}

// summed returns the header with the right checksum TLV at its end.
func summed(command, family byte, block string) string {
	b := []byte(v2(command, family, block+"\x03\x00\x04\x00\x00\x00\x00"))
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return string(b)
}

const (
	four = "\xc0\x00\x02\x07\xc0\x00\x02\x01\xc0\x00\x0a\x0f"
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\xc0\x00\x0a\x0f"
	noop = "\x04\x00\x02xx" // a TLV without meaning
)

var (
	source4 = netip.MustParseAddrPort("192.0.2.7:49152")
	source6 = netip.MustParseAddrPort("[2001:db8::7]:49152")
	none    netip.AddrPort
)

// good are headers with the client that they name.
var good = map[string]struct {
	header string
	source netip.AddrPort
}{
	"TCP4":               {"PROXY TCP4 192.0.2.7 192.0.2.1 49152 2575\r\n", source4},
	"TCP6":               {"PROXY TCP6 2001:db8::7 2001:db8::1 49152 2575\r\n", source6},
	"TCP6 mapped":        {"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 49152 2575\r\n", netip.MustParseAddrPort("[::ffff:192.0.2.7]:49152")},
	"longest TCP6":       {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", netip.MustParseAddrPort("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")},
	"UNKNOWN":            {"PROXY UNKNOWN\r\n", none},
	"UNKNOWN and more":   {"PROXY UNKNOWN whatever it is\r\n", none},
	"longest UNKNOWN":    {"PROXY UNKNOWN " + strings.Repeat("x", 107-16) + "\r\n", none},
	"2, IPv4":            {v2(0x21, 0x11, four), source4},
	"2, IPv6":            {v2(0x21, 0x21, six), source6},
	"2, TLVs":            {v2(0x21, 0x11, four+noop+"\x01\x00\x02h2"), source4},
	"2, checksum":        {summed(0x21, 0x11, four+noop), source4},
	"2, checksum, IPv6":  {summed(0x21, 0x21, six), source6},
	"2, LOCAL":           {v2(0x20, 0x00, ""), none},
	"2, LOCAL with more": {v2(0x20, 0x11, four+"garbage"), none},
	"2, unspecified":     {v2(0x21, 0x00, noop), none},
	"2, Unix":            {v2(0x21, 0x31, strings.Repeat("/", 216)), none},
	"2, longest":         {v2(0x21, 0x11, four+"\xee\x3f\xf1"+strings.Repeat("x", 16<<10-15)), source4},
}

func TestHeadersOfBothVersionsAreReadToTheirLastByte(t *testing.T) {
	for name, tc := range good {
		t.Run(name, func(t *testing.T) {
			r := strings.NewReader(tc.header + "the rest")
			h, err := proxyproto.Read(r)
			require.NoError(t, err)
			assert.Equal(t, tc.source, h.Source)
			assert.Equal(t, tc.source.IsValid(), h.Destination.IsValid())
			if h.Destination.IsValid() && name != "longest TCP6" {
				assert.EqualValues(t, 2575, h.Destination.Port())
			}
			assert.Equal(t, strings.HasPrefix(tc.header, signature), h.Version == 2)
			rest, err := io.ReadAll(r)
			require.NoError(t, err)
			assert.Equal(t, "the rest", string(rest))
		})
	}
}

// bad are bytes that are no header, with the reason.
var bad = map[string]struct {
	header string
	err    error
}{
	"a message":              {"\x0bMSH|^~\\&|", proxyproto.ErrNoHeader},
	"TLS":                    {"\x16\x03", proxyproto.ErrNoHeader},
	"one wrong byte":         {"PROXX", proxyproto.ErrNoHeader},
	"the other case":         {"proxy TCP4", proxyproto.ErrNoHeader},
	"nearly version 2":       {"\r\n\r\n\x00\r\nQUIT\r", proxyproto.ErrNoHeader},
	"unknown protocol":       {"PROXY TCP5 192.0.2.7 192.0.2.1 1 2\r\n", proxyproto.ErrMalformed},
	"UDP":                    {"PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n", proxyproto.ErrMalformed},
	"a field too few":        {"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n", proxyproto.ErrMalformed},
	"a field too many":       {"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n", proxyproto.ErrMalformed},
	"two spaces":             {"PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n", proxyproto.ErrMalformed},
	"no address":             {"PROXY TCP4 lab.example.org 192.0.2.1 1 2\r\n", proxyproto.ErrMalformed},
	"the other family":       {"PROXY TCP4 2001:db8::7 192.0.2.1 1 2\r\n", proxyproto.ErrMalformed},
	"an old octal":           {"PROXY TCP4 192.0.2.007 192.0.2.1 1 2\r\n", proxyproto.ErrMalformed},
	"a zone":                 {"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", proxyproto.ErrMalformed},
	"port too high":          {"PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n", proxyproto.ErrMalformed},
	"port with zeros":        {"PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n", proxyproto.ErrMalformed},
	"port with a sign":       {"PROXY TCP4 192.0.2.7 192.0.2.1 +1 2\r\n", proxyproto.ErrMalformed},
	"LF alone":               {"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n" + strings.Repeat("x", 107), proxyproto.ErrTooLong},
	"line without end":       {"PROXY UNKNOWN " + strings.Repeat("x", 200), proxyproto.ErrTooLong},
	"the end in the line":    {"PROXY TCP4 192.0.2.7", io.ErrUnexpectedEOF},
	"the end in the start":   {"PRO", io.ErrUnexpectedEOF},
	"nothing":                {"", io.EOF},
	"version 3":              {v2(0x31, 0x11, four), proxyproto.ErrMalformed},
	"unknown command":        {v2(0x22, 0x11, four), proxyproto.ErrMalformed},
	"UDP in version 2":       {v2(0x21, 0x12, four), proxyproto.ErrMalformed},
	"unknown family":         {v2(0x21, 0x41, four), proxyproto.ErrMalformed},
	"addresses cut short":    {v2(0x21, 0x21, four), proxyproto.ErrMalformed},
	"a TLV cut short":        {v2(0x21, 0x11, four+"\x04\x00"), proxyproto.ErrMalformed},
	"a TLV beyond the end":   {v2(0x21, 0x11, four+"\x04\x00\x09xx"), proxyproto.ErrMalformed},
	"a checksum of 3 bytes":  {v2(0x21, 0x11, four+"\x03\x00\x03xxx"), proxyproto.ErrMalformed},
	"a wrong checksum":       {v2(0x21, 0x11, four+"\x03\x00\x04xxxx"), proxyproto.ErrChecksum},
	"a second, wrong one":    {summed(0x21, 0x11, four+"\x03\x00\x04xxxx"), proxyproto.ErrChecksum},
	"too long for us":        {v2(0x21, 0x11, four+strings.Repeat("x", 16<<10)), proxyproto.ErrTooLong},
	"the end in version 2":   {v2(0x21, 0x11, four)[:20], io.ErrUnexpectedEOF},
	"the end before lengths": {signature + "\x21", io.ErrUnexpectedEOF},
}

func TestWhatIsNoHeaderIsRefusedWithTheReason(t *testing.T) {
	for name, tc := range bad {
		t.Run(name, func(t *testing.T) {
			h, err := proxyproto.Read(strings.NewReader(tc.header))
			assert.ErrorIs(t, err, tc.err)
			assert.Zero(t, h)
		})
	}
}

func TestAnotherProtocolIsRefusedAtItsFirstBytes(t *testing.T) {
	r, w := io.Pipe()
	go w.Write([]byte("GE")) // and no more
	_, err := proxyproto.Read(r)
	assert.ErrorIs(t, err, proxyproto.ErrNoHeader)
	r.Close()
}

func TestAnErrorOfTheReaderIsPassedOn(t *testing.T) {
	broken := errors.New("broken")
	for _, cut := range []int{0, 5, 13} {
		_, err := proxyproto.Read(io.MultiReader(strings.NewReader(good["TCP4"].header[:cut]), iotest.ErrReader(broken)))
		assert.ErrorIs(t, err, broken)
	}
}

// FuzzRead: however the bytes arrive the result is the same, and after a header
// not a byte more has been read than belongs to it.
func FuzzRead(f *testing.F) {
	for _, tc := range good {
		f.Add([]byte(tc.header + "\x0bMSH"))
	}
	for _, tc := range bad {
		f.Add([]byte(tc.header))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := bytes.NewReader(in)
		h, err := proxyproto.Read(whole)
		pieces := bytes.NewReader(in)
		again, errAgain := proxyproto.Read(iotest.OneByteReader(pieces))
		assert.Equal(t, h, again)
		assert.Equal(t, err, errAgain)
		if err != nil {
			assert.Zero(t, h)
			return
		}
		used := len(in) - whole.Len()
		assert.Equal(t, whole.Len(), pieces.Len())
		if h.Version == 1 {
			assert.LessOrEqual(t, used, 107)
			assert.True(t, bytes.HasSuffix(in[:used], []byte("\r\n")))
			assert.Equal(t, used-2, bytes.Index(in, []byte("\r\n")))
			return
		}
		assert.Equal(t, used, 16+int(in[14])<<8+int(in[15]))
		assert.LessOrEqual(t, used, 16+16<<10)
	})
}
