package tlsprops

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// addGolden seeds a fuzz target with each golden file.
func addGolden(f *testing.F, add func(data []byte)) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "pem", "*.pem"))
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		add(data)
	}
}

func FuzzParseChain(f *testing.F) {
	addGolden(f, func(data []byte) { f.Add(data) })
	for _, text := range goodChains(f) {
		f.Add([]byte(text))
	}
	for _, tt := range badChains(f) {
		f.Add([]byte(tt.text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		require.NotEmpty(t, describe(data))
		chain, err := parseChain(data)
		again, errAgain := parseChain(append(bytes.Clone(data), '\n'))
		require.Equal(t, err == nil, errAgain == nil, "one more newline makes a difference")
		if err != nil {
			require.Nil(t, chain)
			assertOneLineWithout(t, err)
			return
		}
		require.True(t, isPEM(data))
		require.Len(t, again, len(chain))
		// What is returned is in the file, and what the file announces is returned.
		bare := strings.Join(strings.Fields(string(data)), "")
		for i, cert := range chain {
			require.Equal(t, cert.Raw, again[i].Raw)
			whole := len(cert.Raw) / 3 * 3 // a trusted certificate has more bytes after it
			require.Contains(t, bare, base64.StdEncoding.EncodeToString(cert.Raw[:whole]))
		}
		var announced int
		for line := range bytes.Lines(data) {
			line = bytes.TrimPrefix(line, []byte(utf8BOM))
			if bytes.HasPrefix(line, []byte(pemBegin)) && bytes.Contains(line, []byte("CERTIFICATE-----")) {
				announced++
			}
		}
		require.Len(t, chain, announced)
	})
}

func FuzzParseKey(f *testing.F) {
	addGolden(f, func(data []byte) { f.Add(data, goldenPassphrase) })
	f.Add(golden(f, "ec-pbe-sha1-3des-emoji.pem"), "pässwörd 😀")
	f.Add(golden(f, "ec-pbe-sha1-3des-empty.pem"), "")
	f.Add(sealedPEM(f), goldenPassphrase)
	f.Fuzz(func(t *testing.T, data []byte, passphrase string) {
		for rest := data; ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if asksForMuch(block.Bytes) {
				return
			}
		}
		decoded := errors.New("decoded")
		key, encrypted, err := parseKey(data, passphrase, func([]byte) (crypto.Signer, error) { return nil, decoded })
		again, encryptedAgain, errAgain := parseKey(append(bytes.Clone(data), '\n'), passphrase, nil)
		require.Equal(t, encrypted, encryptedAgain)
		if err != nil {
			require.Nil(t, key)
			require.Error(t, errAgain)
			assertOneLineWithout(t, err)
			assert.Less(t, len(err.Error()), 400)
			require.False(t, errors.Is(err, ErrPassphraseRequired) && passphrase != "")
			require.False(t, errors.Is(err, ErrIncorrectPassphrase) && passphrase == "")
			return
		}
		require.NoError(t, errAgain)
		assertSameKey(t, key, again)
		if !encrypted {
			// crypto/tls, which takes a key without certificate for a mismatch, gets
			// that far: it has read the key.
			_, err := tls.X509KeyPair(golden(t, "cert.pem"), bytes.ReplaceAll(data, []byte("CERTIFICATE"), []byte("OTHER")))
			if err != nil {
				assert.NotContains(t, err.Error(), "failed to parse private key")
			}
		}
	})
}

func sealedPEM(tb testing.TB) []byte {
	tb.Helper()
	return encryptedPEM(sealPBES2(tb, goldenDER(tb, "ec.pem"), goldenPassphrase, pbkdf2Parameters{[]byte("saltsalt"), 1, 32, hmacSHA256}))
}

// asksForMuch tells whether an integer of one to eight bytes in der could be a
// count of iterations that would keep a fuzzer from its work.
func asksForMuch(der []byte) bool {
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return false
		}
		var n int64
		if _, err := asn1.Unmarshal(v.FullBytes, &n); err == nil && n > 4096 {
			return true
		}
		if v.IsCompound && asksForMuch(v.Bytes) {
			return true
		}
		der = rest
	}
	return false
}

// FuzzDecryptPKCS8 goes for the parsers of PBES1, PBES2 and PKCS #12 without the
// PEM around them.
func FuzzDecryptPKCS8(f *testing.F) {
	addGolden(f, func(data []byte) {
		if block, _ := pem.Decode(data); block != nil && shapeOf(block.Bytes) == shapeEncryptedPKCS8 {
			f.Add(block.Bytes, goldenPassphrase)
		}
	})
	block, _ := pem.Decode(sealedPEM(f))
	f.Add(block.Bytes, goldenPassphrase)
	for _, oid := range []asn1.ObjectIdentifier{md5DESOID, pkcs123DESOID, pkcs12RC4OID} {
		f.Add(mustMarshal(f, encryptedKey{algorithm{oid, pbeParameters{[]byte("saltsalt"), 2}}, make([]byte, 16)}), "")
	}
	f.Fuzz(func(t *testing.T, der []byte, passphrase string) {
		if asksForMuch(der) {
			return
		}
		plain, err := decryptPKCS8(der, passphrase)
		if err != nil {
			require.Nil(t, plain)
			assertOneLineWithout(t, err)
			return
		}
		require.Less(t, len(plain), len(der), "padding and parameters are not part of the key")
		again, err := decryptPKCS8(der, passphrase)
		require.NoError(t, err)
		require.Equal(t, plain, again)
	})
}

func FuzzDecryptTraditional(f *testing.F) {
	for name, scheme := range traditionalCiphers {
		f.Add("4,ENCRYPTED", name+","+strings.Repeat("0a", scheme.blockSize), make([]byte, 48), goldenPassphrase)
	}
	block, _ := pem.Decode(golden(f, "rsa-traditional-aes256.pem"))
	f.Add(block.Headers["Proc-Type"], block.Headers["DEK-Info"], block.Bytes, goldenPassphrase)
	f.Fuzz(func(t *testing.T, procType, dekInfo string, der []byte, passphrase string) {
		b := pemBlock{headers: map[string]string{"Proc-Type": procType, "DEK-Info": dekInfo}, der: der}
		plain, err := b.decryptTraditional(passphrase)
		if err != nil {
			require.Nil(t, plain)
			assertOneLineWithout(t, err)
			assert.Less(t, len(err.Error()), 400)
			return
		}
		require.Less(t, len(plain), len(der), "there is always padding")
	})
}
