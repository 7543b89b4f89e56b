package keystore

import (
	"errors"
	"fmt"

	"github.com/carewire/carewire/tlsprops"
)

// Decoder makes tlsprops read key stores: set it as TlsProperties.Decoder. Then
// keyStorePath, certStorePath and trustStorePath may name JKS, JCEKS, PKCS#12
// and DER files, told apart by content, and PEM keys may be encrypted with
// scrypt. passphrase opens the file, keyPassphrase the key where it differs, and
// keyAlias says which key if there are several.
//
// As in Java, a trust store of JKS is read without its passphrase if none is
// given; its integrity is then not checked. A PEM file's never is.
//
// What it accepts does not depend on AllowLegacyInFIPS, which is false here.
func Decoder(in tlsprops.DecoderInput) (*tlsprops.Material, error) {
	const trustStore, keyStore = "trustStorePath", "keyStorePath"
	o := Options{Password: in.Passphrase, KeyPassword: in.KeyPassphrase}
	s, err := Open(in.Data, o)
	if in.Passphrase == "" && in.Field != keyStore && errors.Is(err, ErrIncorrectPassword) {
		o.NoPassword = true
		s, err = Open(in.Data, o)
	}
	if err != nil {
		return nil, inTheirWords(err, in.Passphrase)
	}
	m := &tlsprops.Material{Roots: s.Roots()}
	if in.Field == trustStore {
		return m, nil
	}
	if in.Field != keyStore && in.Alias == "" && len(s.PrivateKeys()) == 0 {
		m.Chain, m.Roots = m.Roots, nil // a file of certificates alone
		return m, nil
	}
	e, err := s.Entry(in.Alias)
	if err != nil {
		return nil, err
	}
	m.Chain = e.Chain
	if in.Field != keyStore {
		return m, nil
	}
	der, err := e.PKCS8()
	if err != nil {
		return nil, inTheirWords(err, in.Passphrase)
	}
	if m.Key, err = parseKey(der); err != nil {
		return nil, fmt.Errorf("keystore: crypto/tls cannot use the key %q (%s): %w", e.Alias, e.Algorithm, err)
	}
	return m, nil
}

// inTheirWords makes errors about passwords those of tlsprops too.
func inTheirWords(err error, passphrase string) error {
	theirs := tlsprops.ErrIncorrectPassphrase
	switch {
	case errors.Is(err, ErrPasswordRequired), errors.Is(err, ErrIncorrectPassword) && passphrase == "":
		theirs = tlsprops.ErrPassphraseRequired
	case !errors.Is(err, ErrIncorrectPassword):
		return err
	}
	return &joined{err.Error(), []error{err, theirs}}
}
