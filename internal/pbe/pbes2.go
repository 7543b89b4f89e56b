package pbe

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
	"unicode/utf8"
)

const (
	oidPBES2    = "1.2.840.113549.1.5.13"
	oidPBKDF2   = "1.2.840.113549.1.5.12"
	oidHMACSHA1 = "1.2.840.113549.2.7"
)

// hmacHashes are the hashes of HMAC by the OID of that HMAC (RFC 8018 appendix
// B.1.2).
var hmacHashes = map[string]func() hash.Hash{
	oidHMACSHA1:           sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
	"1.2.840.113549.2.12": sha512.New512_224,
	"1.2.840.113549.2.13": sha512.New512_256,
}

// HMACHash returns the hash of the HMAC with that OID. Its error is an
// [*UnsupportedError].
func HMACHash(oid string) (func() hash.Hash, error) {
	newHash, ok := hmacHashes[oid]
	if !ok {
		return nil, unknown(oid)
	}
	if oid == oidHMACSHA1 && fips140.Enforced() {
		return nil, forbidden(oid, "HMAC over SHA-1")
	}
	return newHash, nil
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

// A KDF is a key derivation function of PBES2 that a caller adds.
type KDF struct {
	OID string
	// Parse checks the parameters, DER, before anything is computed. keyLen is in
	// bytes. cost is counted in iterations.
	Parse func(params []byte, keyLen int) (cost int, derive func(password []byte) ([]byte, error), err error)
}

// parsePBES2 reads the parameters of RFC 8018 appendix A.4.
func parsePBES2(parameters asn1.RawValue, more []KDF) (*Scheme, error) {
	var params struct{ KDF, Cipher pkix.AlgorithmIdentifier }
	if rest, err := asn1.Unmarshal(parameters.FullBytes, &params); err != nil || len(rest) > 0 {
		return nil, errors.New("unreadable parameters of PBES2")
	}
	parseKDF := pbkdf2Derivation
	if oid := params.KDF.Algorithm.String(); oid != oidPBKDF2 {
		parseKDF = nil
		for _, kdf := range more {
			if kdf.OID == oid {
				parseKDF = kdf.Parse
			}
		}
		if parseKDF == nil {
			return nil, unknown(oid)
		}
	}
	oid := params.Cipher.Algorithm.String()
	scheme, ok := pbes2Ciphers[oid]
	if !ok {
		return nil, unknown(oid)
	}
	if scheme.legacy && fips140.Enforced() {
		return nil, forbidden(oid, "triple DES")
	}
	var iv []byte
	if rest, err := asn1.Unmarshal(params.Cipher.Parameters.FullBytes, &iv); err != nil || len(rest) > 0 || len(iv) != scheme.blockSize {
		return nil, errors.New("an initialization vector of the wrong length")
	}
	cost, derive, err := parseKDF(params.KDF.Parameters.FullBytes, scheme.keyLen)
	if err != nil {
		return nil, err
	}
	return &Scheme{
		iterations: cost,
		spellings:  UTF8Passwords,
		blockSize:  scheme.blockSize,
		open: func(password, data []byte) ([]byte, error) {
			key, err := derive(password)
			if err != nil {
				return nil, err
			}
			block, err := scheme.cipher(key)
			if err != nil {
				return nil, err
			}
			return DecryptCBC(block, iv, data)
		},
	}, nil
}

// PBKDF2 are the parameters of that function (RFC 8018 appendix A.2), checked.
type PBKDF2 struct {
	Salt       []byte
	Iterations int
	KeyLen     int // bytes; 0: not said
	Hash       func() hash.Hash
}

// maxKeyLen is in bytes. Bouncy Castle has written 256 for an HMAC; each length
// of the hash costs all the iterations once more.
const maxKeyLen = 1024

// ParsePBKDF2 reads and checks the parameters, DER.
func ParsePBKDF2(der []byte) (*PBKDF2, error) {
	var params struct {
		Salt       asn1.RawValue // an OCTET STRING; the other choice was never defined
		Iterations int
		KeyLen     *big.Int                 `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	if rest, err := asn1.Unmarshal(der, &params); err != nil || len(rest) > 0 || !isOctetString(params.Salt) {
		return nil, errors.New("unreadable parameters of PBKDF2")
	}
	p := &PBKDF2{Salt: params.Salt.Bytes, Iterations: params.Iterations}
	prf := oidHMACSHA1 // the default
	if len(params.PRF.Algorithm) > 0 {
		prf = params.PRF.Algorithm.String()
	}
	var ok bool
	if p.Hash, ok = hmacHashes[prf]; !ok {
		return nil, unknown(prf)
	}
	if params.KeyLen != nil {
		if !params.KeyLen.IsInt64() || params.KeyLen.Int64() < 1 || params.KeyLen.Int64() > maxKeyLen {
			return nil, fmt.Errorf("PBKDF2 asks for a key of another length than 1 to %d bytes", maxKeyLen)
		}
		p.KeyLen = int(params.KeyLen.Int64())
	}
	if err := CheckKDF(p.Salt, p.Iterations); err != nil {
		return nil, err
	}
	if fips140.Enforced() {
		const shortest = 16 // bytes of salt, NIST SP 800-132 section 5.1
		switch {
		case prf == oidHMACSHA1:
			return nil, forbidden(prf, "PBKDF2 over SHA-1")
		case len(p.Salt) < shortest:
			return nil, forbidden("", fmt.Sprintf("a salt of %d bytes", len(p.Salt)))
		}
	}
	return p, nil
}

func isOctetString(v asn1.RawValue) bool {
	return v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString && !v.IsCompound
}

// Key derives keyLen bytes.
func (p *PBKDF2) Key(password []byte, keyLen int) ([]byte, error) {
	return pbkdf2.Key(p.Hash, string(password), p.Salt, p.Iterations, keyLen)
}

// Cost returns how many iterations Key takes for keyLen bytes.
func (p *PBKDF2) Cost(keyLen int) int {
	size := p.Hash().Size()
	return p.Iterations * ((keyLen + size - 1) / size)
}

func pbkdf2Derivation(der []byte, keyLen int) (cost int, derive func([]byte) ([]byte, error), err error) {
	p, err := ParsePBKDF2(der)
	if err != nil {
		return 0, nil, err
	}
	if p.KeyLen != 0 && p.KeyLen != keyLen {
		return 0, nil, fmt.Errorf("PBKDF2 asks for a key of another length than the %d bytes of its cipher", keyLen)
	}
	return p.Iterations, func(password []byte) ([]byte, error) { return p.Key(password, keyLen) }, nil
}

// UTF8Passwords spells a password as RFC 8018 section 3 has it, and then in ISO
// 8859-1, as RSA's libraries for Java do.
func UTF8Passwords(password string) [][]byte {
	out := asIs(password)
	var latin1 []byte
	for _, r := range password {
		if r > 0xff {
			return out
		}
		latin1 = append(latin1, byte(r))
	}
	if len(latin1) < len(password) && utf8.ValidString(password) {
		out = append(out, latin1)
	}
	return out
}
