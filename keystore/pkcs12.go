package keystore

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"unicode/utf16"

	"github.com/carewire/carewire/internal/pbe"
)

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidEncryptedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}

	oidKeyBag          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
	oidShroudedKeyBag  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidCertBag         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidCRLBag          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 4}
	oidSecretBag       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 5}
	oidSafeContentsBag = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 6}

	oidX509Certificate = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	oidFriendlyName    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidLocalKeyID      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 21}
	// oidTrustedKeyUsage is Java's mark of a trusted certificate (JEP 229).
	oidTrustedKeyUsage = asn1.ObjectIdentifier{2, 16, 840, 1, 113894, 746875, 1, 1}
)

// contentInfo is that of RFC 5652 section 3.
type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"optional"` // in an explicit tag
}

// pkcs12File is a PKCS #12 file while it is read.
type pkcs12File struct {
	store   *Store
	opts    *Options
	account *account
	found   material
	locked  bool // something is encrypted, and there was no password for it
}

// openPKCS12 reads a PFX (RFC 7292 section 4).
func openPKCS12(data []byte, s *Store, o *Options, a *account) error {
	der, rest, err := toDER(data)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		if err := s.trailing(len(rest), o); err != nil {
			return err
		}
	}
	var pfx struct {
		Version  int
		AuthSafe contentInfo
		MAC      asn1.RawValue `asn1:"optional"`
	}
	if err := unmarshal(der, &pfx, "the PKCS#12 file"); err != nil {
		return err
	}
	if pfx.Version != 3 {
		return malformed("version %d of PKCS#12: only 3 exists", pfx.Version)
	}
	if pfx.AuthSafe.Type.Equal(oidSignedData) {
		return &UnsupportedAlgorithmError{OID: oidSignedData.String(), Name: "a signature", Where: "the integrity of the file"}
	}
	safes, err := octets(pfx.AuthSafe, "the authenticated safe")
	if err != nil {
		return err
	}
	f := &pkcs12File{store: s, opts: o, account: a}
	if err := f.checkMAC(pfx.MAC.FullBytes, safes); err != nil {
		return err
	}
	contents, err := sequence(safes, "the authenticated safe")
	if err != nil {
		return err
	}
	if err := elements(contents, f.safe); err != nil {
		return err
	}
	f.found.fill(s)
	if f.locked && len(s.Entries) == 0 {
		return ErrPasswordRequired
	}
	return nil
}

// octets returns what is in a ContentInfo of the type data.
func octets(c contentInfo, what string) ([]byte, error) {
	if !c.Type.Equal(oidData) {
		return nil, malformed("%s has the content type %v", what, c.Type)
	}
	return octetString(c.Content, what)
}

// explicit returns what is within an explicit tag 0. (encoding/asn1 does not
// look at the tag of a RawValue.)
func explicit(v asn1.RawValue, what string) ([]byte, error) {
	if v.Class != asn1.ClassContextSpecific || v.Tag != 0 || !v.IsCompound {
		return nil, malformed("%s has no content", what)
	}
	return v.Bytes, nil
}

// octetString returns the OCTET STRING within an explicit tag 0. It is never nil.
func octetString(v asn1.RawValue, what string) ([]byte, error) {
	der, err := explicit(v, what)
	if err != nil {
		return nil, err
	}
	content := []byte{}
	return content, unmarshal(der, &content, what)
}

// sequence returns the contents of data, which is a SEQUENCE in BER.
func sequence(data []byte, what string) ([]byte, error) {
	der, rest, err := toDER(data)
	if err != nil {
		return nil, err
	}
	var v asn1.RawValue
	if err := unmarshal(der, &v, what); err != nil {
		return nil, err
	}
	if len(rest) > 0 || !isA(v, asn1.TagSequence) {
		return nil, malformed("%s is not one SEQUENCE", what)
	}
	return v.Bytes, nil
}

// safe reads one of the ContentInfos of the AuthenticatedSafe.
func (f *pkcs12File) safe(v asn1.RawValue) error {
	const what = "a safe"
	if err := f.account.item(); err != nil {
		return err
	}
	var info contentInfo
	if err := unmarshal(v.FullBytes, &info, what); err != nil {
		return err
	}
	var plain []byte
	var err error
	switch {
	case info.Type.Equal(oidData):
		plain, err = octets(info, what)
	case info.Type.Equal(oidEncryptedData):
		plain, err = f.encrypted(info.Content)
	case info.Type.Equal(oidEnvelopedData):
		err = &UnsupportedAlgorithmError{OID: info.Type.String(), Name: "encryption to a public key", Where: what}
	default:
		err = malformed("%s has the content type %v", what, info.Type)
	}
	if err != nil || plain == nil {
		return err
	}
	contents, err := sequence(plain, what)
	if err != nil {
		return err
	}
	return elements(contents, func(v asn1.RawValue) error { return f.bag(v, 0) })
}

// encrypted opens an EncryptedData (RFC 5652 section 8). It returns nil if there
// is no password.
func (f *pkcs12File) encrypted(v asn1.RawValue) ([]byte, error) {
	const what = "an encrypted safe"
	der, err := explicit(v, what)
	if err != nil {
		return nil, err
	}
	var data struct {
		Version int
		Content struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Encrypted asn1.RawValue `asn1:"optional"`
		}
	}
	if err := unmarshal(der, &data, what); err != nil {
		return nil, err
	}
	encrypted := data.Content.Encrypted
	if encrypted.Class != asn1.ClassContextSpecific || encrypted.Tag != 0 {
		return nil, malformed("%s has no content", what)
	}
	ciphertext := encrypted.Bytes
	if encrypted.IsCompound { // in pieces, which toDER cannot know under this tag
		ciphertext = nil
		err := elements(encrypted.Bytes, func(v asn1.RawValue) error {
			if !isA(v, asn1.TagOctetString) {
				return malformed("%s is made of something else than OCTET STRINGs", what)
			}
			ciphertext = append(ciphertext, v.Bytes...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	scheme, err := pbe.Parse(data.Content.Algorithm, scryptKDF)
	if err != nil {
		return nil, fromPBE(err, what)
	}
	passwords := f.opts.storePasswords()
	if len(passwords) == 0 {
		f.locked = true
		f.store.note("an encrypted part is not read, as there is no password")
		return nil, nil
	}
	plain, err := f.account.decrypt(scheme, ciphertext, passwords, isSequence)
	if isIncorrect(err) {
		return nil, &PasswordError{Store: true}
	}
	return plain, fromPBE(err, what)
}

// isSequence tells whether b is one SEQUENCE, in BER.
func isSequence(b []byte) bool {
	_, err := sequence(b, "")
	return err == nil
}

// safeBag is that of RFC 7292 section 4.2.
type safeBag struct {
	ID         asn1.ObjectIdentifier
	Value      asn1.RawValue // in an explicit tag
	Attributes asn1.RawValue `asn1:"optional"`
}

// attributes are those of a bag that matter here.
type attributes struct {
	alias      string
	hasAlias   bool
	localKeyID []byte
	trusted    bool
}

func (f *pkcs12File) bag(v asn1.RawValue, depth int) error {
	const what = "a bag"
	if err := f.account.item(); err != nil {
		return err
	}
	var bag safeBag
	if err := unmarshal(v.FullBytes, &bag, what); err != nil {
		return err
	}
	attrs, err := f.attributes(bag.Attributes)
	if err != nil {
		return err
	}
	value, err := explicit(bag.Value, what)
	if err != nil {
		return err
	}
	switch {
	case bag.ID.Equal(oidKeyBag):
		f.found.keys = append(f.found.keys, &foundKey{attributes: attrs, pkcs8: value})
		return nil
	case bag.ID.Equal(oidShroudedKeyBag):
		key := &foundKey{attributes: attrs, decrypted: true}
		key.pkcs8, key.err, err = f.unshroud(value, attrs.alias, "the key")
		f.found.keys = append(f.found.keys, key)
		return err
	case bag.ID.Equal(oidCertBag):
		return f.certBag(value, attrs)
	case bag.ID.Equal(oidSecretBag):
		return f.secretBag(value, attrs)
	case bag.ID.Equal(oidCRLBag):
		f.store.note("a revocation list is left out")
		return nil
	case bag.ID.Equal(oidSafeContentsBag):
		if depth >= maxDepth {
			return malformed("safes nested deeper than %d", maxDepth)
		}
		contents, err := sequence(value, "a nested safe")
		if err != nil {
			return err
		}
		return elements(contents, func(v asn1.RawValue) error { return f.bag(v, depth+1) })
	default:
		f.store.note(fmt.Sprintf("a bag of the unknown type %v is left out", bag.ID))
		return nil
	}
}

// unshroud opens an EncryptedPrivateKeyInfo. failed is what concerns this key
// alone.
func (f *pkcs12File) unshroud(der []byte, alias, what string) (plain []byte, failed, err error) {
	where := fmt.Sprintf("%s %q", what, alias)
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if err := unmarshal(der, &info, where); err != nil {
		return nil, nil, err
	}
	scheme, err := pbe.Parse(info.Algorithm, scryptKDF)
	if err != nil {
		failed = fromPBE(err, where)
		if _, ok := failed.(*UnsupportedAlgorithmError); ok { //nolint:errorlint // fromPBE returns just that
			return nil, failed, nil
		}
		return nil, nil, failed
	}
	passwords := f.opts.keyPasswords(alias)
	if len(passwords) == 0 {
		return nil, ErrPasswordRequired, nil
	}
	plain, err = f.account.decrypt(scheme, info.Data, passwords, isPKCS8)
	if isIncorrect(err) {
		return nil, &PasswordError{Alias: alias}, nil
	}
	return plain, fromPBE(err, where), nil
}

func (f *pkcs12File) certBag(der []byte, attrs attributes) error {
	var bag struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue // in an explicit tag
	}
	const what = "a certificate bag"
	if err := unmarshal(der, &bag, what); err != nil {
		return err
	}
	if !bag.ID.Equal(oidX509Certificate) {
		f.store.note(fmt.Sprintf("a certificate of the kind %v, which is not X.509, is left out", bag.ID))
		return nil
	}
	cert, err := octetString(bag.Value, what)
	if err != nil {
		return err
	}
	f.found.certs = append(f.found.certs, &foundCert{attributes: attrs, der: cert})
	return nil
}

// secretBag reads a symmetric key as the JDK writes it: an encrypted PKCS #8
// structure within an OCTET STRING.
func (f *pkcs12File) secretBag(der []byte, attrs attributes) error {
	var bag struct {
		ID    asn1.ObjectIdentifier
		Value asn1.RawValue // in an explicit tag
	}
	const what = "a secret bag"
	if err := unmarshal(der, &bag, what); err != nil {
		return err
	}
	e := &Entry{Alias: attrs.alias, Kind: SecretKey}
	f.found.secrets = append(f.found.secrets, e)
	where := fmt.Sprintf("the secret key %q", attrs.alias)
	if !bag.ID.Equal(oidShroudedKeyBag) {
		e.Err = &UnsupportedAlgorithmError{OID: bag.ID.String(), Where: where}
		return nil
	}
	wrapped, err := octetString(bag.Value, what)
	if err != nil {
		return err
	}
	plain, failed, err := f.unshroud(wrapped, attrs.alias, "the secret key")
	if err != nil || failed != nil {
		e.Err = failed
		return err
	}
	var info struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	if err := unmarshal(plain, &info, where); err != nil {
		return err
	}
	e.key = info.Key
	e.Algorithm = secretName(info.Algorithm.Algorithm)
	return nil
}

// attributes reads the SET of PKCS12Attributes. What is not known is ignored.
func (f *pkcs12File) attributes(v asn1.RawValue) (a attributes, err error) {
	if len(v.FullBytes) == 0 {
		return a, nil
	}
	if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagSet {
		return a, malformed("the attributes of a bag are no SET")
	}
	err = elements(v.Bytes, func(v asn1.RawValue) error {
		if err := f.account.item(); err != nil {
			return err
		}
		var attr struct {
			ID     asn1.ObjectIdentifier
			Values asn1.RawValue
		}
		if err := unmarshal(v.FullBytes, &attr, "an attribute"); err != nil {
			return err
		}
		var first asn1.RawValue // of one, but for trustedKeyUsage
		if len(attr.Values.Bytes) > 0 {
			if _, err := asn1.Unmarshal(attr.Values.Bytes, &first); err != nil {
				return malformed("an attribute: %v", err)
			}
		}
		switch {
		case attr.ID.Equal(oidFriendlyName):
			a.alias, a.hasAlias = bmpString(first.Bytes), true
		case attr.ID.Equal(oidLocalKeyID):
			a.localKeyID = first.Bytes
		case attr.ID.Equal(oidTrustedKeyUsage):
			a.trusted = true
		}
		return nil
	})
	return a, err
}

// bmpString decodes UTF-16, big-endian. A NUL at the end is dropped.
func bmpString(b []byte) string {
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, binary.BigEndian.Uint16(b))
	}
	if n := len(units); n > 0 && units[n-1] == 0 {
		units = units[:n-1]
	}
	return string(utf16.Decode(units))
}
