package keystore_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/pbe"
)

// This file builds key stores byte by byte, for what no program writes.

const (
	magicJKS   = 0xfeedfeed
	magicJCEKS = 0xcececece
)

// javaStore is a JKS or JCEKS file.
type javaStore struct {
	magic, version uint32
	count          int // -1: as many as there are entries
	entries        [][]byte
	password       string
	after          []byte // the digest
}

func (s javaStore) bytes() []byte {
	if s.magic == 0 {
		s.magic = magicJKS
	}
	if s.version == 0 {
		s.version = 2
	}
	if s.count == 0 {
		s.count = len(s.entries)
	}
	body := join(u4(s.magic), u4(s.version), u4(uint32(s.count)), bytes.Join(s.entries, nil))
	sum := sha1.Sum(join(utf16BE(s.password), []byte("Mighty Aphrodite"), body))
	return join(body, sum[:], s.after)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
func u2(n uint16) []byte          { return binary.BigEndian.AppendUint16(nil, n) }
func u4(n uint32) []byte          { return binary.BigEndian.AppendUint32(nil, n) }
func utf(s string) []byte         { return append(u2(uint16(len(s))), s...) }
func block(b []byte) []byte       { return append(u4(uint32(len(b))), b...) }

func utf16BE(s string) (out []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		out = append(out, u2(u)...)
	}
	return out
}

func entryHeader(tag uint32, alias string) []byte {
	return join(u4(tag), utf(alias), make([]byte, 8))
}

func trustedEntry(alias string, der []byte) []byte {
	return join(entryHeader(2, alias), utf("X.509"), block(der))
}

// keyEntry has its chain in the form of version 2.
func keyEntry(alias string, protected []byte, chain ...[]byte) []byte {
	out := join(entryHeader(1, alias), block(protected), u4(uint32(len(chain))))
	for _, der := range chain {
		out = join(out, utf("X.509"), block(der))
	}
	return out
}

type algorithm struct {
	OID        asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type encryptedKey struct {
	Algorithm algorithm
	Data      []byte
}

func marshal(tb testing.TB, v any) []byte {
	tb.Helper()
	der, err := asn1.Marshal(v)
	require.NoError(tb, err)
	return der
}

func raw(der []byte) asn1.RawValue { return asn1.RawValue{FullBytes: der} }

var (
	jksProtector   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1}
	jceksProtector = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 19, 1}
)

// jksProtect encrypts a key as JKS does.
func jksProtect(tb testing.TB, key []byte, password string) []byte {
	tb.Helper()
	salt := bytes.Repeat([]byte{7}, sha1.Size)
	secret := utf16BE(password)
	body := bytes.Clone(key)
	digest := salt
	for i := range body {
		if i%sha1.Size == 0 {
			sum := sha1.Sum(join(secret, digest))
			digest = sum[:]
		}
		body[i] ^= digest[i%sha1.Size]
	}
	check := sha1.Sum(join(secret, key))
	return marshal(tb, encryptedKey{algorithm{OID: jksProtector, Parameters: asn1.NullRawValue}, join(salt, body, check[:])})
}

type pbeParameters struct {
	Salt       []byte
	Iterations int
}

// jceksSeal encrypts as JCEKS does, with the salt as the derivation takes it.
func jceksSeal(tb testing.TB, plain []byte, password string, salt []byte, iterations int) []byte {
	tb.Helper()
	var derived []byte
	for _, half := range [][]byte{salt[:4], salt[4:]} {
		for range iterations {
			sum := md5.Sum(join(half, []byte(password)))
			half = sum[:]
		}
		derived = append(derived, half...)
	}
	c, err := des.NewTripleDESCipher(derived[:24])
	require.NoError(tb, err)
	n := 8 - len(plain)%8
	data := join(plain, bytes.Repeat([]byte{byte(n)}, n))
	cipher.NewCBCEncrypter(c, derived[24:]).CryptBlocks(data, data)
	return data
}

// jceksProtected is an EncryptedPrivateKeyInfo with any parameters.
func jceksProtected(tb testing.TB, salt []byte, iterations int, data []byte) []byte {
	tb.Helper()
	return marshal(tb, encryptedKey{algorithm{jceksProtector, raw(marshal(tb, pbeParameters{salt, iterations}))}, data})
}

// --- PKCS #12 -----------------------------------------------------------------

func oid(arcs ...int) asn1.ObjectIdentifier { return arcs }

var (
	oidData         = oid(1, 2, 840, 113549, 1, 7, 1)
	oidKeyBag       = oid(1, 2, 840, 113549, 1, 12, 10, 1, 1)
	oidShroudedBag  = oid(1, 2, 840, 113549, 1, 12, 10, 1, 2)
	oidCertBag      = oid(1, 2, 840, 113549, 1, 12, 10, 1, 3)
	oidX509         = oid(1, 2, 840, 113549, 1, 9, 22, 1)
	oidFriendlyName = oid(1, 2, 840, 113549, 1, 9, 20)
	oidLocalKeyID   = oid(1, 2, 840, 113549, 1, 9, 21)
	oidTrusted      = oid(2, 16, 840, 1, 113894, 746875, 1, 1)
	oidSHA256       = oid(2, 16, 840, 1, 101, 3, 4, 2, 1)
)

// tlv is an element with any tag byte.
func tlv(tag byte, contents ...[]byte) []byte {
	inside := join(contents...)
	switch n := len(inside); {
	case n < 0x80:
		return join([]byte{tag, byte(n)}, inside)
	default:
		return join([]byte{tag, 0x84}, u4(uint32(n)), inside)
	}
}

func sequence(contents ...[]byte) []byte { return tlv(0x30, contents...) }
func octets(b []byte) []byte             { return tlv(4, b) }
func context0(b []byte) []byte           { return tlv(0xa0, b) }

type bagAttributes struct {
	alias      string
	localKeyID string
	trusted    bool
}

func bag(tb testing.TB, id asn1.ObjectIdentifier, value []byte, a bagAttributes) []byte {
	tb.Helper()
	var attrs []byte
	add := func(id asn1.ObjectIdentifier, value []byte) {
		attrs = append(attrs, sequence(marshal(tb, id), tlv(0x31, value))...)
	}
	if a.alias != "" {
		add(oidFriendlyName, tlv(0x1e, utf16BE(a.alias)))
	}
	if a.localKeyID != "" {
		add(oidLocalKeyID, octets([]byte(a.localKeyID)))
	}
	if a.trusted {
		add(oidTrusted, marshal(tb, oid(2, 5, 29, 37, 0)))
	}
	if attrs == nil {
		return sequence(marshal(tb, id), context0(value))
	}
	return sequence(marshal(tb, id), context0(value), tlv(0x31, attrs))
}

func certBag(tb testing.TB, der []byte, a bagAttributes) []byte {
	tb.Helper()
	return bag(tb, oidCertBag, sequence(marshal(tb, oidX509), context0(octets(der))), a)
}

func keyBag(tb testing.TB, der []byte, a bagAttributes) []byte {
	tb.Helper()
	return bag(tb, oidKeyBag, der, a)
}

// safe is a ContentInfo of the type data with those bags.
func safe(tb testing.TB, bags ...[]byte) []byte {
	tb.Helper()
	return sequence(marshal(tb, oidData), context0(octets(sequence(bags...))))
}

// pfx is a PKCS #12 file of those safes without a MAC.
func pfx(tb testing.TB, safes ...[]byte) []byte {
	tb.Helper()
	return sequence([]byte{2, 1, 3}, sequence(marshal(tb, oidData), context0(octets(sequence(safes...)))))
}

// pfxWithMAC has a MAC of SHA-256 over a single iteration, of which keep bytes
// are written (and zeros for those beyond its 32).
func pfxWithMAC(tb testing.TB, password string, keep, iterations int, safes ...[]byte) []byte {
	tb.Helper()
	message := sequence(safes...)
	salt := []byte("saltsalt")
	computed := max(1, min(iterations, 10))
	key := pbe.PKCS12Key(sha256.New, pbe.PKCS12ForMAC, pbe.PKCS12Passwords(password)[0], salt, computed, sha256.Size)
	h := hmac.New(sha256.New, key)
	h.Write(message)
	digest := append(h.Sum(nil), make([]byte, 64)...)[:keep]
	mac := sequence(sequence(sequence(marshal(tb, oidSHA256), []byte{5, 0}), octets(digest)), octets(salt), marshal(tb, iterations))
	return sequence([]byte{2, 1, 3}, sequence(marshal(tb, oidData), context0(octets(message))), mac)
}

// sealAES encrypts with PBES2, AES-256 and a single iteration of PBKDF2, under
// the bytes of password.
func sealAES(tb testing.TB, plain []byte, password string) shrouded {
	tb.Helper()
	key, err := pbkdf2.Key(sha256.New, password, saltOf8, 1, 32)
	require.NoError(tb, err)
	c, err := aes.NewCipher(key)
	require.NoError(tb, err)
	iv := make([]byte, aes.BlockSize)
	n := aes.BlockSize - len(plain)%aes.BlockSize
	data := join(plain, bytes.Repeat([]byte{byte(n)}, n))
	cipher.NewCBCEncrypter(c, iv).CryptBlocks(data, data)
	return shrouded{algorithmAny{oidPBES2, pbes2Parameters{pbkdf2KDF(1, 0), algorithmAny{oidAES256, iv}}}, data}
}

// seal3DES encrypts with PBE-SHA1-3DES and a single iteration under the empty
// password.
func seal3DES(tb testing.TB, plain []byte) []byte {
	tb.Helper()
	password := pbe.PKCS12Passwords("")[0]
	c, err := des.NewTripleDESCipher(pbe.PKCS12Key(sha1.New, pbe.PKCS12ForKey, password, saltOf8, 1, 24))
	require.NoError(tb, err)
	n := 8 - len(plain)%8
	data := join(plain, bytes.Repeat([]byte{byte(n)}, n))
	cipher.NewCBCEncrypter(c, pbe.PKCS12Key(sha1.New, pbe.PKCS12ForIV, password, saltOf8, 1, 8)).CryptBlocks(data, data)
	return data
}

func poolOf(tb testing.TB, ders ...[]byte) *x509.CertPool {
	tb.Helper()
	pool := x509.NewCertPool()
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		require.NoError(tb, err)
		pool.AddCert(cert)
	}
	return pool
}

// noDigest has zeros in place of the digest, which FIPS 140-only mode would not
// let us compute.
func (s javaStore) noDigest() []byte {
	if s.magic == 0 {
		s.magic = magicJKS
	}
	return join(u4(s.magic), u4(2), u4(uint32(len(s.entries))), bytes.Join(s.entries, nil), make([]byte, sha1.Size))
}
