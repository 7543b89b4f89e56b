package tlsprops

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
	"math/big"
)

const (
	oidPBES2    = "1.2.840.113549.1.5.13"
	oidPBKDF2   = "1.2.840.113549.1.5.12"
	oidHMACSHA1 = "1.2.840.113549.2.7"
)

// pbes2Hashes are the pseudo-random functions of PBKDF2 (RFC 8018 appendix
// B.1.2): HMAC with these.
var pbes2Hashes = map[string]func() hash.Hash{
	oidHMACSHA1:           sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
	"1.2.840.113549.2.12": sha512.New512_224,
	"1.2.840.113549.2.13": sha512.New512_256,
}

// pbes2Ciphers are the ciphers, all of them in CBC mode (RFC 8018 appendix B.2).
var pbes2Ciphers = map[string]struct {
	keyLen, blockSize int
	legacy            bool
	cipher            func(key []byte) (cipher.Block, error)
}{
	"1.2.840.113549.3.7":      {24, des.BlockSize, true, des.NewTripleDESCipher},
	"2.16.840.1.101.3.4.1.2":  {16, aes.BlockSize, false, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.BlockSize, false, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.BlockSize, false, aes.NewCipher},
}

// decryptPBES2 decrypts data (RFC 8018 section 6.2), for the key derivation
// function PBKDF2.
func decryptPBES2(parameters asn1.RawValue, data []byte, passphrase string) ([]byte, error) {
	var params struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	if rest, err := asn1.Unmarshal(parameters.FullBytes, &params); err != nil || len(rest) > 0 {
		return nil, errors.New("unreadable parameters of PBES2")
	}
	if oid := params.KDF.Algorithm.String(); oid != oidPBKDF2 {
		return nil, &unknownAlgorithmError{oid}
	}
	oid := params.Cipher.Algorithm.String()
	scheme, ok := pbes2Ciphers[oid]
	if !ok {
		return nil, &unknownAlgorithmError{oid}
	}
	var kdf struct {
		Salt       asn1.RawValue // an OCTET STRING; the other choice was never defined
		Iterations int
		KeyLen     *big.Int                 `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if rest, err := asn1.Unmarshal(params.KDF.Parameters.FullBytes, &kdf); err != nil || len(rest) > 0 || !isA(kdf.Salt, asn1.TagOctetString) {
		return nil, errors.New("unreadable parameters of PBKDF2")
	}
	prf := oidHMACSHA1 // the default
	if len(kdf.PRF.Algorithm) > 0 {
		prf = kdf.PRF.Algorithm.String()
	}
	newHash, ok := pbes2Hashes[prf]
	if !ok {
		return nil, &unknownAlgorithmError{prf}
	}
	var iv []byte
	if rest, err := asn1.Unmarshal(params.Cipher.Parameters.FullBytes, &iv); err != nil || len(rest) > 0 || len(iv) != scheme.blockSize {
		return nil, errors.New("an initialization vector of the wrong length")
	}
	if kdf.KeyLen != nil && kdf.KeyLen.Cmp(big.NewInt(int64(scheme.keyLen))) != 0 {
		return nil, fmt.Errorf("PBKDF2 asks for a key of another length than the %d bytes of its cipher", scheme.keyLen)
	}
	if err := checkKDF(kdf.Salt.Bytes, kdf.Iterations); err != nil {
		return nil, err
	}
	if err := checkCBC(data, scheme.blockSize); err != nil {
		return nil, err
	}
	if fips140.Enforced() {
		const shortest = 16 // bytes of salt, NIST SP 800-132 section 5.1
		switch {
		case scheme.legacy:
			return nil, fipsError("triple DES")
		case prf == oidHMACSHA1:
			return nil, fipsError("PBKDF2 over SHA-1")
		case len(kdf.Salt.Bytes) < shortest:
			return nil, fipsError(fmt.Sprintf("a salt of %d bytes", len(kdf.Salt.Bytes)))
		}
	}
	key, err := pbkdf2.Key(newHash, passphrase, kdf.Salt.Bytes, kdf.Iterations, scheme.keyLen)
	if err != nil {
		return nil, err
	}
	block, err := scheme.cipher(key)
	if err != nil {
		return nil, err
	}
	return decryptCBC(block, iv, data)
}
