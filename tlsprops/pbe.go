package tlsprops

import (
	"crypto/cipher"
	"crypto/des"
	"crypto/fips140"
	"crypto/md5"
	"crypto/rc4"
	"crypto/sha1"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// Limits on what an encrypted key may ask for before any of it is computed. The
// JDK refuses the same count of iterations; five million take about a second.
const (
	maxIterations = 5_000_000
	maxSalt       = 1024 // bytes; files in use have 8 to 64
)

// decryptPKCS8 decrypts an EncryptedPrivateKeyInfo (RFC 5958 section 3). It
// returns an *unknownAlgorithmError for what it does not know.
func decryptPKCS8(der []byte, passphrase string) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 {
		return nil, errDamagedKey
	}
	oid := info.Algorithm.Algorithm.String()
	if oid == oidPBES2 {
		return decryptPBES2(info.Algorithm.Parameters, info.Data, passphrase)
	}
	scheme, ok := pbeSchemes[oid]
	if !ok {
		return nil, &unknownAlgorithmError{oid}
	}
	return scheme.decrypt(info.Algorithm.Parameters, info.Data, passphrase)
}

// pbeScheme is one of the schemes from before PBES2, which join one hash and one
// cipher.
type pbeScheme struct {
	name   string
	hash   func() hash.Hash // of PBKDF1; nil means SHA-1 in the way of PKCS #12
	keyLen int
	cipher func(key []byte) (cipher.Block, error) // nil means RC4
}

// pbeSchemes are PBES1 (RFC 8018 appendix A.3) and those of PKCS #12 (RFC 7292
// appendix C), but for MD2.
var pbeSchemes = map[string]pbeScheme{
	"1.2.840.113549.1.5.3":    {"PBE-MD5-DES", md5.New, 8, des.NewCipher},
	"1.2.840.113549.1.5.6":    {"PBE-MD5-RC2-64", md5.New, 8, newRC2},
	"1.2.840.113549.1.5.10":   {"PBE-SHA1-DES", sha1.New, 8, des.NewCipher},
	"1.2.840.113549.1.5.11":   {"PBE-SHA1-RC2-64", sha1.New, 8, newRC2},
	"1.2.840.113549.1.12.1.1": {"PBE-SHA1-RC4-128", nil, 16, nil},
	"1.2.840.113549.1.12.1.2": {"PBE-SHA1-RC4-40", nil, 5, nil},
	"1.2.840.113549.1.12.1.3": {"PBE-SHA1-3DES", nil, 24, des.NewTripleDESCipher},
	"1.2.840.113549.1.12.1.4": {"PBE-SHA1-2DES", nil, 16, newDoubleDES},
	"1.2.840.113549.1.12.1.5": {"PBE-SHA1-RC2-128", nil, 16, newRC2},
	"1.2.840.113549.1.12.1.6": {"PBE-SHA1-RC2-40", nil, 5, newRC2},
}

// newDoubleDES is triple DES with two keys, the first of them used twice.
func newDoubleDES(key []byte) (cipher.Block, error) {
	return des.NewTripleDESCipher(append(key[:16:16], key[:8]...))
}

func (s pbeScheme) decrypt(parameters asn1.RawValue, data []byte, passphrase string) ([]byte, error) {
	var params struct {
		Salt       []byte
		Iterations int
	}
	if rest, err := asn1.Unmarshal(parameters.FullBytes, &params); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("unreadable parameters of %s", s.name)
	}
	if err := checkKDF(params.Salt, params.Iterations); err != nil {
		return nil, err
	}
	const blockSize = 8 // of DES and RC2
	if s.cipher != nil {
		if err := checkCBC(data, blockSize); err != nil {
			return nil, err
		}
	}
	if fips140.Enforced() {
		return nil, fipsError(s.name)
	}
	if s.hash != nil {
		if len(params.Salt) != 8 {
			return nil, fmt.Errorf("a salt of %d bytes where %s has 8", len(params.Salt), s.name)
		}
		dk := pbkdf1(s.hash(), passphrase, params.Salt, params.Iterations)
		return s.open(dk[:8], dk[8:16], data)
	}
	for _, password := range bmpPasswords(passphrase) {
		key := pkcs12Key(pkcs12ForKey, password, params.Salt, params.Iterations, s.keyLen)
		iv := pkcs12Key(pkcs12ForIV, password, params.Salt, params.Iterations, blockSize)
		plain, err := s.open(key, iv, data)
		if err != nil && !errors.Is(err, ErrIncorrectPassphrase) {
			return nil, err
		}
		if err == nil && shapeOf(plain) == shapePKCS8 {
			return plain, nil
		}
	}
	return nil, ErrIncorrectPassphrase
}

func (s pbeScheme) open(key, iv, data []byte) ([]byte, error) {
	if s.cipher == nil {
		stream, err := rc4.NewCipher(key)
		if err != nil {
			return nil, err
		}
		plain := make([]byte, len(data))
		stream.XORKeyStream(plain, data)
		return plain, nil
	}
	block, err := s.cipher(key)
	if err != nil {
		return nil, err
	}
	return decryptCBC(block, iv, data)
}

// pbkdf1 derives a key (RFC 8018 section 5.1) as long as the hash.
func pbkdf1(h hash.Hash, passphrase string, salt []byte, iterations int) []byte {
	h.Write([]byte(passphrase))
	h.Write(salt)
	dk := h.Sum(nil)
	for range iterations - 1 {
		h.Reset()
		h.Write(dk)
		dk = h.Sum(dk[:0])
	}
	return dk
}

func checkKDF(salt []byte, iterations int) error {
	if iterations < 1 || iterations > maxIterations {
		return fmt.Errorf("%d iterations of the key derivation: between 1 and %d are accepted", iterations, maxIterations)
	}
	if len(salt) < 1 || len(salt) > maxSalt {
		return fmt.Errorf("a salt of %d bytes: between 1 and %d are accepted", len(salt), maxSalt)
	}
	return nil
}

// checkCBC refuses data that CBC with padding cannot have made, which the
// functions of crypto/cipher would panic on.
func checkCBC(data []byte, blockSize int) error {
	if len(data) == 0 || len(data)%blockSize != 0 {
		return fmt.Errorf("%d bytes of encrypted data, which is not a multiple of the block of %d", len(data), blockSize)
	}
	return nil
}

// decryptCBC decrypts data, of which checkCBC must approve, and takes the
// padding off (RFC 8018 section 6.1.1).
func decryptCBC(block cipher.Block, iv, data []byte) ([]byte, error) {
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	n := int(plain[len(plain)-1])
	if n < 1 || n > block.BlockSize() {
		return nil, ErrIncorrectPassphrase
	}
	for _, b := range plain[len(plain)-n:] {
		if int(b) != n {
			return nil, ErrIncorrectPassphrase
		}
	}
	return plain[:len(plain)-n], nil
}

func fipsError(algorithm string) error {
	// OpenSSL makes the 16 bytes of salt that this mode asks for since 3.2.
	return fmt.Errorf("encrypted with %s, which is not allowed in FIPS 140-only mode: %s (of OpenSSL 3.2 or later)", algorithm, convertHint)
}

const convertHint = "convert it with openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -in FILE -out NEW"

// unknownAlgorithmError is the error for an encrypted PKCS #8 key whose algorithm
// is for a Decoder to know.
type unknownAlgorithmError struct{ oid string }

func (e *unknownAlgorithmError) Error() string {
	name := e.oid
	if known, ok := unknownAlgorithms[e.oid]; ok {
		name = fmt.Sprintf("%s (%s)", known, e.oid)
	}
	return fmt.Sprintf("encrypted with %s, which is not known here: set a Decoder that opens it, or %s", name, convertHint)
}

// unknownAlgorithms names what is known to occur, for the error message.
var unknownAlgorithms = map[string]string{
	"1.2.840.113549.1.5.1":      "PBE-MD2-DES",
	"1.2.840.113549.1.5.4":      "PBE-MD2-RC2-64",
	"1.3.6.1.4.1.11591.4.11":    "scrypt",
	"1.3.14.3.2.7":              "DES-CBC",
	"1.2.840.113549.3.2":        "RC2-CBC",
	"1.2.840.113533.7.66.10":    "CAST5-CBC",
	"1.2.392.200011.61.1.1.1.2": "Camellia-128-CBC",
	"1.2.392.200011.61.1.1.1.3": "Camellia-192-CBC",
	"1.2.392.200011.61.1.1.1.4": "Camellia-256-CBC",
	"1.2.410.200046.1.1.2":      "ARIA-128-CBC",
	"1.2.410.200046.1.1.7":      "ARIA-192-CBC",
	"1.2.410.200046.1.1.12":     "ARIA-256-CBC",
	"1.2.156.10197.1.104.2":     "SM4-CBC",
	"2.16.840.1.101.3.4.1.6":    "AES-128-GCM",
	"2.16.840.1.101.3.4.1.26":   "AES-192-GCM",
	"2.16.840.1.101.3.4.1.46":   "AES-256-GCM",
	"2.16.840.1.101.3.4.1.4":    "AES-128-CFB",
	"2.16.840.1.101.3.4.1.24":   "AES-192-CFB",
	"2.16.840.1.101.3.4.1.44":   "AES-256-CFB",
}
