package keystore

import (
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"hash"

	"github.com/carewire/carewire/internal/pbe"
)

// macHashes are the hashes of the MAC of PKCS #12 (RFC 7292 section 4).
var macHashes = map[string]func() hash.Hash{
	"1.3.14.3.2.26":           sha1.New,
	"2.16.840.1.101.3.4.2.1":  sha256.New,
	"2.16.840.1.101.3.4.2.2":  sha512.New384,
	"2.16.840.1.101.3.4.2.3":  sha512.New,
	"2.16.840.1.101.3.4.2.4":  sha256.New224,
	"2.16.840.1.101.3.4.2.5":  sha512.New512_224,
	"2.16.840.1.101.3.4.2.6":  sha512.New512_256,
	"2.16.840.1.101.3.4.2.7":  func() hash.Hash { return sha3.New224() },
	"2.16.840.1.101.3.4.2.8":  func() hash.Hash { return sha3.New256() },
	"2.16.840.1.101.3.4.2.9":  func() hash.Hash { return sha3.New384() },
	"2.16.840.1.101.3.4.2.10": func() hash.Hash { return sha3.New512() },
}

// unknownMACs names what occurs and is not known here.
var unknownMACs = map[string]string{
	"1.2.840.113549.2.2":         "MD2",
	"1.2.840.113549.2.5":         "MD5",
	"1.2.643.2.2.9":              "GOST R 34.11-94",
	"1.2.643.7.1.1.2.2":          "GOST R 34.11-2012 (256)",
	"1.2.643.7.1.1.2.3":          "GOST R 34.11-2012 (512)",
	"1.2.156.10197.1.401":        "SM3",
	"1.3.6.1.4.1.1722.12.2.1.16": "BLAKE2b",
	"1.3.6.1.4.1.1722.12.2.2.8":  "BLAKE2s",
	"1.3.36.3.2.1":               "RIPEMD-160",
	"1.0.10118.3.0.55":           "Whirlpool",
	"1.2.840.113549.2.9":         "an HMAC in place of a hash, as Java before 26 writes with macAlgorithm PBEWithHmacSHA256",
}

const (
	oidPBMAC1 = "1.2.840.113549.1.5.14"
	oidPBKDF2 = "1.2.840.113549.1.5.12"

	macWhere = "the MAC of the file"
)

// macDigest computes the MAC under one spelling of a password.
type macDigest struct {
	cost      int // iterations
	spellings func(password string) [][]byte
	sum       func(password, message []byte) ([]byte, error)
	size      int // bytes of the result
}

// checkMAC verifies the MacData over message.
func (f *pkcs12File) checkMAC(der, message []byte) error {
	if len(der) == 0 {
		f.store.Integrity = IntegrityNone
		return nil
	}
	if f.opts.NoPassword {
		f.store.Integrity = IntegrityUnchecked
		return nil
	}
	var mac struct {
		Digest struct {
			Algorithm pkix.AlgorithmIdentifier
			Value     []byte
		}
		Salt       []byte
		Iterations int `asn1:"optional,default:1"`
	}
	if err := unmarshal(der, &mac, macWhere); err != nil {
		return err
	}
	var digest *macDigest
	var err error
	if mac.Digest.Algorithm.Algorithm.String() == oidPBMAC1 {
		digest, err = pbmac1(mac.Digest.Algorithm.Parameters.FullBytes)
	} else {
		digest, err = pkcs12MAC(mac.Digest.Algorithm.Algorithm.String(), mac.Salt, mac.Iterations)
	}
	if err != nil {
		return fromPBE(err, macWhere)
	}
	if len(mac.Digest.Value) != digest.size {
		// A shorter one would be easier to forge, down to nothing.
		return fmt.Errorf("%w: %s has %d bytes instead of %d", ErrIntegrity, macWhere, len(mac.Digest.Value), digest.size)
	}
	for _, spelling := range digest.spellings(f.opts.Password) {
		if err := f.account.spend(digest.cost); err != nil {
			return err
		}
		sum, err := digest.sum(spelling, message)
		if err != nil {
			return fmt.Errorf("keystore: %s: %w", macWhere, err)
		}
		if hmac.Equal(sum, mac.Digest.Value) {
			f.store.Integrity = IntegrityVerified
			return nil
		}
	}
	return &PasswordError{Store: true}
}

// pkcs12MAC is the MAC of RFC 7292 appendix B.4. The error is for fromPBE.
func pkcs12MAC(oid string, salt []byte, iterations int) (*macDigest, error) {
	newHash, ok := macHashes[oid]
	if !ok {
		return nil, &pbe.UnsupportedError{OID: oid, Name: unknownMACs[oid]}
	}
	if fips140.Enforced() {
		// The derivation is not one of SP 800-132, whatever the hash.
		return nil, &pbe.UnsupportedError{Name: "the key derivation of PKCS#12", FIPS: true}
	}
	if err := pbe.CheckKDF(salt, iterations); err != nil {
		return nil, err
	}
	size := newHash().Size()
	return &macDigest{
		cost:      iterations,
		spellings: pbe.PKCS12Passwords,
		size:      size,
		sum: func(password, message []byte) ([]byte, error) {
			key := pbe.PKCS12Key(newHash, pbe.PKCS12ForMAC, password, salt, iterations, size)
			return hmacOf(newHash, key, message), nil
		},
	}, nil
}

// pbmac1 is the MAC of RFC 9579. The error is for fromPBE.
func pbmac1(der []byte) (*macDigest, error) {
	var params struct{ KDF, MAC pkix.AlgorithmIdentifier }
	if err := unmarshal(der, &params, "the parameters of PBMAC1"); err != nil {
		return nil, err
	}
	if oid := params.KDF.Algorithm.String(); oid != oidPBKDF2 {
		return nil, &pbe.UnsupportedError{OID: oid}
	}
	kdf, err := pbe.ParsePBKDF2(params.KDF.Parameters.FullBytes)
	if err != nil {
		return nil, err
	}
	newHash, err := pbe.HMACHash(params.MAC.Algorithm.String())
	if err != nil {
		return nil, err
	}
	// RFC 9579 section 4 makes the length mandatory, for without it a MAC of one
	// byte of key would pass; section 8 wants 20 bytes at least.
	const shortest = 20
	if kdf.KeyLen < shortest {
		return nil, malformed("%s has a key of %d bytes: %d are the least", macWhere, kdf.KeyLen, shortest)
	}
	return &macDigest{
		cost:      kdf.Cost(kdf.KeyLen),
		spellings: pbe.UTF8Passwords,
		size:      newHash().Size(),
		sum: func(password, message []byte) ([]byte, error) {
			key, err := kdf.Key(password, kdf.KeyLen)
			if err != nil {
				return nil, err
			}
			return hmacOf(newHash, key, message), nil
		},
	}, nil
}

func hmacOf(newHash func() hash.Hash, key, message []byte) []byte {
	h := hmac.New(newHash, key)
	h.Write(message)
	return h.Sum(nil)
}

// secretName names the algorithm of a symmetric key, by the OIDs that the JDK
// writes.
func secretName(oid asn1.ObjectIdentifier) string {
	names := map[string]string{
		"2.16.840.1.101.3.4.1": "AES",
		"1.2.840.113549.2.7":   "HmacSHA1",
		"1.2.840.113549.2.8":   "HmacSHA224",
		"1.2.840.113549.2.9":   "HmacSHA256",
		"1.2.840.113549.2.10":  "HmacSHA384",
		"1.2.840.113549.2.11":  "HmacSHA512",
		"1.2.840.113549.3.7":   "DESede",
		"1.3.14.3.2.7":         "DES",
		"1.2.840.113549.3.2":   "RC2",
		"1.2.840.113549.3.4":   "RC4",
		"1.2.840.113549.1.5.3": "PBEWithMD5AndDES",
	}
	if name, ok := names[oid.String()]; ok {
		return name
	}
	return oid.String()
}
