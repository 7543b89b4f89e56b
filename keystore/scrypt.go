package keystore

import (
	"crypto/fips140"
	"errors"
	"math/bits"

	"golang.org/x/crypto/scrypt"

	"github.com/carewire/carewire/internal/pbe"
)

const oidScrypt = "1.3.6.1.4.1.11591.4.11"

// maxScryptMemory is what one derivation may take. OpenSSL takes 16 MiB unless
// told otherwise.
const maxScryptMemory = 32 << 20

// scryptKDF adds scrypt (RFC 7914) to the derivations of PBES2.
var scryptKDF = pbe.KDF{OID: oidScrypt, Parse: parseScrypt}

// parseScrypt reads the parameters of RFC 7914 section 7.
func parseScrypt(der []byte, keyLen int) (cost int, derive func([]byte) ([]byte, error), err error) {
	var p struct {
		Salt    []byte
		N, R, P int
		KeyLen  int `asn1:"optional"`
	}
	if err := unmarshal(der, &p, "the parameters of scrypt"); err != nil {
		return 0, nil, err
	}
	const most = 1 << 20 // keeps the products below far from an overflow
	switch {
	case p.N < 2 || p.R < 1 || p.P < 1 || bits.OnesCount(uint(p.N)) != 1:
		return 0, nil, errors.New("impossible parameters of scrypt")
	case p.KeyLen != 0 && p.KeyLen != keyLen:
		return 0, nil, errors.New("scrypt asks for a key of another length than its cipher's")
	case p.N > most || p.R > most || p.P > most || 128*int64(p.N)*int64(p.R) > maxScryptMemory:
		return 0, nil, &LimitError{"bytes of memory for scrypt", maxScryptMemory}
	}
	// Salsa20/8 over 128 bytes twice, which takes as long as about two iterations
	// of PBKDF2.
	work := 2 * int64(p.N) * int64(p.R) * int64(p.P)
	if work > pbe.MaxIterations {
		return 0, nil, &LimitError{"rounds of scrypt", pbe.MaxIterations}
	}
	if err := pbe.CheckKDF(p.Salt, 1); err != nil {
		return 0, nil, err
	}
	if fips140.Enforced() {
		return 0, nil, &pbe.UnsupportedError{OID: oidScrypt, Name: "scrypt", FIPS: true}
	}
	return int(work), func(password []byte) ([]byte, error) {
		return scrypt.Key(password, p.Salt, p.N, p.R, p.P, keyLen)
	}, nil
}
