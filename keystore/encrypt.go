package keystore

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// What OWASP recommends for PBKDF2 with SHA-256. The salt is as long as FIPS
// 140-only mode asks for.
const (
	writeIterations = 600_000
	writeSalt       = 16
	writeKey        = 32
)

// encryptPKCS8 encrypts a PKCS #8 key with PBES2 (RFC 8018 section 6.2):
// AES-256-CBC under PBKDF2 with HMAC-SHA-256.
func encryptPKCS8(der []byte, password string) ([]byte, error) {
	random := make([]byte, writeSalt+aes.BlockSize)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	salt, iv := random[:writeSalt], random[writeSalt:]
	key, err := pbkdf2.Key(sha256.New, password, salt, writeIterations, writeKey)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	n := aes.BlockSize - len(der)%aes.BlockSize
	data := append(bytes.Clone(der), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)

	type algorithm struct {
		OID        asn1.ObjectIdentifier
		Parameters any
	}
	type kdf struct {
		Salt       []byte
		Iterations int
		PRF        pkix.AlgorithmIdentifier
	}
	hmacSHA256 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, Parameters: asn1.NullRawValue}
	return asn1.Marshal(struct {
		Algorithm algorithm
		Data      []byte
	}{
		algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}, struct{ KDF, Cipher algorithm }{
			algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}, kdf{salt, writeIterations, hmacSHA256}},
			algorithm{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, iv},
		}},
		data,
	})
}
