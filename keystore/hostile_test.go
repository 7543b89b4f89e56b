package keystore_test

import (
	"bytes"
	"context"
	"encoding/asn1"
	"errors"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

func isFormat(err error) bool { return errors.Is(err, keystore.ErrFormat) }

// isTyped tells whether err is one of those that the package documents.
func isTyped(err error) bool {
	var format *keystore.UnsupportedFormatError
	var algorithm *keystore.UnsupportedAlgorithmError
	var limit *keystore.LimitError
	return isFormat(err) || errors.Is(err, keystore.ErrIncorrectPassword) || errors.Is(err, keystore.ErrIntegrity) ||
		errors.Is(err, keystore.ErrPasswordRequired) || errors.As(err, &format) || errors.As(err, &algorithm) || errors.As(err, &limit)
}

// allocated returns what f allocates in all, in bytes.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAStoreCutAnywhereIsMalformed(t *testing.T) {
	for _, file := range []string{"kinds.jks", "secrets.jceks", "mirth.jks", "aliases.jks", "trust.pkcs12", "o-keybag.p12", "bc.pkcs12", "n-default.p12", "g-arcfour.p12", "legacy.pkcs12"} {
		data := golden(t, "stores/"+file)
		o := goldenOptions(file)
		for n := range data {
			_, err := keystore.Open(data[:n], o)
			if n >= 8 { // before that it is not known what it is
				require.ErrorIs(t, err, keystore.ErrTruncated, "%s cut after %d bytes", file, n)
			}
			require.ErrorIs(t, err, keystore.ErrFormat, "%s cut after %d bytes", file, n)
		}
	}
}

func TestWhatIsNoKeyStoreIsNamed(t *testing.T) {
	for data, want := range map[string]string{
		"":                         "the file is empty",
		" \n":                      "the file is empty",
		"abc":                      "the file has 3 bytes and is no key store",
		"\xfe\xed\xfe\xed":         "the file ends too early: within the header",
		"\xce\xce\xce\xce":         "the file ends too early: within the header",
		"hello world":              "text without any PEM block",
		"\x01\x02\x03\x04\x05\x00": "the file begins with 01020304, which no key store does",
		"0\x80":                    "the file has 2 bytes",
	} {
		_, err := keystore.Open([]byte(data), options)
		assert.ErrorIs(t, err, keystore.ErrFormat, "%q", data)
		assert.ErrorContains(t, err, want, "%q", data)
	}
}

// The lengths are refused before anything is allocated for them.
func TestAHugeLengthInAJavaStoreCostsNoMemory(t *testing.T) {
	cert := pki(t, "root.crt")
	huge := []uint32{1 << 30, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff}
	for name, build := range map[string]func(n uint32) []byte{
		"key":          func(n uint32) []byte { return join(entryHeader(1, "a"), u4(n), cert) },
		"certificate":  func(n uint32) []byte { return join(entryHeader(2, "a"), utf("X.509"), u4(n), cert) },
		"certificates": func(n uint32) []byte { return join(entryHeader(1, "a"), block(jksProtect(t, cert, "")), u4(n)) },
		"sealed": func(n uint32) []byte {
			return secretEntry(sealedStream(keyProtector, nil, join(byteArray(nil)[:18], u4(n))))
		},
	} {
		for _, n := range huge {
			data := javaStore{magic: magicJCEKS, entries: [][]byte{build(n)}}.bytes()
			var err error
			used := allocated(func() { _, err = keystore.Open(data, noPassword) })
			assert.ErrorIs(t, err, keystore.ErrFormat, "%s %d", name, n)
			assert.Less(t, used, uint64(1<<20), "%s %d", name, n)
		}
	}
	for _, n := range []int{1 << 30, math.MaxInt32} {
		data := javaStore{count: n}.bytes()
		var err error
		used := allocated(func() { _, err = keystore.Open(data, noPassword) })
		assert.ErrorIs(t, err, keystore.ErrTruncated)
		assert.Less(t, used, uint64(1<<20))
	}
}

func TestAnEncryptedKeyOfAnImpossibleLengthIsMalformed(t *testing.T) {
	salt := []byte("saltSALT")
	bad := map[string][]byte{
		"JKS of 39 bytes":             marshal(t, encryptedKey{algorithm{OID: jksProtector}, make([]byte, 39)}),
		"JKS of no bytes":             marshal(t, encryptedKey{algorithm{OID: jksProtector}, nil}),
		"JCEKS of no bytes":           jceksProtected(t, salt, 20, nil),
		"JCEKS of 47 bytes":           jceksProtected(t, salt, 20, make([]byte, 47)),
		"JCEKS with a salt of 7":      jceksProtected(t, salt[:7], 20, make([]byte, 48)),
		"JCEKS with a salt of 9":      jceksProtected(t, append(salt, 1), 20, make([]byte, 48)),
		"JCEKS with no salt":          jceksProtected(t, nil, 20, make([]byte, 48)),
		"JCEKS with no iterations":    jceksProtected(t, salt, 0, make([]byte, 48)),
		"JCEKS with -1 iterations":    jceksProtected(t, salt, -1, make([]byte, 48)),
		"JCEKS with no parameters":    marshal(t, encryptedKey{algorithm{OID: jceksProtector}, make([]byte, 48)}),
		"not ASN.1":                   []byte("hello"),
		"nothing":                     nil,
		"bytes after the structure":   join(jksProtect(t, salt, ""), []byte{0}),
		"an integer as the algorithm": sequence([]byte{2, 1, 1}, octets(salt)),
	}
	for name, der := range bad {
		_, err := keystore.Open(javaStore{magic: magicJCEKS, entries: [][]byte{keyEntry("k", der)}}.bytes(), noPassword)
		assert.ErrorIs(t, err, keystore.ErrFormat, name)
	}
	// The controls: a JKS key of 40 bytes is an empty one, and 48 bytes that do
	// not decrypt are an incorrect password.
	for name, der := range map[string][]byte{"JKS": jksProtect(t, nil, "x"), "JCEKS": jceksProtected(t, salt, 20, make([]byte, 48))} {
		s := openJava(t, javaStore{magic: magicJCEKS, entries: [][]byte{keyEntry("k", der)}})
		assert.ErrorIs(t, s.Entries[0].Err, keystore.ErrIncorrectPassword, name)
	}
}

type (
	algorithmAny struct {
		OID        asn1.ObjectIdentifier
		Parameters any
	}
	shrouded struct {
		Algorithm algorithmAny
		Data      []byte
	}
	pbes2Parameters  struct{ KDF, Cipher algorithmAny }
	pbkdf2Parameters struct {
		Salt       []byte
		Iterations int
		KeyLen     int `asn1:"optional"`
		PRF        algorithm
	}
	scryptParameters struct {
		Salt    []byte
		N, R, P int
	}
)

var (
	oidPBES2      = oid(1, 2, 840, 113549, 1, 5, 13)
	oidPBKDF2     = oid(1, 2, 840, 113549, 1, 5, 12)
	oidPBMAC1     = oid(1, 2, 840, 113549, 1, 5, 14)
	oidScrypt     = oid(1, 3, 6, 1, 4, 1, 11591, 4, 11)
	oidAES256     = oid(2, 16, 840, 1, 101, 3, 4, 1, 42)
	oid3DES       = oid(1, 2, 840, 113549, 1, 12, 1, 3)
	oidHMACSHA256 = oid(1, 2, 840, 113549, 2, 9)
	saltOf8       = []byte("saltsalt")
)

// shroudedBag is a key bag that asks for a key derivation.
func shroudedBag(tb testing.TB, kdf algorithmAny) []byte {
	tb.Helper()
	cipher := algorithmAny{oidAES256, make([]byte, 16)}
	return bag(tb, oidShroudedBag, marshal(tb, shrouded{algorithmAny{oidPBES2, pbes2Parameters{kdf, cipher}}, make([]byte, 48)}), bagAttributes{})
}

func pbkdf2KDF(iterations, keyLen int) algorithmAny {
	return algorithmAny{oidPBKDF2, pbkdf2Parameters{saltOf8, iterations, keyLen, algorithm{OID: oidHMACSHA256}}}
}

func pbmac1File(tb testing.TB, kdf algorithmAny) []byte {
	tb.Helper()
	params := struct{ KDF, MAC algorithmAny }{kdf, algorithmAny{oidHMACSHA256, asn1.NullRawValue}}
	mac := sequence(sequence(marshal(tb, algorithmAny{oidPBMAC1, params}), octets(make([]byte, 32))), octets(saltOf8), []byte{2, 1, 1})
	return sequence([]byte{2, 1, 3}, sequence(marshal(tb, oidData), context0(octets(sequence()))), mac)
}

// The JDK's limit for one derivation is ours for the whole file.
func TestADerivationThatWouldTakeTooLongIsRefusedBeforeItBegins(t *testing.T) {
	const most = 5_000_000
	legacy := func(iterations int) []byte {
		return bag(t, oidShroudedBag, marshal(t, shrouded{algorithmAny{oid3DES, pbeParameters{saltOf8, iterations}}, make([]byte, 48)}), bagAttributes{})
	}
	million := bytes.Repeat(shroudedBag(t, pbkdf2KDF(1_000_000, 0)), 1)
	var many [][]byte
	for range 1000 {
		many = append(many, million)
	}
	scrypt := func(n, r, p int) []byte {
		return pfx(t, safe(t, shroudedBag(t, algorithmAny{oidScrypt, scryptParameters{saltOf8, n, r, p}})))
	}
	for name, data := range map[string][]byte{
		"JCEKS":              javaStore{magic: magicJCEKS, entries: [][]byte{keyEntry("k", jceksProtected(t, saltOf8, most+1, make([]byte, 48)))}}.bytes(),
		"JCEKS secret":       javaStore{magic: magicJCEKS, entries: [][]byte{secretEntry(sealedStream(keyProtector, nil, sealedValues(t, math.MaxInt32, make([]byte, 48))))}}.bytes(),
		"PBKDF2":             pfx(t, safe(t, shroudedBag(t, pbkdf2KDF(most+1, 0)))),
		"PBKDF2 2^31":        pfx(t, safe(t, shroudedBag(t, pbkdf2KDF(math.MaxInt32, 0)))),
		"PKCS#12":            pfx(t, safe(t, legacy(most+1))),
		"MAC":                pfxWithMAC(t, "", 32, most+1),
		"PBMAC1":             pbmac1File(t, pbkdf2KDF(most+1, 32)),
		"PBMAC1 long key":    pbmac1File(t, pbkdf2KDF(1_000_000, 1024)), // 32 times the hash
		"PBMAC1 longer key":  pbmac1File(t, pbkdf2KDF(1, 1025)),
		"five and a MAC":     pfxWithMAC(t, "", 32, most, safe(t, many[0])),
		"thousand bags":      pfx(t, safe(t, many...)),
		"scrypt N":           scrypt(1<<21, 8, 1),
		"scrypt memory":      scrypt(1<<15, 16, 1),
		"scrypt huge memory": scrypt(1<<20, 1<<20, 1),
		"scrypt time":        scrypt(1<<14, 8, 64),
		"scrypt p":           scrypt(2, 1, math.MaxInt32),
	} {
		start := time.Now()
		s, err := keystore.Open(data, noPassword)
		if err == nil { // an entry of many: the first ones were paid for
			require.NotEmpty(t, s.Entries, name)
			err = s.Entries[len(s.Entries)-1].Err
		}
		if _, ok := errors.AsType[*keystore.LimitError](err); !ok {
			assert.ErrorIs(t, err, keystore.ErrFormat, name) // a length beyond every use
		}
		if !raceDetector { // which is ten times as slow
			assert.Less(t, time.Since(start), 5*time.Second, name)
		}
	}
}

func TestNothingIsDerivedForACallerWhoHasGone(t *testing.T) {
	for _, file := range []string{"stores/o-default.p12", "stores/keyplusca.jceks"} {
		data := golden(t, file)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := keystore.OpenContext(ctx, data, options)
		require.NoError(t, err, file)
		cancel()
		_, err = keystore.OpenContext(ctx, data, options)
		assert.ErrorIs(t, err, context.Canceled, file)
	}
}

func TestTheLimitOfIterationsCanBeSet(t *testing.T) {
	data := golden(t, "stores/o-default.p12") // three times 2048
	for limit, ok := range map[int]bool{6143: false, 6144: true, -1: true, 2047: false} {
		s, err := keystore.Open(data, keystore.Options{Password: storePassword, MaxIterations: limit})
		if err == nil {
			_, err = s.TLSCertificate("")
		}
		var exceeded *keystore.LimitError
		if assert.Equal(t, ok, err == nil, limit); !ok {
			assert.ErrorAs(t, err, &exceeded)
		}
	}
}

func TestImpossibleParametersOfADerivationAreMalformed(t *testing.T) {
	huge := asn1.RawValue{Tag: asn1.TagInteger, Bytes: bytes.Repeat([]byte{0x7f}, 40)}
	kdf := func(v any) []byte { return pfx(t, safe(t, shroudedBag(t, algorithmAny{oidPBKDF2, v}))) }
	scrypt := func(n, r, p int) []byte {
		return pfx(t, safe(t, shroudedBag(t, algorithmAny{oidScrypt, scryptParameters{saltOf8, n, r, p}})))
	}
	for name, data := range map[string][]byte{
		"no iterations":               kdf(pbkdf2Parameters{saltOf8, 0, 0, algorithm{OID: oidHMACSHA256}}),
		"-1 iterations":               kdf(pbkdf2Parameters{saltOf8, -1, 0, algorithm{OID: oidHMACSHA256}}),
		"iterations of 40 bytes":      kdf(struct{ S, I any }{saltOf8, huge}),
		"key of -1":                   kdf(pbkdf2Parameters{saltOf8, 1, -1, algorithm{OID: oidHMACSHA256}}),
		"key of 16":                   kdf(pbkdf2Parameters{saltOf8, 1, 16, algorithm{OID: oidHMACSHA256}}),
		"key of 40 bytes of length":   kdf(struct{ S, I, L any }{saltOf8, 1, huge}),
		"no salt":                     kdf(pbkdf2Parameters{nil, 1, 0, algorithm{OID: oidHMACSHA256}}),
		"MAC, no iterations":          pfxWithMAC(t, "", 32, 0),
		"MAC, -1 iterations":          pfxWithMAC(t, "", 32, -1),
		"PBMAC1, no length":           pbmac1File(t, pbkdf2KDF(1, 0)),
		"PBMAC1, length 1":            pbmac1File(t, pbkdf2KDF(1, 1)),
		"PBMAC1, length 19":           pbmac1File(t, pbkdf2KDF(1, 19)),
		"PBMAC1, length -1":           pbmac1File(t, pbkdf2KDF(1, -1)),
		"PBMAC1, no iterations":       pbmac1File(t, pbkdf2KDF(0, 32)),
		"scrypt N of 0":               scrypt(0, 8, 1),
		"scrypt N of 1":               scrypt(1, 8, 1),
		"scrypt N no power of two":    scrypt(1000, 8, 1),
		"scrypt N negative":           scrypt(-16384, 8, 1),
		"scrypt r of 0":               scrypt(16384, 0, 1),
		"scrypt p negative":           scrypt(16384, 8, -1),
		"version 4":                   sequence([]byte{2, 1, 3}, sequence(marshal(t, oid(1, 2, 3)), context0(octets(nil)))),
		"no content":                  sequence([]byte{2, 1, 3}, sequence(marshal(t, oidData))),
		"content with the wrong tag":  sequence([]byte{2, 1, 3}, sequence(marshal(t, oidData), tlv(0xa1, octets(sequence())))),
		"a safe that is no SEQUENCE":  pfx(t, sequence(marshal(t, oidData), context0(octets([]byte{2, 1, 1})))),
		"a bag without value":         pfx(t, safe(t, sequence(marshal(t, oidKeyBag)))),
		"attributes that are no SET":  pfx(t, safe(t, sequence(marshal(t, oidKeyBag), context0(sequence()), sequence()))),
		"big number for the version":  sequence(marshal(t, new(big.Int).Lsh(big.NewInt(3), 100)), sequence()),
		"a MAC that is no structure":  sequence([]byte{2, 1, 3}, sequence(marshal(t, oidData), context0(octets(sequence()))), []byte{2, 1, 1}),
		"something after the MAC":     sequence([]byte{2, 1, 3}, sequence(marshal(t, oidData), context0(octets(sequence()))), sequence(), sequence()),
		"a cert bag without its type": pfx(t, safe(t, bag(t, oidCertBag, sequence(), bagAttributes{}))),
	} {
		_, err := keystore.Open(data, keystore.Options{Format: keystore.FormatPKCS12})
		assert.ErrorIs(t, err, keystore.ErrFormat, name)
	}
}

func TestNestingIsBounded(t *testing.T) {
	for name, data := range map[string][]byte{
		"indefinite":   bytes.Repeat([]byte{0x30, 0x80}, 100_000),
		"strings":      join([]byte{0x30, 0x80, 2, 1, 3}, bytes.Repeat([]byte{0x24, 0x80}, 100_000)),
		"definite":     nested(100),
		"unterminated": {0x30, 0x80, 2, 1, 3, 0x30, 0x80, 6, 1, 1},
	} {
		_, err := keystore.Open(data, keystore.Options{Format: keystore.FormatPKCS12})
		require.ErrorIs(t, err, keystore.ErrFormat, name)
		if name == "unterminated" {
			assert.ErrorIs(t, err, keystore.ErrTruncated)
		} else {
			assert.ErrorContains(t, err, "nested deeper than 32", name)
		}
	}
}

func nested(n int) []byte {
	out := []byte{2, 1, 3}
	for range n {
		out = sequence(out)
	}
	return out
}

func TestTooManyThingsAreRefused(t *testing.T) {
	one := trustedEntry("", nil)
	for name, data := range map[string][]byte{
		"entries":    javaStore{entries: [][]byte{bytes.Repeat(one, 10_001)}, count: 10_001}.bytes(),
		"bags":       pfx(t, safe(t, bytes.Repeat(certBag(t, nil, bagAttributes{}), 10_001))),
		"safes":      pfx(t, bytes.Repeat(safe(t), 10_001)),
		"attributes": pfx(t, safe(t, sequence(marshal(t, oidKeyBag), context0(sequence()), tlv(0x31, bytes.Repeat(sequence(marshal(t, oidLocalKeyID), tlv(0x31)), 10_001))))),
		"PEM blocks": bytes.Repeat([]byte("-----BEGIN X-----\nAAAA\n-----END X-----\n"), 10_001),
	} {
		_, err := keystore.Open(data, noPassword)
		var limit *keystore.LimitError
		assert.ErrorAs(t, err, &limit, name)
	}
	_, err := keystore.Open(make([]byte, 8<<20+1), noPassword)
	assert.EqualError(t, err, "keystore: more than 8388608 bytes of the file (Options.MaxBytes)")
	_, err = keystore.Open(make([]byte, 100), keystore.Options{MaxBytes: 99})
	assert.EqualError(t, err, "keystore: more than 99 bytes of the file (Options.MaxBytes)")
	file := filepath.Join(t.TempDir(), "large")
	require.NoError(t, os.WriteFile(file, make([]byte, 8<<20+1), 0o600))
	_, err = keystore.OpenFile(file, noPassword)
	assert.ErrorContains(t, err, "more than 8388608 bytes")
}

// The largest files that are read, full of what costs most.
func TestAFullFileStaysWithin64MiBOfMemory(t *testing.T) {
	const size = 8<<20 - 200_000
	var entries, bags, keys [][]byte
	cert, key := pki(t, "root.crt"), pki(t, "ec256.key")
	per := size / 9_000
	padded := join(cert, make([]byte, max(0, per-len(cert)-200)))
	for i := range 4_900 {
		entries = append(entries, trustedEntry(string(rune('a'+i%26))+strings.Repeat("x", i%50), padded))
		bags = append(bags, certBag(t, join(u4(uint32(i)), padded), bagAttributes{alias: strings.Repeat("y", i%50)}))
		if i < 200 {
			keys = append(keys, keyBag(t, key, bagAttributes{}))
		}
	}
	for name, data := range map[string][]byte{
		"JKS":        javaStore{entries: entries}.bytes(),
		"PKCS#12":    pfx(t, safe(t, join(keys...), join(bags...))),
		"one string": pfx(t, sequence(marshal(t, oidData), context0(octets(make([]byte, size))))),
		"BER":        join([]byte{0x30, 0x80, 2, 1, 3, 0x30, 0x80}, bytes.Repeat([]byte{0x24, 0x80, 4, 1, 1, 0, 0}, size/7)),
		"tiny":       pfx(t, sequence(marshal(t, oidData), context0(octets(sequence(bytes.Repeat([]byte{5, 0}, size/2)))))),
	} {
		require.LessOrEqual(t, len(data), 8<<20, name)
		runtime.GC()
		peak := peakOf(func() {
			s, err := keystore.Open(data, noPassword)
			if err != nil {
				assert.True(t, isTyped(err), "%s: %v", name, err)
				return
			}
			s.Warnings()
		})
		t.Logf("%s: %d bytes, peak %d MiB", name, len(data), peak>>20)
		assert.Less(t, peak, uint64(64<<20), name)
	}
}

// peakOf returns by how much the heap in use grows at most while f runs, as far
// as looking every millisecond tells.
func peakOf(f func()) uint64 {
	var start, now runtime.MemStats
	runtime.ReadMemStats(&start)
	done := make(chan struct{})
	peak := make(chan uint64)
	go func() {
		var most uint64
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for {
			runtime.ReadMemStats(&now)
			if now.HeapAlloc > start.HeapAlloc {
				most = max(most, now.HeapAlloc-start.HeapAlloc)
			}
			select {
			case <-done:
				peak <- most
				return
			case <-ticker.C:
			}
		}
	}()
	f()
	close(done)
	return <-peak
}
