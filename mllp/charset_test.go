package mllp_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

func TestNamesOfCharacterSets(t *testing.T) {
	for name, want := range map[string]mllp.Charset{
		"": mllp.CharsetAuto, "auto": mllp.CharsetAuto, "RAW": mllp.CharsetRaw,
		"ASCII": mllp.CharsetASCII, "us-ascii": mllp.CharsetASCII, "ISO IR6": mllp.CharsetASCII,
		"UNICODE UTF-8": mllp.CharsetUTF8, "UTF-8": mllp.CharsetUTF8, "utf8": mllp.CharsetUTF8, "UNICODE": mllp.CharsetUTF8, "ISO_IR 192": mllp.CharsetUTF8,
		"8859/1": mllp.CharsetLatin1, "ISO-8859-1": mllp.CharsetLatin1, "iso8859_1": mllp.CharsetLatin1, "latin1": mllp.CharsetLatin1, "ISO_IR 100": mllp.CharsetLatin1,
		"8859/2": "8859/2", "8859/9": "8859/9", "latin5": "8859/9", "8859/15": "8859/15", "ISO-8859-15": "8859/15",
		"ISO IR14": "ISO IR14", "ISO IR87": "ISO IR87", "ISO IR159": "ISO IR159", "GB 18030-2000": "GB 18030-2000",
		"KS X 1001": "KS X 1001", "CNS 11643-1992": "CNS 11643-1992", "BIG-5": "BIG-5", "UNICODE UTF-16": "UNICODE UTF-16", "UNICODE UTF-32": "UNICODE UTF-32",
	} {
		got, err := mllp.ParseCharset(name)
		require.NoError(t, err, name)
		assert.Equal(t, want, got, name)
		again, err := mllp.ParseCharset(string(got))
		require.NoError(t, err)
		assert.Equal(t, got, again, "its own name is one")
		var c mllp.Charset
		require.NoError(t, c.UnmarshalText([]byte(name)))
		assert.Equal(t, want, c)
	}
	for _, name := range []string{"8859/16", "8859/0", "windows-1252", "-", "8859", strings.Repeat("a", 100)} {
		_, err := mllp.ParseCharset(name)
		require.ErrorIs(t, err, mllp.ErrUnknownCharset, name)
	}
	assert.ErrorIs(t, new(mllp.Charset).UnmarshalText([]byte("x")), mllp.ErrUnknownCharset)
}

func TestTheCharacterSetOfAMessage(t *testing.T) {
	for field, want := range map[string]mllp.Charset{
		"": mllp.CharsetASCII, "8859/1": mllp.CharsetLatin1, "UNICODE UTF-8": mllp.CharsetUTF8,
		"8859/5~ISO IR87": "8859/5", "~ISO IR87": mllp.CharsetASCII, "klingon": "", "raw": "", "auto": "",
	} {
		var h mllp.Header
		require.NoError(t, h.Parse([]byte("MSH|^~\\&|A|B|C|D|2026||ADT|1|P|2.5||||||"+field+"\r")))
		got, err := mllp.CharsetAuto.For(&h)
		assert.Equal(t, want, got, field)
		assert.Equal(t, want == "", err != nil)
		got, err = mllp.CharsetLatin1.For(&h)
		require.NoError(t, err)
		assert.Equal(t, mllp.CharsetLatin1, got, "what is configured wins")
	}
	got, err := mllp.CharsetAuto.For(new(mllp.Header))
	require.NoError(t, err)
	assert.Equal(t, mllp.CharsetASCII, got)
}

// upperHalves are the SHA-256 of the characters of bytes A0 to FF hex, as UTF-8, and
// with U+FFFD for those that have none, as the codecs of Python 3 have them.
var upperHalves = map[mllp.Charset]string{
	"8859/1":  "396a9017bb7885210c5f7f9e9443f8af859bcbeef1d98b66e2292ca76443b5d3",
	"8859/2":  "aaed73db770d4de5030b44c95f1306b83197f0e4eb7fd9de97936329a7e469db",
	"8859/3":  "aa939abbb30a1f95f55a0bd2ab1d71f3fe760c0758abb1f1f4dba56772a89248",
	"8859/4":  "ad57a5f8dc32241a4108e83514f6ac017cfe4dcbc8119830d69aeed460064b9f",
	"8859/5":  "f4f9a71be354cd1235b037abbb440ed9403b409bb5eaca25b62d988717a2f12c",
	"8859/6":  "b2f632a10c3e1dbae56d0e9ef1797ec5d7941c72b59c6482d552efcf85a70bc6",
	"8859/7":  "6df86c3dd8c280de5b43b52b3960eff96670fc3cbd12f79b2eaa93d1fbaa2360",
	"8859/8":  "4a612df3ab63540ee8c75ac8d9d42bae859b78936c194d95ed91fdb755936f91",
	"8859/9":  "235aba5aa7b8c3a5d108b786697aac4ec90cc87e64fd913d9a5805331526c137",
	"8859/15": "74a41d7a8adedb7d700b57b1e337d59c7215d20b2464ec31dba0011e8428bb6c",
}

func TestThePartsOfISO8859AreWhatOthersTakeThemFor(t *testing.T) {
	for set, want := range upperHalves {
		var all strings.Builder
		for b := range 256 {
			text, err := set.Decode([]byte{byte(b)})
			if b >= 0xA0 {
				if err != nil {
					text = "\uFFFD"
				}
				all.WriteString(text)
			}
			if err != nil {
				require.ErrorIs(t, err, mllp.ErrCharset)
				continue
			}
			back, err := set.Encode([]byte("x"), text, 0)
			require.NoError(t, err)
			assert.Equal(t, []byte{'x', byte(b)}, back)
		}
		sum := sha256.Sum256([]byte(all.String()))
		assert.Equal(t, want, hex.EncodeToString(sum[:]), set)
	}
}

func TestDecodingAndEncoding(t *testing.T) {
	for _, tc := range []struct {
		set   mllp.Charset
		bytes string
		text  string
	}{
		{mllp.CharsetLatin1, "M\xfcller", "Müller"},
		{mllp.CharsetUTF8, "Müller \uFFFD €", "Müller \uFFFD €"},
		{mllp.CharsetASCII, "Muller\r|^~\\&", "Muller\r|^~\\&"},
		{mllp.CharsetRaw, "\xff\x1b", "\xff\x1b"},
		{"8859/5", "\xb4\xd0", "Да"},
		{"8859/15", "\xa4", "€"},
	} {
		text, err := tc.set.Decode([]byte(tc.bytes))
		require.NoError(t, err)
		assert.Equal(t, tc.text, text)
		back, err := tc.set.Encode(nil, tc.text, 0)
		require.NoError(t, err)
		assert.Equal(t, tc.bytes, string(back))
	}
	for set, bytes := range map[mllp.Charset]string{
		mllp.CharsetASCII: "a\xfc", mllp.CharsetUTF8: "a\xfc", mllp.CharsetLatin1: "a\x1b$B", "8859/3": "a\xa5", "BIG-5": "a", mllp.CharsetAuto: "a",
	} {
		text, err := set.Decode([]byte(bytes))
		assert.Empty(t, text)
		require.ErrorIs(t, err, mllp.ErrCharset, set)
	}
	for set, text := range map[mllp.Charset]string{
		mllp.CharsetASCII: "Müller", mllp.CharsetLatin1: "Да", mllp.CharsetUTF8: "a\xff", "8859/3": "\uFFFD", "BIG-5": "a", mllp.CharsetAuto: "a", "8859/2": "\x1b",
	} {
		out, err := set.Encode([]byte("kept"), text, 0)
		require.ErrorIs(t, err, mllp.ErrCharset, set)
		assert.Equal(t, "kept", string(out))
		assert.NotContains(t, err.Error(), "M")
	}
	out, err := mllp.CharsetASCII.Encode(nil, "Müller \xff Да", '?')
	require.NoError(t, err)
	assert.Equal(t, "M?ller ? ??", string(out))
}

func TestAnUnknownCharacterSetIsToldAndTheBytesAreDelivered(t *testing.T) {
	const text = "MSH|^~\\&|A|B|C|D|20260101||ADT^A01|id1|P|2.5||||||klingon\rPID|\xff\xfe\r"
	known := strings.Replace(text, "klingon", "UNICODE UTF-8", 1)
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, &mllp.Server{})
		c := s.call()
		c.say(frame(text) + frame(known))
		answer := c.rawAnswer()
		assert.Contains(t, answer, "||||||klingon\rMSA|AA|id1\r", "the acknowledgement is in the message's set")
		assert.Contains(t, c.rawAnswer(), "||||||UNICODE UTF-8\rMSA|AA|id1\r")
		synctest.Wait()
		assert.Equal(t, []string{text, known}, s.delivered())
		assert.Equal(t, []string{"tolerated unknown_charset"}, s.told())
		assert.NotContains(t, s.log.String(), "klingon")
	})
}

// FuzzCharset: what Decode returns, Encode makes the same bytes of.
func FuzzCharset(f *testing.F) {
	for _, name := range []string{"ASCII", "UTF-8", "8859/1", "8859/7", "8859/15", "BIG-5", "raw", "", "\xff", "iso-8859-8"} {
		f.Add(name, []byte("M\xfcller Да \x1b$B\x80\xa0\xff\xef\xbf\xbd"))
		f.Add(name, []byte("\xa4\x00\r|"))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		set, err := mllp.ParseCharset(name)
		if err != nil {
			return
		}
		text, err := set.Decode(data)
		if err != nil {
			require.Empty(t, text)
			return
		}
		back, err := set.Encode(nil, text, 0)
		require.NoError(t, err)
		require.Equal(t, string(data), string(back))
		replaced, err := set.Encode(nil, string(data), '?')
		if err == nil && set != mllp.CharsetRaw {
			_, err = set.Decode(replaced)
			require.NoError(t, err, "with a replacement, what is encoded can be decoded")
		}
	})
}
