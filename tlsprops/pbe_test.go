package tlsprops

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/pbe"
)

// The structures of an encrypted key, for tests to build good and bad ones.
type (
	algorithm struct {
		OID        asn1.ObjectIdentifier
		Parameters any
	}
	encryptedKey struct {
		Algorithm algorithm
		Data      []byte
	}
	pbeParameters struct {
		Salt       []byte
		Iterations int
	}
	pbes2Parameters struct{ KDF, Cipher algorithm }
	// pbkdf2Parameters has its optional fields as GnuTLS writes them.
	pbkdf2Parameters struct {
		Salt       []byte
		Iterations int
		KeyLen     int `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier
	}
)

var (
	pbes2OID      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	pbkdf2OID     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	md5DESOID     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 3}
	pkcs123DESOID = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3}
	pkcs12RC4OID  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 1}
	aes256OID     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	hmacSHA256    = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, Parameters: asn1.NullRawValue}
)

// encryptCBC pads and encrypts.
func encryptCBC(block cipher.Block, iv, plain []byte) []byte {
	n := block.BlockSize() - len(plain)%block.BlockSize()
	data := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	return data
}

// sealPBES2 encrypts plain with AES-256 as kdf says.
func sealPBES2(tb testing.TB, plain []byte, passphrase string, kdf pbkdf2Parameters) []byte {
	tb.Helper()
	iv := bytes.Repeat([]byte{9}, aes.BlockSize)
	key, err := pbkdf2.Key(sha256.New, passphrase, kdf.Salt, kdf.Iterations, 32)
	require.NoError(tb, err)
	block, err := aes.NewCipher(key)
	require.NoError(tb, err)
	return mustMarshal(tb, encryptedKey{
		algorithm{pbes2OID, pbes2Parameters{algorithm{pbkdf2OID, kdf}, algorithm{aes256OID, iv}}},
		encryptCBC(block, iv, plain),
	})
}

func encryptedPEM(der []byte) []byte { return []byte(pemOf("ENCRYPTED PRIVATE KEY", der)) }

// GnuTLS and Bouncy Castle write PBKDF2's key length, which OpenSSL leaves out.
func TestAKeyLengthInThePBKDF2ParametersIsAcceptedIfRight(t *testing.T) {
	want, plain := plainKey(t, "ec.pem"), goldenDER(t, "ec.pem")
	for keyLen, ok := range map[int]bool{32: true, 16: false, -1: false, 33: false, math.MaxInt32: false} {
		der := sealPBES2(t, plain, goldenPassphrase, pbkdf2Parameters{[]byte("saltsalt"), 10, keyLen, hmacSHA256})
		key, encrypted, err := parseKey(encryptedPEM(der), goldenPassphrase, nil)
		assert.True(t, encrypted)
		if ok {
			require.NoError(t, err)
			assertSameKey(t, want, key)
		} else {
			assert.ErrorContains(t, err, "PBKDF2 asks for a key of another length than")
		}
	}
}

// An empty passphrase is two zero bytes to some programs and no bytes to others.
func TestBothEncodingsOfAnEmptyPassphraseOpenAPKCS12Key(t *testing.T) {
	want, plain := plainKey(t, "ec.pem"), goldenDER(t, "ec.pem")
	salt := []byte("saltsalt")
	for _, password := range [][]byte{nil, {0, 0}} {
		block, err := des.NewTripleDESCipher(pbe.PKCS12Key(sha1.New, pbe.PKCS12ForKey, password, salt, 3, 24))
		require.NoError(t, err)
		der := mustMarshal(t, encryptedKey{
			algorithm{pkcs123DESOID, pbeParameters{salt, 3}},
			encryptCBC(block, pbe.PKCS12Key(sha1.New, pbe.PKCS12ForIV, password, salt, 3, 8), plain),
		})
		key, encrypted, err := parseKey(encryptedPEM(der), "", nil)
		require.NoError(t, err)
		assert.True(t, encrypted)
		assertSameKey(t, want, key)
	}
}

// What an encrypted key asks for is checked before anything is computed: each of
// these would otherwise panic in crypto/cipher, run for minutes or hash nothing.
func TestAnEncryptedKeyThatAsksForTooMuchIsRefusedAtOnce(t *testing.T) {
	salt, iv, data := []byte("saltsalt"), bytes.Repeat([]byte{9}, 16), make([]byte, 48)
	pbes2 := func(kdf, scheme algorithm, data []byte) []byte {
		return mustMarshal(t, encryptedKey{algorithm{pbes2OID, pbes2Parameters{kdf, scheme}}, data})
	}
	kdf := func(salt []byte, iterations int) algorithm {
		return algorithm{pbkdf2OID, pbkdf2Parameters{salt, iterations, 0, hmacSHA256}}
	}
	legacy := func(oid asn1.ObjectIdentifier, salt []byte, iterations int, data []byte) []byte {
		return mustMarshal(t, encryptedKey{algorithm{oid, pbeParameters{salt, iterations}}, data})
	}
	aes256 := algorithm{aes256OID, iv}
	huge := asn1.RawValue{Tag: asn1.TagInteger, Bytes: bytes.Repeat([]byte{0x7f}, 200)}
	for name, der := range map[string][]byte{
		"PBKDF2 iterations 0":           pbes2(kdf(salt, 0), aes256, data),
		"PBKDF2 iterations negative":    pbes2(kdf(salt, -1), aes256, data),
		"PBKDF2 iterations 5,000,001":   pbes2(kdf(salt, 5_000_001), aes256, data),
		"PBKDF2 iterations 2^31":        pbes2(kdf(salt, math.MaxInt32), aes256, data),
		"PBKDF2 iterations of 200 byte": pbes2(algorithm{pbkdf2OID, struct{ S, I any }{salt, huge}}, aes256, data),
		"PBKDF2 salt empty":             pbes2(kdf(nil, 1), aes256, data),
		"PBKDF2 salt too long":          pbes2(kdf(make([]byte, 1025), 1), aes256, data),
		"PBKDF2 salt not a string":      pbes2(algorithm{pbkdf2OID, struct{ S, I int }{1, 1}}, aes256, data),
		"PBKDF2 without parameters":     pbes2(algorithm{pbkdf2OID, asn1.NullRawValue}, aes256, data),
		"PBES2 without parameters":      mustMarshal(t, encryptedKey{algorithm{pbes2OID, asn1.NullRawValue}, data}),
		"IV empty":                      pbes2(kdf(salt, 1), algorithm{aes256OID, []byte{}}, data),
		"IV of 8 bytes for AES":         pbes2(kdf(salt, 1), algorithm{aes256OID, iv[:8]}, data),
		"IV of 17 bytes":                pbes2(kdf(salt, 1), algorithm{aes256OID, make([]byte, 17)}, data),
		"IV missing":                    pbes2(kdf(salt, 1), algorithm{aes256OID, asn1.NullRawValue}, data),
		"data empty":                    pbes2(kdf(salt, 1), aes256, nil),
		"data no multiple of 16":        pbes2(kdf(salt, 1), aes256, data[:47]),
		"PBES1 iterations 0":            legacy(md5DESOID, salt, 0, data),
		"PBES1 iterations 5,000,001":    legacy(md5DESOID, salt, 5_000_001, data),
		"PBES1 salt of 7 bytes":         legacy(md5DESOID, salt[:7], 1, data),
		"PBES1 data no multiple of 8":   legacy(md5DESOID, salt, 1, data[:9]),
		"PBES1 without parameters":      mustMarshal(t, encryptedKey{algorithm{md5DESOID, asn1.NullRawValue}, data}),
		"PKCS12 iterations 0":           legacy(pkcs123DESOID, salt, 0, data),
		"PKCS12 iterations 2^31":        legacy(pkcs123DESOID, salt, math.MaxInt32, data),
		"PKCS12 salt empty":             legacy(pkcs123DESOID, nil, 1, data),
		"PKCS12 salt too long":          legacy(pkcs123DESOID, make([]byte, 1025), 1, data),
		"PKCS12 data empty":             legacy(pkcs123DESOID, salt, 1, nil),
		"trailing bytes":                append(legacy(md5DESOID, salt, 1, data), 0),
		"data not a string":             mustMarshal(t, struct{ A, D any }{algorithm{md5DESOID, pbeParameters{salt, 1}}, 5}),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parseKey(encryptedPEM(der), goldenPassphrase, nil)
			assertOneLineWithout(t, err)
			assert.NotErrorIs(t, err, ErrIncorrectPassphrase, "a format error")
			assert.NotErrorIs(t, err, ErrPassphraseRequired)
		})
	}
	// The controls: nothing but the values above was wrong.
	for name, der := range map[string][]byte{
		"PBES2":              pbes2(kdf(salt, 1), aes256, data),
		"PBES1":              legacy(md5DESOID, salt, 1, data),
		"PKCS12":             legacy(pkcs123DESOID, make([]byte, 1024), 1, data),
		"RC4, which is none": legacy(pkcs12RC4OID, salt, 1, data[:9]),
	} {
		_, _, err := parseKey(encryptedPEM(der), goldenPassphrase, nil)
		assert.ErrorIs(t, err, ErrIncorrectPassphrase, name)
	}
}

func TestAnUnknownPartOfPBES2IsNamedByItsOID(t *testing.T) {
	oid := asn1.ObjectIdentifier{1, 2, 3, 4}
	known := algorithm{pbkdf2OID, pbkdf2Parameters{[]byte("saltsalt"), 1, 0, hmacSHA256}}
	iv := make([]byte, 16)
	for name, params := range map[string]pbes2Parameters{
		"key derivation": {algorithm{oid, iv}, algorithm{aes256OID, iv}},
		"hash":           {algorithm{pbkdf2OID, pbkdf2Parameters{[]byte("saltsalt"), 1, 0, pkix.AlgorithmIdentifier{Algorithm: oid}}}, algorithm{aes256OID, iv}},
		"cipher":         {known, algorithm{oid, iv}},
	} {
		der := mustMarshal(t, encryptedKey{algorithm{pbes2OID, params}, make([]byte, 16)})
		_, encrypted, err := parseKey(encryptedPEM(der), goldenPassphrase, nil)
		assert.ErrorContains(t, err, "encrypted with 1.2.3.4, which is not known here", name)
		assert.True(t, encrypted)
	}
}

func TestABadTraditionalHeaderIsRefused(t *testing.T) {
	good := string(golden(t, "rsa-traditional-aes256.pem"))
	_, info, _ := strings.Cut(good, "DEK-Info: ")
	info, _, _ = strings.Cut(info, "\n")
	_, iv, _ := strings.Cut(info, ",")
	change := func(to string) string { return strings.Replace(good, "DEK-Info: "+info, to, 1) }
	for name, tt := range map[string]struct{ data, want string }{
		"no cipher":         {change("DEK-Info: "), `encrypted with ""`},
		"no header":         {strings.Replace(good, "DEK-Info: "+info+"\n", "", 1), `encrypted with ""`},
		"unknown cipher":    {change("DEK-Info: RC5-CBC," + iv), `encrypted with "RC5-CBC"`},
		"no IV":             {change("DEK-Info: AES-256-CBC"), "initialization vector"},
		"IV not hex":        {change("DEK-Info: AES-256-CBC," + strings.Repeat("zz", 16)), "initialization vector"},
		"IV too short":      {change("DEK-Info: AES-256-CBC," + iv[:16]), "initialization vector"},
		"IV too long":       {change("DEK-Info: AES-256-CBC," + iv + "00"), "initialization vector"},
		"IV of 7 bytes":     {change("DEK-Info: DES-CBC," + iv[:14]), "initialization vector"},
		"hostile name":      {change("DEK-Info: " + strings.Repeat("x\x1b", 1000)), `X\x1b`},
		"no multiple of 16": {pemWith(map[string]string{"DEK-Info": info}, make([]byte, 15)), "15 bytes of encrypted data"},
		"no data":           {pemWith(map[string]string{"DEK-Info": info}, nil), "0 bytes of encrypted data"},
	} {
		t.Run(name, func(t *testing.T) {
			_, encrypted, err := parseKey([]byte(tt.data), goldenPassphrase, nil)
			require.ErrorContains(t, err, tt.want)
			assert.True(t, encrypted)
			assert.Less(t, len(err.Error()), 400)
			assertOneLineWithout(t, err, "\x1b")
		})
	}
	for name, to := range map[string]string{
		"lower case": "DEK-Info: " + strings.ToLower(info),
		"spaces":     "DEK-Info:  AES-256-CBC , " + iv,
	} {
		_, _, err := parseKey([]byte(change(to)), goldenPassphrase, nil)
		assert.NoError(t, err, name)
	}
}

func pemWith(headers map[string]string, der []byte) string {
	var text strings.Builder
	for name, value := range headers {
		fmt.Fprintf(&text, "%s: %s\n", name, value)
	}
	return strings.Replace(pemOf("RSA PRIVATE KEY", der), "KEY-----\n", "KEY-----\n"+text.String()+"\n", 1)
}
