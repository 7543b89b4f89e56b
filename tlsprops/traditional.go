package tlsprops

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/fips140"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/carewire/carewire/internal/pbe"
)

// Keys encrypted in the way of OpenSSL before PKCS #8: two headers of the PEM
// block (RFC 1421 section 4.6) name the cipher and its initialization vector.
// The key comes from a single round of MD5 over the passphrase: such a file
// protects little, but there are many.

// traditionalCiphers are the ciphers that a DEK-Info header may name.
var traditionalCiphers = map[string]struct {
	keyLen, blockSize int
	cipher            func(key []byte) (cipher.Block, error)
}{
	"DES-CBC":      {8, des.BlockSize, des.NewCipher},
	"DES-EDE3-CBC": {24, des.BlockSize, des.NewTripleDESCipher},
	"AES-128-CBC":  {16, aes.BlockSize, aes.NewCipher},
	"AES-192-CBC":  {24, aes.BlockSize, aes.NewCipher},
	"AES-256-CBC":  {32, aes.BlockSize, aes.NewCipher},
}

// isTraditionalEncrypted tells whether the block's headers say it is encrypted.
func (b *pemBlock) isTraditionalEncrypted() bool {
	_, kind, _ := strings.Cut(b.headers["Proc-Type"], ",")
	return strings.TrimSpace(kind) == "ENCRYPTED" || b.headers["DEK-Info"] != ""
}

func (b *pemBlock) decryptTraditional(passphrase string) ([]byte, error) {
	name, text, _ := strings.Cut(b.headers["DEK-Info"], ",")
	name = strings.ToUpper(strings.TrimSpace(name))
	scheme, ok := traditionalCiphers[name]
	if !ok {
		return nil, fmt.Errorf("encrypted with %s, which is not known here: %s", quoteLabel(name), convertHint)
	}
	iv, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(iv) != scheme.blockSize {
		return nil, errors.New("a DEK-Info header whose initialization vector is damaged")
	}
	if err := pbe.CheckCBC(b.der, scheme.blockSize); err != nil {
		return nil, err
	}
	if fips140.Enforced() {
		return nil, explain(&pbe.UnsupportedError{Name: "a key derived by MD5", FIPS: true})
	}
	block, err := scheme.cipher(traditionalKey(passphrase, iv[:8], scheme.keyLen))
	if err != nil {
		return nil, err
	}
	plain, err := pbe.DecryptCBC(block, iv, b.der)
	return plain, explain(err)
}

// traditionalKey is OpenSSL's EVP_BytesToKey with MD5 and a single iteration.
func traditionalKey(passphrase string, salt []byte, n int) []byte {
	var key, last []byte
	h := md5.New()
	for len(key) < n {
		h.Reset()
		h.Write(last)
		h.Write([]byte(passphrase))
		h.Write(salt)
		last = h.Sum(nil)
		key = append(key, last...)
	}
	return key[:n]
}
