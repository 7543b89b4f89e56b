package keystore_test

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

// noPassword opens what the builders make with the empty password.
var noPassword keystore.Options

func openJava(tb testing.TB, s javaStore) *keystore.Store {
	tb.Helper()
	store, err := keystore.Open(s.bytes(), noPassword)
	require.NoError(tb, err)
	return store
}

func TestVersionOneHasNoTypesOfCertificates(t *testing.T) {
	key := join(entryHeader(1, "k"), block(jksProtect(t, pki(t, "rsa.key"), "")), u4(2), block(pki(t, "rsa.crt")), block(pki(t, "int.crt")))
	ca := join(entryHeader(2, "ca"), block(pki(t, "root.crt")))
	for _, magic := range []uint32{magicJKS, magicJCEKS} {
		s := openJava(t, javaStore{magic: magic, version: 1, entries: [][]byte{key, ca}})
		assert.Equal(t, []string{"k: key rsa rsa int", "ca: trusted root"}, describe(t, s))
	}
}

func TestOtherVersionsAreRefused(t *testing.T) {
	for _, version := range []uint32{3, math.MaxUint32} {
		_, err := keystore.Open(javaStore{version: version}.bytes(), noPassword)
		require.ErrorIs(t, err, keystore.ErrFormat)
		assert.EqualError(t, err, fmt.Sprintf("keystore: malformed: version %d of JKS: 1 and 2 exist", version))
	}
	zero := javaStore{}.bytes()
	zero[7] = 0
	_, err := keystore.Open(zero, noPassword)
	assert.ErrorContains(t, err, "version 0 of JKS")
}

// The JDK takes such a file for an empty store.
func TestANegativeCountIsRefused(t *testing.T) {
	for _, count := range []int{-1, math.MinInt32} {
		_, err := keystore.Open(javaStore{count: count}.bytes(), noPassword)
		assert.EqualError(t, err, "keystore: malformed: a negative count of entries")
	}
}

func TestATagThatTheFormatDoesNotHaveIsRefused(t *testing.T) {
	for _, c := range []struct{ magic, tag uint32 }{{magicJKS, 0}, {magicJKS, 3}, {magicJKS, 4}, {magicJCEKS, 0}, {magicJCEKS, 4}, {magicJCEKS, math.MaxUint32}} {
		_, err := keystore.Open(javaStore{magic: c.magic, entries: [][]byte{join(entryHeader(c.tag, "a"), make([]byte, 40))}}.bytes(), noPassword)
		require.ErrorIs(t, err, keystore.ErrFormat)
		assert.ErrorContains(t, err, fmt.Sprintf("an entry of type %d in a J", c.tag))
	}
}

func TestACertificateThatIsNotX509ConcernsItsEntryAlone(t *testing.T) {
	der := pki(t, "root.crt")
	typed := func(alias, kind string) []byte { return join(entryHeader(2, alias), utf(kind), block(der)) }
	s := openJava(t, javaStore{entries: [][]byte{typed("a", "X.509"), typed("b", "X509"), typed("c", "PGP")}})
	assert.Equal(t, []string{"a: trusted root", "b: trusted root", "c: trusted"}, describe(t, s))
	e, err := s.Entry("c")
	require.NoError(t, err)
	assert.ErrorContains(t, e.Err, `"c" has a certificate of the kind "PGP", which is not X.509`)
	assert.Len(t, s.Roots(), 2)
}

// JDK 17 writes NULL parameters into the AlgorithmIdentifier of a JKS key, later
// ones none.
func TestAJKSKeyNeedsNoParameters(t *testing.T) {
	protected := jksProtect(t, pki(t, "ec256.key"), "")
	var info encryptedKey
	_, err := asn1.Unmarshal(protected, &info)
	require.NoError(t, err)
	without := marshal(t, encryptedKey{algorithm{OID: jksProtector}, info.Data})
	require.Len(t, without, len(protected)-2)
	for _, der := range [][]byte{protected, without} {
		s := openJava(t, javaStore{entries: [][]byte{keyEntry("k", der, pki(t, "ec256.crt"))}})
		assert.Equal(t, []string{"k: key ec256 ec256"}, describe(t, s))
	}
}

func TestAChainMayBeEmpty(t *testing.T) {
	s := openJava(t, javaStore{entries: [][]byte{keyEntry("k", jksProtect(t, pki(t, "ec256.key"), ""))}})
	assert.Equal(t, []string{"k: key ec256"}, describe(t, s))
	_, err := s.TLSCertificate("")
	assert.ErrorIs(t, err, keystore.ErrNoSuchAlias)
	assert.ErrorContains(t, err, `the key "k" has no certificate`)
}

func TestAliasesAreReadAsJavaWritesThem(t *testing.T) {
	long := strings.Repeat("a", 65_535)
	for encoded, want := range map[string]string{
		"":                                "",
		"\xc3\xbc\xe9\x8d\xb5":            "ü鍵",
		"\xed\xa0\xbd\xed\xb4\x91":        "🔑", // a pair of surrogates, three bytes each
		"a\xc0\x80b":                      "a\x00b",
		"\xed\xa0\xbd":                    "\ufffd", // half of a pair
		"x\xff\xfey":                      "x\ufffd\ufffdy",
		"\xe9\x8d":                        "\ufffd\ufffd",
		"\xc3":                            "\ufffd",
		"UPPER":                           "UPPER",
		long:                              long,
		"with spaces \n and \x1b[31m red": "with spaces \n and \x1b[31m red",
	} {
		s := openJava(t, javaStore{entries: [][]byte{trustedEntry(encoded, pki(t, "root.crt"))}})
		require.Len(t, s.Entries, 1)
		assert.Equal(t, want, s.Entries[0].Alias)
	}
}

func TestAnAliasIsFoundInAnyCase(t *testing.T) {
	root, other := pki(t, "root.crt"), pki(t, "other.crt")
	s := openJava(t, javaStore{entries: [][]byte{trustedEntry("GRÜN", root)}})
	for _, alias := range []string{"GRÜN", "grün", "Grün"} {
		e, err := s.Entry(alias)
		require.NoError(t, err)
		assert.Equal(t, "GRÜN", e.Alias, "as it is in the file")
	}
	_, err := s.Entry("gruen")
	assert.ErrorIs(t, err, keystore.ErrNoSuchAlias)

	s = openJava(t, javaStore{entries: [][]byte{trustedEntry("CA", root), trustedEntry("ca", other)}})
	assert.Len(t, s.Entries, 2, "another case is another entry")
	for alias, want := range map[string][]byte{"CA": root, "ca": other, "Ca": other} {
		e, err := s.Entry(alias)
		require.NoError(t, err)
		assert.Equal(t, want, e.Chain[0], alias)
	}
}

func TestOfTwoEntriesWithOneAliasTheLastIsTaken(t *testing.T) {
	s := openJava(t, javaStore{entries: [][]byte{trustedEntry("ca", pki(t, "root.crt")), trustedEntry("x", pki(t, "int.crt")), trustedEntry("ca", pki(t, "other.crt"))}})
	assert.Equal(t, []string{"x: trusted int", "ca: trusted other"}, describe(t, s))
	assert.Contains(t, s.Warnings(), `the alias "ca" occurs twice: the last one is taken`)
}

func TestBytesAfterTheEndAreAWarningUnlessStrict(t *testing.T) {
	for name, data := range map[string][]byte{
		"JKS":     javaStore{entries: [][]byte{trustedEntry("ca", pki(t, "root.crt"))}, after: []byte("\r\n")}.bytes(),
		"PKCS#12": join(pfx(t, safe(t, certBag(t, pki(t, "root.crt"), bagAttributes{}))), []byte{0, 0}),
	} {
		s, err := keystore.Open(data, noPassword)
		require.NoError(t, err, name)
		assert.Contains(t, s.Warnings(), "2 bytes after the end of the store are ignored", name)
		_, err = keystore.Open(data, keystore.Options{Strict: true})
		assert.ErrorIs(t, err, keystore.ErrFormat, name)
		_, err = keystore.Open(data[:len(data)-2], keystore.Options{Strict: true})
		assert.NoError(t, err, name)
	}
}

func TestAKeyOfJCEKSIsNoneOfJKSButTheOtherWayAboutItIs(t *testing.T) {
	key, cert := pki(t, "ec256.key"), pki(t, "ec256.crt")
	salt := []byte("saltSALT")
	sealed := jceksProtected(t, salt, 20, jceksSeal(t, key, "", salt, 20))
	_, err := keystore.Open(javaStore{entries: [][]byte{keyEntry("k", sealed, cert)}}.bytes(), noPassword)
	assert.EqualError(t, err, `keystore: malformed: the key "k" is encrypted as in JCEKS, in a JKS file`)
	for _, der := range [][]byte{sealed, jksProtect(t, key, "")} {
		s := openJava(t, javaStore{magic: magicJCEKS, entries: [][]byte{keyEntry("k", der, cert)}})
		assert.Equal(t, []string{"k: key ec256 ec256"}, describe(t, s))
	}
	other := marshal(t, encryptedKey{algorithm{OID: oid(1, 2, 3)}, make([]byte, 48)})
	s := openJava(t, javaStore{entries: [][]byte{keyEntry("k", other, cert), trustedEntry("ca", cert)}})
	var unsupported *keystore.UnsupportedAlgorithmError
	require.ErrorAs(t, s.Entries[0].Err, &unsupported)
	assert.Equal(t, "1.2.3", unsupported.OID)
}

// Where the halves of the salt are equal, the derivation reverses the first of
// them. JDKs before 1.4.2 did that wrong.
func TestASaltOfEqualHalvesIsReversedInBothWays(t *testing.T) {
	key := pki(t, "ec256.key")
	for name, effective := range map[string]string{"right": "dcbaabcd", "old": "dabdabcd"} {
		sealed := jceksProtected(t, []byte("abcdabcd"), 20, jceksSeal(t, key, "", []byte(effective), 20))
		s := openJava(t, javaStore{magic: magicJCEKS, entries: [][]byte{keyEntry("k", sealed)}})
		assert.Equal(t, []string{"k: key ec256"}, describe(t, s), name)
	}
	sealed := jceksProtected(t, []byte("abcdabcd"), 20, jceksSeal(t, key, "", []byte("abcdabcd"), 20))
	s := openJava(t, javaStore{magic: magicJCEKS, entries: [][]byte{keyEntry("k", sealed)}})
	assert.ErrorIs(t, s.Entries[0].Err, keystore.ErrIncorrectPassword, "not reversed at all")
}

// No single bit can be changed without notice: in the key, in a certificate, in
// the digest or anywhere else.
func TestNoChangedBitGoesUnnoticed(t *testing.T) {
	files := []string{"trust.jks", "password-cjk.jks", "trust.pkcs12"}
	for _, file := range files {
		data := golden(t, "stores/"+file)
		o := goldenOptions(file)
		want := describe(t, opened(t, file, o))
		for i := range data {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << (i % 8)
			s, err := keystore.Open(bad, o)
			if err != nil {
				continue
			}
			// What is left are names of algorithms and attributes that mean the same.
			require.Equal(t, want, describe(t, s), "%s byte %d", file, i)
		}
	}
}
