package keystore

import (
	"crypto/des"
	"crypto/fips140"
	"crypto/md5"
	"errors"
	"fmt"

	"github.com/carewire/carewire/internal/pbe"
)

// jceksParameters are those of Sun's PBEWithMD5AndTripleDES.
type jceksParameters struct {
	salt       [8]byte
	iterations int
}

// parseJCEKSParameters reads the parameters, and checks that data can be what
// they encrypt. Its error is for fromPBE.
func parseJCEKSParameters(der, data []byte) (*jceksParameters, error) {
	var params struct {
		Salt       []byte
		Iterations int
	}
	if err := unmarshal(der, &params, "the parameters of PBEWithMD5AndTripleDES"); err != nil {
		return nil, err
	}
	p := &jceksParameters{iterations: params.Iterations}
	if len(params.Salt) != len(p.salt) {
		return nil, fmt.Errorf("a salt of %d bytes instead of %d", len(params.Salt), len(p.salt))
	}
	copy(p.salt[:], params.Salt)
	if err := pbe.CheckKDF(params.Salt, params.Iterations); err != nil {
		return nil, err
	}
	return p, pbe.CheckCBC(data, des.BlockSize)
}

// openSealed decrypts data with the first password for alias that fits and whose
// result accept is content with.
func (f *javaFile) openSealed(p *jceksParameters, data []byte, alias string, accept func([]byte) bool) ([]byte, error) {
	if fips140.Enforced() {
		return nil, &UnsupportedAlgorithmError{OID: oidJCEKSProtector, Name: "PBEWithMD5AndTripleDES", Where: fmt.Sprintf("the key %q", alias), FIPS: true}
	}
	passwords := f.opts.keyPasswords(alias)
	if len(passwords) == 0 {
		return nil, ErrPasswordRequired
	}
	for _, password := range passwords {
		if !isPrintableASCII(password) {
			continue // no JDK encrypts with it
		}
		for _, salt := range p.salts() {
			if err := f.account.spend(p.iterations); err != nil {
				return nil, err
			}
			plain, err := openMD5TripleDES(salt, p.iterations, password, data)
			if err != nil && !errors.Is(err, pbe.ErrIncorrect) {
				return nil, err
			}
			if err == nil && accept(plain) {
				return plain, nil
			}
		}
	}
	return nil, &PasswordError{Alias: alias}
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// salts returns the salt as the derivation takes it. Where its halves are equal,
// the first is to be reversed, which old JDKs did wrong: they turned a b c d into
// d a b d.
func (p *jceksParameters) salts() [][8]byte {
	s := p.salt
	if [4]byte(s[:4]) != [4]byte(s[4:]) {
		return [][8]byte{s}
	}
	right, old := s, s
	right[0], right[1], right[2], right[3] = s[3], s[2], s[1], s[0]
	old[0], old[1], old[2], old[3] = s[3], s[0], s[1], s[3]
	return [][8]byte{right, old}
}

// openMD5TripleDES derives key and initialization vector from the two halves of
// the salt, each by iterations of MD5 over the last digest and the password.
func openMD5TripleDES(salt [8]byte, iterations int, password string, data []byte) ([]byte, error) {
	var derived [32]byte
	buf := make([]byte, md5.Size+len(password))
	for half := range 2 {
		n := copy(buf, salt[4*half:4*half+4])
		in := append(buf[:n], password...)
		for range iterations {
			digest := md5.Sum(in)
			in = append(append(buf[:0], digest[:]...), password...)
		}
		copy(derived[md5.Size*half:], in[:md5.Size])
	}
	block, err := des.NewTripleDESCipher(derived[:24])
	if err != nil {
		return nil, err
	}
	return pbe.DecryptCBC(block, derived[24:], data)
}
