package pbe

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// encryptCBC pads and encrypts.
func encryptCBC(block cipher.Block, iv, plain []byte) []byte {
	n := block.BlockSize() - len(plain)%block.BlockSize()
	data := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	return data
}

func TestPKCS12PasswordsAreUTF16WithANULAtTheEnd(t *testing.T) {
	for password, want := range map[string]string{
		"ab":   "006100620000",
		"ä":    "00e40000",
		"\xe4": "00e40000", // ISO 8859-1, which is no UTF-8
		"日":    "65e50000",
		"😀":    "d83dde000000", // a surrogate pair
	} {
		assert.Equal(t, []string{want}, []string{hex.EncodeToString(PKCS12Passwords(password)[0])}, "%q", password)
		assert.Len(t, PKCS12Passwords(password), 1)
	}
	assert.Equal(t, [][]byte{{0, 0}, nil}, PKCS12Passwords(""))
}

func TestPaddingThatCBCDoesNotMakeIsRefused(t *testing.T) {
	block, err := aes.NewCipher(make([]byte, 16))
	require.NoError(t, err)
	iv := make([]byte, aes.BlockSize)
	for name, plain := range map[string][]byte{
		"of no bytes":      make([]byte, 32),
		"of 17 bytes":      bytes.Repeat([]byte{17}, 32),
		"of 32 bytes":      bytes.Repeat([]byte{32}, 32),
		"of unequal bytes": append(make([]byte, 29), 2, 3, 3),
		"longer than data": bytes.Repeat([]byte{0xff}, 16),
	} {
		data := make([]byte, len(plain))
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, plain)
		_, err := DecryptCBC(block, iv, data)
		assert.ErrorIs(t, err, ErrIncorrect, name)
	}
	plain, err := DecryptCBC(block, iv, encryptCBC(block, iv, make([]byte, 32)))
	require.NoError(t, err, "a whole block of padding")
	assert.Equal(t, make([]byte, 32), plain)
}

func TestKeyDerivationDoesNotAllocateInItsLoop(t *testing.T) {
	for name, derive := range map[string]func(iterations int){
		"PKCS12": func(n int) { PKCS12Key(sha1.New, PKCS12ForKey, []byte("\x00a\x00\x00"), []byte("saltsalt"), n, 24) },
		"PBKDF1": func(n int) { pbkdf1(md5.New(), []byte("a"), []byte("saltsalt"), n) },
	} {
		few := testing.AllocsPerRun(10, func() { derive(1) })
		many := testing.AllocsPerRun(10, func() { derive(1000) })
		assert.Equal(t, few, many, name)
	}
}

func BenchmarkKeyDerivation(b *testing.B) {
	b.Run("PKCS12", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			PKCS12Key(sha1.New, PKCS12ForKey, []byte("\x00a\x00\x00"), []byte("saltsalt"), 2048, 24)
		}
	})
	b.Run("PBKDF2", func(b *testing.B) { // the standard library's, to compare with
		b.ReportAllocs()
		for b.Loop() {
			if _, err := pbkdf2.Key(sha256.New, "a", []byte("saltsalt"), 2048, 32); err != nil {
				b.Fatal(err)
			}
		}
	})
}
