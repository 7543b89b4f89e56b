package keystore_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/pbe"
	"github.com/carewire/carewire/keystore"
)

func openPFX(tb testing.TB, data []byte) *keystore.Store {
	tb.Helper()
	s, err := keystore.Open(data, noPassword)
	require.NoError(tb, err)
	return s
}

// named is an attribute set with an alias.
func named(alias string) bagAttributes { return bagAttributes{alias: alias} }

func TestTheCertificateOfAKeyIsNeverFoundByTheOrderOfTheFile(t *testing.T) {
	key, leaf, inter, root, other := pki(t, "ec256.key"), pki(t, "ec256.crt"), pki(t, "int.crt"), pki(t, "root.crt"), pki(t, "other.crt")
	dsa, dsaCert := pki(t, "dsa.key"), pki(t, "dsa.crt") // of which crypto/x509 makes no public key
	none := bagAttributes{}
	id := bagAttributes{localKeyID: "id"}
	for name, c := range map[string]struct {
		bags [][]byte
		want string
	}{
		"by public key":                {[][]byte{certBag(t, root, none), certBag(t, inter, none), certBag(t, leaf, none), keyBag(t, key, none)}, "ec256 ec256 int root"},
		"by public key, not by ID":     {[][]byte{certBag(t, other, id), certBag(t, leaf, none), keyBag(t, key, id)}, "ec256 ec256"},
		"by public key, not by alias":  {[][]byte{certBag(t, other, named("x")), certBag(t, leaf, none), keyBag(t, key, named("x"))}, "ec256 ec256"},
		"by ID, unknown kind":          {[][]byte{certBag(t, other, none), certBag(t, dsaCert, id), keyBag(t, dsa, id)}, "dsa dsa"},
		"by alias, unknown kind":       {[][]byte{certBag(t, other, named("y")), certBag(t, dsaCert, named("x")), keyBag(t, dsa, named("x"))}, "dsa dsa"},
		"ID before alias":              {[][]byte{certBag(t, other, named("x")), certBag(t, dsaCert, id), keyBag(t, dsa, bagAttributes{alias: "x", localKeyID: "id"})}, "dsa dsa"},
		"alias of a trusted one":       {[][]byte{certBag(t, other, bagAttributes{alias: "x", trusted: true}), keyBag(t, dsa, named("x"))}, "dsa"},
		"the only one":                 {[][]byte{certBag(t, dsaCert, none), keyBag(t, dsa, none)}, "dsa dsa"},
		"two to choose from":           {[][]byte{certBag(t, dsaCert, none), certBag(t, other, none), keyBag(t, dsa, none)}, "dsa"},
		"two of this key, one with ID": {[][]byte{certBag(t, pki(t, "expired.crt"), none), certBag(t, leaf, id), keyBag(t, key, id)}, "ec256 ec256"},
	} {
		s := openPFX(t, pfx(t, safe(t, c.bags...)))
		keys := s.PrivateKeys()
		require.Len(t, keys, 1, name)
		s.Entries = keys
		assert.Equal(t, []string{keys[0].Alias + ": key " + c.want}, describe(t, s), name)
	}
	// What the guide's keytool command makes of a key beside trusted certificates.
	s := opened(t, "keyplusca.pkcs12", options)
	cert, err := s.TLSCertificate("server")
	require.NoError(t, err)
	assert.Equal(t, "rsa", cert.Leaf.Subject.CommonName)
	assert.Len(t, cert.Certificate, 3)
}

func TestAChainGoesFromTheLeafToTheRootHoweverTheFileIsSorted(t *testing.T) {
	key := keyBag(t, pki(t, "ec256.key"), bagAttributes{})
	cert := func(name string) []byte { return certBag(t, pki(t, name+".crt"), bagAttributes{}) }
	for _, order := range [][]string{{"ec256", "int", "root"}, {"root", "int", "ec256"}, {"int", "ec256", "root"}, {"root", "ec256", "int", "other"}} {
		var bags [][]byte
		for _, name := range order {
			bags = append(bags, cert(name))
		}
		s := openPFX(t, pfx(t, safe(t, append(bags, key)...)))
		want := []string{"1: key ec256 ec256 int root"}
		if len(order) == 4 {
			want = append(want, "2: cert other") // reported, not appended
		}
		assert.Equal(t, want, describe(t, s))
	}
}

// subjectKeyed is a certificate of no validity with those names and key
// identifiers, in which nothing but the chain is of interest.
func subjectKeyed(tb testing.TB, subject, issuer, ski, aki string) []byte {
	tb.Helper()
	name := func(s string) []byte {
		return sequence(tlv(0x31, sequence(marshal(tb, oid(2, 5, 4, 3)), tlv(0x0c, []byte(s)))))
	}
	var extensions []byte
	if ski != "" {
		extensions = append(extensions, sequence(marshal(tb, oid(2, 5, 29, 14)), octets(octets([]byte(ski))))...)
	}
	if aki != "" {
		extensions = append(extensions, sequence(marshal(tb, oid(2, 5, 29, 35)), octets(sequence(tlv(0x80, []byte(aki)))))...)
	}
	spki := sequence(sequence(marshal(tb, oid(1, 2, 3))), tlv(3, []byte{0, 1}))
	tbs := sequence(context0([]byte{2, 1, 2}), []byte{2, 1, 1}, sequence(marshal(tb, oid(1, 2, 4))), name(issuer), sequence(), name(subject), spki, tlv(0xa3, sequence(extensions)))
	return sequence(tbs, sequence(marshal(tb, oid(1, 2, 4))), tlv(3, []byte{0}))
}

func TestCrossSignedAndCircularChainsEnd(t *testing.T) {
	leaf := subjectKeyed(t, "leaf", "ca", "L", "K2")
	first, second := subjectKeyed(t, "ca", "rootA", "K1", "A"), subjectKeyed(t, "ca", "rootB", "K2", "B")
	rootA, rootB := subjectKeyed(t, "rootA", "rootA", "A", ""), subjectKeyed(t, "rootB", "rootB", "B", "")
	loopA, loopB := subjectKeyed(t, "ca", "cb", "K2", ""), subjectKeyed(t, "cb", "ca", "", "")
	id := bagAttributes{localKeyID: "id"}
	key := keyBag(t, pki(t, "dsa.key"), id)
	for name, c := range map[string]struct{ certs, want [][]byte }{
		"the key identifier decides": {[][]byte{rootB, rootA, first, second}, [][]byte{leaf, second, rootB}},
		"a loop is cut":              {[][]byte{loopB, loopA}, [][]byte{leaf, loopA, loopB}},
		"an issuer is missing":       {[][]byte{second}, [][]byte{leaf, second}},
	} {
		bags := [][]byte{key}
		for _, der := range c.certs {
			bags = append(bags, certBag(t, der, bagAttributes{}))
		}
		s := openPFX(t, pfx(t, safe(t, append(bags, certBag(t, leaf, id))...)))
		assert.Equal(t, c.want, s.PrivateKeys()[0].Chain, name)
	}
}

func TestOfSeveralKeysOneMustBeNamed(t *testing.T) {
	for _, file := range []string{"kinds.jks", "kinds.jceks", "kinds.pkcs12"} {
		s := opened(t, file, options)
		_, err := s.TLSCertificate("")
		var ambiguous *keystore.AmbiguousError
		require.ErrorAs(t, err, &ambiguous)
		assert.ElementsMatch(t, []string{"rsa", "pss", "ec256", "ec384", "ec521", "ed25519", "dsa"}, ambiguous.Aliases)
		assert.ErrorContains(t, err, `7 private keys: name the alias of one: "`)
		assert.Len(t, s.PrivateKeys(), 7)
		_, err = s.TLSCertificate("EC384")
		assert.NoError(t, err)
	}
}

// Windows writes one for each provider that has the key.
func TestTwoKeyBagsMayShareACertificate(t *testing.T) {
	key, leaf := pki(t, "ec256.key"), pki(t, "ec256.crt")
	id := bagAttributes{localKeyID: "\x01\x00\x00\x00"}
	s := openPFX(t, pfx(t, safe(t, keyBag(t, key, id), keyBag(t, key, id)), safe(t, certBag(t, leaf, id), certBag(t, pki(t, "int.crt"), bagAttributes{}), certBag(t, leaf, id))))
	assert.Equal(t, []string{"1: key ec256 ec256 int", "2: key ec256 ec256 int"}, describe(t, s))
}

func TestAStoreWithoutAPairIsNoErrorUntilOneIsAskedFor(t *testing.T) {
	for file, want := range map[string]string{
		"empty.jks": "there is no private key", "empty.jceks": "there is no private key", "empty.pkcs12": "there is no private key",
		"trust.jks": "there is no private key", "o-cafile.p12": "there is no private key", "o-keyonly.p12": "has no certificate",
	} {
		s := opened(t, file, options)
		_, err := s.TLSCertificate("")
		require.ErrorIs(t, err, keystore.ErrNoSuchAlias, file)
		assert.ErrorContains(t, err, want, file)
	}
}

func TestTrustedCertificatesAreTheMarkedOnesOrElseAllOfNoKey(t *testing.T) {
	root, other, leaf := pki(t, "root.crt"), pki(t, "other.crt"), pki(t, "ec256.crt")
	for file, want := range map[string][][]byte{
		"trust.jks": {root, other}, "trust.pkcs12": {root, other}, "keyplusca.pkcs12": {root, other}, "o-cafile.p12": {root, other},
		"o-default.p12": nil, "empty.pkcs12": nil,
	} {
		s := opened(t, file, options)
		assert.ElementsMatch(t, want, s.Roots(), file)
		pool, err := s.CertPool()
		if want == nil {
			assert.ErrorIs(t, err, keystore.ErrNoSuchAlias, "an empty pool would be a trap")
			assert.Nil(t, pool)
			continue
		}
		require.NoError(t, err)
		assert.True(t, pool.Equal(poolOf(t, want...)))
	}
	s := openPFX(t, pfx(t, safe(t, certBag(t, root, bagAttributes{alias: "ca", trusted: true}), certBag(t, other, named("x")), certBag(t, leaf, named("y")))))
	assert.Equal(t, []string{"ca: trusted root", "x: cert other", "y: cert ec256"}, describe(t, s))
	assert.Equal(t, [][]byte{root}, s.Roots())

	s = openPFX(t, pfx(t, safe(t, certBag(t, pki(t, "negative.crt"), named("x")), certBag(t, root, named("y")))))
	_, err := s.CertPool()
	assert.ErrorContains(t, err, "trusted certificate 1 of 2", "crypto/x509 does not read it, and a smaller pool would be a surprise")
}

// ber writes an element with an indefinite length.
func ber(tag byte, contents ...[]byte) []byte {
	return join([]byte{tag, 0x80}, join(contents...), []byte{0, 0})
}

// pieces is an OCTET STRING in pieces of n bytes.
func pieces(b []byte, n int) []byte {
	var out []byte
	for len(b) > 0 {
		k := min(n, len(b))
		out = append(out, octets(b[:k])...)
		b = b[k:]
	}
	return ber(0x24, out)
}

func TestBERIsRead(t *testing.T) {
	contents := sequence(safe(t, certBag(t, pki(t, "root.crt"), named("ca"))))
	data := func(content []byte) []byte {
		return ber(0x30, []byte{2, 1, 3}, ber(0x30, marshal(t, oidData), ber(0xa0, content)))
	}
	for name, b := range map[string][]byte{
		"one piece":         data(octets(contents)),
		"pieces":            data(pieces(contents, 100)),
		"single bytes":      data(pieces(contents, 1)),
		"pieces of pieces":  data(ber(0x24, pieces(contents[:50], 7), octets(contents[50:60]), pieces(contents[60:], 30))),
		"definite pieces":   data(tlv(0x24, octets(contents[:30]), octets(contents[30:]))),
		"an empty piece":    data(ber(0x24, octets(nil), octets(contents))),
		"indefinite inside": data(pieces(ber(0x30, ber(0x30, marshal(t, oidData), ber(0xa0, pieces(ber(0x30, certBag(t, pki(t, "root.crt"), named("ca"))), 64)))), 100)),
		"leading zeros":     data(join([]byte{4, 0x88, 0, 0, 0, 0}, u4(uint32(len(contents))), contents)),
	} {
		s, err := keystore.Open(b, noPassword)
		if assert.NoError(t, err, name) {
			assert.Equal(t, []string{"ca: cert root"}, describe(t, s), name)
		}
	}
	for name, b := range map[string][]byte{
		"a piece that is none":  data(ber(0x24, []byte{2, 1, 1})),
		"an indefinite integer": ber(0x30, []byte{2, 0x80, 3, 0, 0}),
		"a tag of eight bytes":  ber(0x30, []byte{0x1f, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 1, 0}),
	} {
		_, err := keystore.Open(b, keystore.Options{Format: keystore.FormatPKCS12})
		assert.ErrorIs(t, err, keystore.ErrFormat, name)
	}
}

func TestAnyNumberOfSafesOfEitherKindIsRead(t *testing.T) {
	encrypted := oid(1, 2, 840, 113549, 1, 7, 6)
	seal := func(content []byte, inPieces bool) []byte {
		params := pbeParameters{saltOf8, 1}
		data := seal3DES(t, content)
		field := tlv(0x80, data)
		if inPieces {
			field = ber(0xa0, octets(data[:8]), octets(data[8:]))
		}
		info := sequence(marshal(t, oidData), marshal(t, algorithmAny{oid(1, 2, 840, 113549, 1, 12, 1, 3), params}), field)
		return sequence(marshal(t, encrypted), context0(sequence([]byte{2, 1, 0}, info)))
	}
	bags := func(name string) []byte { return sequence(certBag(t, pki(t, name+".crt"), named(name))) }
	s := openPFX(t, pfx(t, safe(t), seal(bags("root"), false), safe(t, certBag(t, pki(t, "int.crt"), named("int"))), seal(bags("other"), true), seal(bags("ec256"), false)))
	assert.Equal(t, []string{"root: cert root", "int: cert int", "other: cert other", "ec256: cert ec256"}, describe(t, s))

	enveloped := sequence(marshal(t, oid(1, 2, 840, 113549, 1, 7, 3)), context0(sequence()))
	_, err := keystore.Open(pfx(t, enveloped), noPassword)
	assert.EqualError(t, err, "keystore: a safe uses encryption to a public key (1.2.840.113549.1.7.3), which is not known here")
	signed := sequence([]byte{2, 1, 3}, sequence(marshal(t, oid(1, 2, 840, 113549, 1, 7, 2)), context0(sequence())))
	_, err = keystore.Open(signed, noPassword)
	var unsupported *keystore.UnsupportedAlgorithmError
	assert.ErrorAs(t, err, &unsupported)
}

func TestBagsThatAreNoneOfOursAreLeftOutWithANote(t *testing.T) {
	nestedSafe := bag(t, oid(1, 2, 840, 113549, 1, 12, 10, 1, 6), sequence(certBag(t, pki(t, "root.crt"), named("inner"))), bagAttributes{})
	s := openPFX(t, pfx(t, safe(t,
		bag(t, oid(1, 2, 840, 113549, 1, 12, 10, 1, 4), sequence(), bagAttributes{}), // a CRL
		bag(t, oid(1, 2, 3), sequence(), bagAttributes{}),
		bag(t, oidCertBag, sequence(marshal(t, oid(1, 2, 840, 113549, 1, 9, 22, 2)), context0(octets(nil))), bagAttributes{}), // SDSI
		bag(t, oid(1, 2, 840, 113549, 1, 12, 10, 1, 5), sequence(marshal(t, oid(1, 2, 5)), context0(octets(nil))), named("s")),
		nestedSafe)))
	assert.Equal(t, []string{"s: secret keystore: the secret key \"s\" uses 1.2.5, which is not known here", "inner: cert root"}, describe(t, s))
	for _, want := range []string{
		"a revocation list is left out", "a bag of the unknown type 1.2.3 is left out",
		"a certificate of the kind 1.2.840.113549.1.9.22.2, which is not X.509, is left out",
	} {
		assert.Contains(t, s.Warnings(), want)
	}
}

// A shorter MAC would be easier to forge, down to one of no bytes.
func TestAMACOfTheWrongLengthIsRefused(t *testing.T) {
	contents := safe(t, certBag(t, pki(t, "root.crt"), named("ca")))
	for _, n := range []int{0, 1, 16, 31, 33, 64} {
		_, err := keystore.Open(pfxWithMAC(t, "secret", n, 1, contents), keystore.Options{Password: "secret"})
		require.ErrorIs(t, err, keystore.ErrIntegrity, "%d bytes", n)
		assert.ErrorContains(t, err, fmt.Sprintf("has %d bytes instead of 32", n))
	}
	s, err := keystore.Open(pfxWithMAC(t, "secret", 32, 1, contents), keystore.Options{Password: "secret"})
	require.NoError(t, err)
	assert.Equal(t, keystore.IntegrityVerified, s.Integrity)
	_, err = keystore.Open(pfxWithMAC(t, "secret", 32, 1, contents), keystore.Options{Password: "Secret"})
	assert.ErrorIs(t, err, keystore.ErrIncorrectPassword)
}

func TestTheExamplesOfRFC9579OpenOrAreRefusedAsItSays(t *testing.T) {
	for name, ok := range map[string]bool{"a1": true, "a2": true, "a3": true, "a4": false, "a5": false, "a6": false} {
		s, err := keystore.Open(golden(t, "rfc9579/"+name+".p12"), keystore.Options{Password: "1234"})
		if !ok {
			assert.Error(t, err, name)
			assert.True(t, isTyped(err), "%s: %v", name, err)
			continue
		}
		require.NoError(t, err, name)
		assert.Equal(t, keystore.IntegrityVerified, s.Integrity)
		_, err = s.TLSCertificate("")
		assert.NoError(t, err, name)
		_, err = keystore.Open(golden(t, "rfc9579/"+name+".p12"), keystore.Options{Password: "12345"})
		assert.ErrorIs(t, err, keystore.ErrIncorrectPassword)
	}
	_, err := keystore.Open(golden(t, "rfc9579/a6.p12"), keystore.Options{Password: "1234"})
	assert.ErrorContains(t, err, "has a key of 0 bytes: 20 are the least")
}

// Bouncy Castle has written PBMAC1 with 256 bytes of key.
func TestALongPBMAC1KeyIsAccepted(t *testing.T) {
	_, err := keystore.Open(pbmac1File(t, pbkdf2KDF(10, 256)), noPassword)
	assert.ErrorIs(t, err, keystore.ErrIncorrectPassword, "that is, it was computed")
}

// RSA's libraries for Java spell the password of PBES2 in ISO 8859-1.
func TestAPasswordInLatin1OpensPBES2(t *testing.T) {
	key := pki(t, "ec256.key")
	for spelled, want := range map[string]bool{"pässwörd": true, "p\xe4ssw\xf6rd": true, "other": false} {
		sealed := bag(t, oidShroudedBag, marshal(t, sealAES(t, key, spelled)), named("k"))
		s, err := keystore.Open(pfx(t, safe(t, sealed)), keystore.Options{Password: "pässwörd"})
		require.NoError(t, err)
		if want {
			assert.Equal(t, []string{"k: key ec256"}, describe(t, s))
		} else {
			assert.ErrorIs(t, s.Entries[0].Err, keystore.ErrIncorrectPassword)
		}
	}
}

// Without a MAC it is only the key and its certificate that tell.
func TestADamagedKeyInAStoreWithoutMACIsWithheld(t *testing.T) {
	key, cert := pki(t, "ec256.key"), pki(t, "ec256.crt")
	id := bagAttributes{localKeyID: "id"}
	open := func(key []byte) (*keystore.Store, error) {
		sealed := bag(t, oidShroudedBag, marshal(t, sealAES(t, key, "x")), id)
		return keystore.Open(pfx(t, safe(t, sealed, certBag(t, cert, id))), keystore.Options{Password: "x"})
	}
	s, err := open(key)
	require.NoError(t, err)
	_, err = s.TLSCertificate("")
	require.NoError(t, err, "the control")
	var refused int
	for i := range key {
		bad := bytes.Clone(key)
		bad[i] ^= 1
		if s, err = open(bad); err != nil {
			continue
		}
		der, err := s.Entries[0].PKCS8()
		if err == nil {
			// A field that does not matter to crypto/x509: it is the same key.
			require.NotNil(t, der)
			_, err = s.TLSCertificate("")
			require.Truef(t, err == nil || s.Entries[0].Algorithm != "EC P-256", "byte %d", i)
			continue
		}
		refused++
		require.True(t, isTyped(err), "byte %d: %v", i, err)
	}
	assert.Greater(t, refused, 40, "the scalar and more")
}

func TestEncryptedSpellingsOfTheEmptyPasswordAreTriedForEachPart(t *testing.T) {
	for _, file := range []string{"o-password-empty.p12", "g-null-password.p12", "g-empty-password.p12"} {
		skipManyIterations(t, file)
		s := opened(t, file, keystore.Options{})
		assert.Equal(t, keystore.IntegrityVerified, s.Integrity, file)
		_, err := s.TLSCertificate("")
		assert.NoError(t, err, file)
	}
	assert.Len(t, pbe.PKCS12Passwords(""), 2)
}
