package keystore_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

// What a program that migrates from Mirth does.
func TestAMirthStoreGivesItsCertificateAndItsMessageKey(t *testing.T) {
	s := opened(t, "mirth.jks", keystore.Options{Password: "KqVh3TtYwR8a", KeyPassword: "Zx81mPnLcD0e"})
	assert.Equal(t, keystore.FormatJCEKS, s.Format)
	cert, err := s.TLSCertificate("") // there is one private key
	require.NoError(t, err)
	assert.Equal(t, "rsa", cert.Leaf.Subject.CommonName)
	e, err := s.Entry("Encryption")
	require.NoError(t, err)
	assert.Equal(t, keystore.SecretKey, e.Kind)
	assert.Equal(t, "AES", e.Algorithm)
	assert.Equal(t, "PBEWithMD5AndTripleDES", e.SealAlgorithm)
	assert.False(t, e.Created.IsZero())
	key, err := e.SecretKey()
	require.NoError(t, err)
	assert.Len(t, key, 16)
	_, err = e.PKCS8()
	assert.ErrorIs(t, err, keystore.ErrNoSuchAlias, "it is no private key")

	var out bytes.Buffer
	require.NoError(t, s.WritePEM(&out, keystore.PEMOptions{}))
	assert.Equal(t, 1, strings.Count(out.String(), "BEGIN PRIVATE KEY"))
	assert.Equal(t, 3, strings.Count(out.String(), "BEGIN CERTIFICATE"))
	assert.NotContains(t, out.String(), "encryption")
}

// javaText is a string of a Java object stream.
func javaText(s string) []byte { return join([]byte{0x74}, utf(s)) }

// sealedStream is a serialized SealedObject of a class, whose classes above are
// in super.
func sealedStream(class string, super, values []byte) []byte {
	desc := func(name string, fields []byte) []byte {
		return join([]byte{0x72}, utf(name), make([]byte, 8), []byte{2}, fields, []byte{0x78})
	}
	if super == nil {
		super = join(desc("javax.crypto.SealedObject", sealedFields), []byte{0x70})
	}
	return join([]byte{0xac, 0xed, 0, 5, 0x73}, desc(class, u2(0)), super, values)
}

const keyProtector = "com.sun.crypto.provider.SealedObjectForKeyProtector"

// sealedFields are the four fields of a SealedObject.
var sealedFields = join(u2(4),
	[]byte("["), utf("encodedParams"), javaText("[B"),
	[]byte("["), utf("encryptedContent"), []byte{0x71}, u4(0x7e0002), // the same string
	[]byte("L"), utf("paramsAlg"), javaText("Ljava/lang/String;"),
	[]byte("L"), utf("sealAlg"), []byte{0x71}, u4(0x7e0003))

func byteArray(b []byte) []byte {
	return join([]byte{0x75, 0x72}, utf("[B"), make([]byte, 8), []byte{2, 0, 0, 0x78, 0x70}, block(b))
}

func sealedValues(tb testing.TB, iterations int, content []byte) []byte {
	tb.Helper()
	params := marshal(tb, pbeParameters{[]byte("saltSALT"), iterations})
	return join(byteArray(params), byteArray(content), javaText("PBEWithMD5AndTripleDES"), javaText("PBEWithMD5AndTripleDES"))
}

func secretEntry(stream []byte) []byte { return join(entryHeader(3, "secret"), stream) }

func openSecret(stream []byte) (*keystore.Store, error) {
	return keystore.Open(javaStore{magic: magicJCEKS, entries: [][]byte{secretEntry(stream), trustedEntry("after", []byte{0x30, 0})}}.bytes(), noPassword)
}

func TestASecretKeyIsFoundInAnObjectStream(t *testing.T) {
	inner := join([]byte{0xac, 0xed, 0, 5, 0x73, 0x72}, utf("javax.crypto.spec.SecretKeySpec"), make([]byte, 8), []byte{2}, u2(2),
		[]byte("L"), utf("algorithm"), javaText("Ljava/lang/String;"), []byte("["), utf("key"), javaText("[B"), []byte{0x78, 0x70},
		javaText("AES"), byteArray([]byte("0123456789abcdef")))
	content := jceksSeal(t, inner, "", []byte("saltSALT"), 20)
	s, err := openSecret(sealedStream(keyProtector, nil, sealedValues(t, 20, content)))
	require.NoError(t, err)
	assert.Equal(t, []string{"secret: secret AES " + hexOf([]byte("0123456789abcdef")), "after: trusted unknown"}, describe(t, s))
}

// Nothing in an object stream is instantiated, and it is walked within bounds.
func TestAHostileObjectStreamIsAnErrorAndNoMore(t *testing.T) {
	content := make([]byte, 48)
	values := sealedValues(t, 20, content)
	deep := func(n int) []byte {
		var super []byte
		for range n {
			super = append(super, join([]byte{0x72}, utf("x"), make([]byte, 8), []byte{2, 0, 0, 0x78})...)
		}
		return append(super, 0x70)
	}
	annotated := func(depth int) []byte { // objects within annotations of classes
		var out []byte
		for range depth {
			out = append(out, join([]byte{0x73, 0x72}, utf("x"), make([]byte, 8), []byte{2, 0, 0})...)
		}
		return out
	}
	for name, stream := range map[string][]byte{
		"no magic":                   {1, 2, 3, 4, 5, 6, 7, 8},
		"null":                       {0xac, 0xed, 0, 5, 0x70},
		"a string":                   join([]byte{0xac, 0xed, 0, 5}, javaText("x")),
		"a long string":              join([]byte{0xac, 0xed, 0, 5, 0x7c}, make([]byte, 8)),
		"a proxy class":              join([]byte{0xac, 0xed, 0, 5, 0x73, 0x7d}, u4(1), utf("java.lang.Runnable")),
		"a reference to nothing":     join([]byte{0xac, 0xed, 0, 5, 0x71}, u4(0x7e0000)),
		"a reference below":          join([]byte{0xac, 0xed, 0, 5, 0x71}, u4(0x7dffff)),
		"a reference far above":      join([]byte{0xac, 0xed, 0, 5, 0x71}, u4(0xffffffff)),
		"17 super classes":           sealedStream(keyProtector, deep(17), values),
		"20,000 super classes":       sealedStream(keyProtector, deep(20_000), values),
		"a class above itself":       sealedStream(keyProtector, join([]byte{0x71}, u4(0x7e0000)), values),
		"an array of 2 GiB":          sealedStream(keyProtector, nil, join(byteArray(nil)[:22-4], u4(0x7fffffff))),
		"an array of -1":             sealedStream(keyProtector, nil, join(byteArray(nil)[:22-4], u4(0xffffffff))),
		"an array of objects":        sealedStream(keyProtector, nil, join([]byte{0x75, 0x72}, utf("[Ljava.lang.Object;"), make([]byte, 8), []byte{2, 0, 0, 0x78, 0x70}, u4(1<<30))),
		"10,000 nested annotations":  join([]byte{0xac, 0xed, 0, 5}, annotated(10_000)),
		"65,535 fields":              join([]byte{0xac, 0xed, 0, 5, 0x73, 0x72}, utf("x"), make([]byte, 8), []byte{2}, u2(65_535), bytes.Repeat(join([]byte("B"), utf("")), 65_535)),
		"a field of an unknown type": join([]byte{0xac, 0xed, 0, 5, 0x73, 0x72}, utf("x"), make([]byte, 8), []byte{2}, u2(1), []byte("V"), utf("")),
		"an externalizable class":    join([]byte{0xac, 0xed, 0, 5, 0x73, 0x72}, utf("x"), make([]byte, 8), []byte{12, 0, 0, 0x78, 0x70}),
		"parameters that are none":   sealedStream(keyProtector, nil, join(byteArray([]byte{1}), byteArray(content), javaText("PBEWithMD5AndTripleDES"), javaText("PBEWithMD5AndTripleDES"))),
		"content of 7 bytes":         sealedStream(keyProtector, nil, sealedValues(t, 20, content[:7])),
		"no iterations":              sealedStream(keyProtector, nil, sealedValues(t, 0, content)),
	} {
		_, err := openSecret(stream)
		var limit *keystore.LimitError
		assert.True(t, isFormat(err) || assert.ErrorAs(t, err, &limit), "%s: %v", name, err)
	}
	// The control, and what concerns the entry alone.
	for class, want := range map[string]string{keyProtector: "incorrect password", "java.util.HashMap": `the class "java.util.HashMap"`} {
		s, err := openSecret(sealedStream(class, nil, values))
		require.NoError(t, err, class)
		require.Len(t, s.Entries, 2)
		assert.ErrorContains(t, s.Entries[0].Err, want)
	}
	s, err := openSecret(sealedStream(keyProtector, nil, join(byteArray(nil), byteArray(nil), javaText("x"), javaText("AES"))))
	require.NoError(t, err)
	assert.ErrorContains(t, s.Entries[0].Err, `"AES"`)
	assert.Equal(t, uint32(magicJCEKS), binary.BigEndian.Uint32(golden(t, "stores/mirth.jks")))
}
