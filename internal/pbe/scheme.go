package pbe

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

// Limits on what one derivation of a key may ask for. The JDK refuses the same
// count of iterations; five million take about a second.
const (
	MaxIterations = 5_000_000
	maxSalt       = 1024 // bytes; files in use have 8 to 64
)

// A Scheme is one way of decrypting under a password, with its parameters. It is
// immutable.
type Scheme struct {
	iterations int
	spellings  func(password string) [][]byte                        // of a password, in the order to try them
	open       func(password, data []byte) (plain []byte, err error) // one spelling
	blockSize  int                                                   // of CBC; 0: a stream
}

// Parse returns the scheme that algorithm asks for. Nothing is computed yet. Its
// error is an [*UnsupportedError], a [*LimitError] or tells what is malformed.
// A key derivation function of PBES2 that is not known here is looked for in
// more.
func Parse(algorithm pkix.AlgorithmIdentifier, more ...KDF) (*Scheme, error) {
	oid := algorithm.Algorithm.String()
	if oid == oidPBES2 {
		return parsePBES2(algorithm.Parameters, more)
	}
	old, ok := pbeSchemes[oid]
	if !ok {
		return nil, unknown(oid)
	}
	return old.parse(oid, algorithm.Parameters)
}

// Cost returns how many iterations one call of Decrypt with password may take.
func (s *Scheme) Cost(password string) int { return s.iterations * len(s.spellings(password)) }

// Decrypt decrypts data and takes the padding off. Where programs differ in how
// they spell a password in bytes, every spelling is tried until accept, which
// may be nil, is content with the result. The error is [ErrIncorrect] or tells
// what is malformed.
func (s *Scheme) Decrypt(data []byte, password string, accept func(plain []byte) bool) ([]byte, error) {
	if s.blockSize > 0 {
		if err := CheckCBC(data, s.blockSize); err != nil {
			return nil, err
		}
	}
	for _, spelling := range s.spellings(password) {
		plain, err := s.open(spelling, data)
		if err != nil && !errors.Is(err, ErrIncorrect) {
			return nil, err
		}
		if err == nil && (accept == nil || accept(plain)) {
			return plain, nil
		}
	}
	return nil, ErrIncorrect
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

func (p pbeScheme) parse(oid string, parameters asn1.RawValue) (*Scheme, error) {
	var params struct {
		Salt       []byte
		Iterations int
	}
	if rest, err := asn1.Unmarshal(parameters.FullBytes, &params); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("unreadable parameters of %s", p.name)
	}
	if err := CheckKDF(params.Salt, params.Iterations); err != nil {
		return nil, err
	}
	if fips140.Enforced() {
		return nil, forbidden(oid, p.name)
	}
	const blockSize = 8 // of DES and RC2
	s := &Scheme{iterations: params.Iterations}
	if p.cipher != nil {
		s.blockSize = blockSize
	}
	if p.hash != nil {
		if len(params.Salt) != 8 {
			return nil, fmt.Errorf("a salt of %d bytes where %s has 8", len(params.Salt), p.name)
		}
		s.spellings = asIs
		s.open = func(password, data []byte) ([]byte, error) {
			dk := pbkdf1(p.hash(), password, params.Salt, params.Iterations)
			return p.decrypt(dk[:8], dk[8:16], data)
		}
		return s, nil
	}
	s.spellings = PKCS12Passwords
	s.open = func(password, data []byte) ([]byte, error) {
		key := PKCS12Key(sha1.New, PKCS12ForKey, password, params.Salt, params.Iterations, p.keyLen)
		iv := PKCS12Key(sha1.New, PKCS12ForIV, password, params.Salt, params.Iterations, blockSize)
		return p.decrypt(key, iv, data)
	}
	return s, nil
}

// asIs is a password's own bytes, which are UTF-8 as a rule.
func asIs(password string) [][]byte { return [][]byte{[]byte(password)} }

func (p pbeScheme) decrypt(key, iv, data []byte) ([]byte, error) {
	if p.cipher == nil {
		stream, err := rc4.NewCipher(key)
		if err != nil {
			return nil, err
		}
		plain := make([]byte, len(data))
		stream.XORKeyStream(plain, data)
		return plain, nil
	}
	block, err := p.cipher(key)
	if err != nil {
		return nil, err
	}
	return DecryptCBC(block, iv, data)
}

// pbkdf1 derives a key (RFC 8018 section 5.1) as long as the hash.
func pbkdf1(h hash.Hash, password, salt []byte, iterations int) []byte {
	h.Write(password)
	h.Write(salt)
	dk := h.Sum(nil)
	for range iterations - 1 {
		h.Reset()
		h.Write(dk)
		dk = h.Sum(dk[:0])
	}
	return dk
}

// CheckKDF refuses the parameters of a key derivation that ask for too much.
func CheckKDF(salt []byte, iterations int) error {
	if iterations < 1 || iterations > MaxIterations {
		return &LimitError{"iterations of the key derivation", iterations, MaxIterations}
	}
	if len(salt) < 1 || len(salt) > maxSalt {
		return &LimitError{"bytes of salt", len(salt), maxSalt}
	}
	return nil
}

// CheckCBC refuses data that CBC with padding cannot have made, which the
// functions of crypto/cipher would panic on.
func CheckCBC(data []byte, blockSize int) error {
	if len(data) == 0 || len(data)%blockSize != 0 {
		return fmt.Errorf("%d bytes of encrypted data, which is not a multiple of the block of %d", len(data), blockSize)
	}
	return nil
}

// DecryptCBC decrypts data, of which CheckCBC must approve, and takes the
// padding off (RFC 8018 section 6.1.1). Its error is [ErrIncorrect].
func DecryptCBC(block cipher.Block, iv, data []byte) ([]byte, error) {
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	n := int(plain[len(plain)-1])
	if n < 1 || n > block.BlockSize() {
		return nil, ErrIncorrect
	}
	for _, b := range plain[len(plain)-n:] {
		if int(b) != n {
			return nil, ErrIncorrect
		}
	}
	return plain[:len(plain)-n], nil
}
