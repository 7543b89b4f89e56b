package tlsprops

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/carewire/carewire/internal/pbe"
)

// decryptPKCS8 decrypts an EncryptedPrivateKeyInfo (RFC 5958 section 3). It
// returns an *unknownAlgorithmError for what is not known.
func decryptPKCS8(der []byte, passphrase string) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 {
		return nil, errDamagedKey
	}
	scheme, err := pbe.Parse(info.Algorithm)
	if err != nil {
		return nil, explain(err)
	}
	plain, err := scheme.Decrypt(info.Data, passphrase, func(plain []byte) bool { return shapeOf(plain) == shapePKCS8 })
	return plain, explain(err)
}

// explain turns an error of package pbe into one that says what to do.
func explain(err error) error {
	var unsupported *pbe.UnsupportedError
	switch {
	case errors.Is(err, pbe.ErrIncorrect):
		return ErrIncorrectPassphrase
	case !errors.As(err, &unsupported):
		return err
	case unsupported.FIPS:
		// OpenSSL makes the 16 bytes of salt that this mode asks for since 3.2.
		return fmt.Errorf("encrypted with %w: %s (of OpenSSL 3.2 or later)", err, convertHint)
	default:
		return &unknownAlgorithmError{unsupported}
	}
}

const convertHint = "convert it with openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256 -in FILE -out NEW"

// unknownAlgorithmError is the error for an encrypted PKCS #8 key whose algorithm
// is for a Decoder to know.
type unknownAlgorithmError struct{ err *pbe.UnsupportedError }

func (e *unknownAlgorithmError) Error() string {
	return fmt.Sprintf("encrypted with %v: set a Decoder that opens it, or %s", e.err, convertHint)
}
