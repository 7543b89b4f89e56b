package keystore

import (
	"crypto/fips140"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf16"

	"github.com/carewire/carewire/internal/pbe"
)

// The tags of the entries of a JKS or JCEKS file.
const (
	tagPrivateKey  = 1
	tagCertificate = 2
	tagSecretKey   = 3 // JCEKS only
)

// cursor reads big-endian values. It never reads beyond data, and what it
// returns shares memory with data, so that no length in the file costs memory.
type cursor struct {
	data []byte
	off  int
}

func (c *cursor) left() int { return len(c.data) - c.off }

func (c *cursor) bytes(n int64, what string) ([]byte, error) {
	if n > int64(c.left()) {
		return nil, truncated(what)
	}
	b := c.data[c.off : c.off+int(n)]
	c.off += int(n)
	return b, nil
}

func (c *cursor) u1() (byte, error) {
	b, err := c.bytes(1, inObject) // where alone there are single bytes
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (c *cursor) u2(what string) (uint16, error) {
	b, err := c.bytes(2, what)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint16(b), nil
}

func (c *cursor) u4(what string) (uint32, error) {
	b, err := c.bytes(4, what)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

func (c *cursor) u8(what string) (uint64, error) {
	b, err := c.bytes(8, what)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// block reads bytes after their length of four bytes.
func (c *cursor) block(what string) ([]byte, error) {
	n, err := c.u4(what)
	if err != nil {
		return nil, err
	}
	return c.bytes(int64(n), what)
}

// text reads a string in Java's modified UTF-8 after its length of two bytes.
func (c *cursor) text(what string) (string, error) {
	n, err := c.u2(what)
	if err != nil {
		return "", err
	}
	b, err := c.bytes(int64(n), what)
	return modifiedUTF8(b), err
}

// modifiedUTF8 decodes the encoding of java.io.DataInput: NUL is c0 80, and
// what is beyond U+FFFF is a surrogate pair of three bytes each. What is not
// valid becomes U+FFFD, for an alias is worth keeping nevertheless.
func modifiedUTF8(b []byte) string {
	units := make([]uint16, 0, len(b))
	follows := func(i int) bool { return i < len(b) && b[i]&0xc0 == 0x80 }
	for i := 0; i < len(b); {
		switch {
		case b[i] < 0x80:
			units = append(units, uint16(b[i]))
			i++
		case b[i]&0xe0 == 0xc0 && follows(i+1):
			units = append(units, uint16(b[i]&0x1f)<<6|uint16(b[i+1]&0x3f))
			i += 2
		case b[i]&0xf0 == 0xe0 && follows(i+1) && follows(i+2):
			units = append(units, uint16(b[i]&0x0f)<<12|uint16(b[i+1]&0x3f)<<6|uint16(b[i+2]&0x3f))
			i += 3
		default:
			units = append(units, 0xfffd)
			i++
		}
	}
	return string(utf16.Decode(units)) // which replaces lone surrogates
}

// javaFile is a JKS or JCEKS file while it is read.
type javaFile struct {
	cursor
	store   *Store
	opts    *Options
	account *account
	version uint32
}

// openJava reads the container that JKS and JCEKS share: magic, version, count,
// the entries, and a digest over the password and all of it.
func openJava(data []byte, s *Store, o *Options, a *account) error {
	f := &javaFile{cursor: cursor{data: data, off: 4}, store: s, opts: o, account: a}
	var err error
	if f.version, err = f.u4("the header"); err != nil {
		return err
	}
	if f.version != 1 && f.version != 2 {
		return malformed("version %d of %v: 1 and 2 exist", f.version, s.Format)
	}
	count, err := f.u4("the header")
	if err != nil {
		return err
	}
	if int32(count) < 0 { //nolint:gosec // the JDK reads it as signed
		return malformed("a negative count of entries")
	}
	for range count {
		if err := a.item(); err != nil {
			return err
		}
		if err := f.entry(); err != nil {
			return err
		}
	}
	body := data[:f.off]
	digest, err := f.bytes(sha1.Size, "the digest")
	if err != nil {
		return err
	}
	if f.left() > 0 {
		if err := s.trailing(f.left(), o); err != nil {
			return err
		}
	}
	if err := f.check(body, digest); err != nil {
		return err
	}
	for _, e := range s.Entries {
		if e.unlock != nil {
			e.open()
		}
	}
	return nil
}

// check verifies the digest.
func (f *javaFile) check(body, digest []byte) error {
	if f.opts.NoPassword {
		f.store.Integrity = IntegrityUnchecked
		return nil
	}
	if fips140.Enforced() {
		return &UnsupportedAlgorithmError{Name: "SHA-1", Where: "the digest of the file", FIPS: true}
	}
	h := sha1.New()
	h.Write(javaPassword(f.opts.Password))
	h.Write([]byte("Mighty Aphrodite")) // as every JDK since 1.2
	h.Write(body)
	if subtle.ConstantTimeCompare(h.Sum(nil), digest) != 1 {
		return &PasswordError{Store: true}
	}
	f.store.Integrity = IntegrityVerified
	return nil
}

// javaPassword spells a password in UTF-16, big-endian, as Java's chars are.
func javaPassword(password string) []byte {
	b := pbe.PKCS12Passwords(password)[0]
	return b[:len(b)-2] // without the NUL
}

func (f *javaFile) entry() error {
	tag, err := f.u4("an entry")
	if err != nil {
		return err
	}
	alias, err := f.text("an alias")
	if err != nil {
		return err
	}
	created, err := f.u8("an entry")
	if err != nil {
		return err
	}
	e := &Entry{Alias: alias, Created: time.UnixMilli(int64(created)).UTC()} //nolint:gosec // signed in Java
	switch {
	case tag == tagPrivateKey:
		e.Kind = PrivateKey
		err = f.privateKey(e)
	case tag == tagCertificate:
		e.Kind = TrustedCertificate
		var der []byte
		if der, err = f.certificate(e); der != nil {
			e.Chain = [][]byte{der}
		}
	case tag == tagSecretKey && f.store.Format == FormatJCEKS:
		e.Kind = SecretKey
		err = f.secretKey(e)
	default:
		return malformed("an entry of type %d in a %v file", tag, f.store.Format)
	}
	if err != nil {
		return err
	}
	f.store.add(e)
	return nil
}

func (f *javaFile) privateKey(e *Entry) error {
	protected, err := f.block("a private key")
	if err != nil {
		return err
	}
	if e.unlock, err = f.protector(protected, e.Alias); err != nil {
		return err
	}
	certs, err := f.u4("a certificate chain")
	if err != nil {
		return err
	}
	for range certs {
		if err := f.account.item(); err != nil {
			return err
		}
		der, err := f.certificate(e)
		if err != nil {
			return err
		}
		if der != nil {
			e.Chain = append(e.Chain, der)
		}
	}
	return nil
}

// certificate reads a certificate; nil if it is of another kind than X.509.
func (f *javaFile) certificate(e *Entry) ([]byte, error) {
	kind := "X.509"
	if f.version == 2 {
		var err error
		if kind, err = f.text("the type of a certificate"); err != nil {
			return nil, err
		}
	}
	der, err := f.block("a certificate")
	if err != nil {
		return nil, err
	}
	if kind != "X.509" && kind != "X509" {
		e.Err = fmt.Errorf("keystore: %q has a certificate of the kind %q, which is not X.509", e.Alias, kind)
		return nil, nil
	}
	return der, nil
}

// The OIDs of Sun under which JKS and JCEKS encrypt private keys.
const (
	oidJKSProtector   = "1.3.6.1.4.1.42.2.17.1.1"
	oidJCEKSProtector = "1.3.6.1.4.1.42.2.19.1"
)

// protector reads an EncryptedPrivateKeyInfo and returns what opens it.
func (f *javaFile) protector(der []byte, alias string) (func() ([]byte, error), error) {
	where := fmt.Sprintf("the key %q", alias)
	var info struct {
		Algorithm algorithmIdentifier
		Data      []byte
	}
	if err := unmarshal(der, &info, where); err != nil {
		return nil, err
	}
	switch oid := info.Algorithm.Algorithm.String(); {
	case oid == oidJKSProtector:
		if len(info.Data) < 2*sha1.Size {
			return nil, malformed("%s: %d bytes, which is less than its salt and its check", where, len(info.Data))
		}
		return func() ([]byte, error) { return f.openJKSKey(info.Data, alias) }, nil
	case oid == oidJCEKSProtector && f.store.Format == FormatJCEKS:
		params, err := parseJCEKSParameters(info.Algorithm.Parameters.FullBytes, info.Data)
		if err != nil {
			return nil, fromPBE(err, where)
		}
		return func() ([]byte, error) {
			return f.openSealed(params, info.Data, alias, isPKCS8)
		}, nil
	case oid == oidJCEKSProtector:
		return nil, malformed("%s is encrypted as in JCEKS, in a JKS file", where)
	default:
		return func() ([]byte, error) { return nil, &UnsupportedAlgorithmError{OID: oid, Where: where} }, nil
	}
}

// openJKSKey undoes JKS's own key protection: a stream of SHA-1 over the
// password and the previous digest, beginning with the salt, and a digest of
// password and key at the end.
func (f *javaFile) openJKSKey(data []byte, alias string) ([]byte, error) {
	if fips140.Enforced() {
		return nil, &UnsupportedAlgorithmError{OID: oidJKSProtector, Name: "SHA-1", Where: fmt.Sprintf("the key %q", alias), FIPS: true}
	}
	passwords := f.opts.keyPasswords(alias)
	if len(passwords) == 0 {
		return nil, ErrPasswordRequired
	}
	salt, body, check := data[:sha1.Size], data[sha1.Size:len(data)-sha1.Size], data[len(data)-sha1.Size:]
	for _, password := range passwords {
		secret := javaPassword(password)
		plain := make([]byte, len(body))
		h := sha1.New()
		digest := salt
		for i := range plain {
			if i%sha1.Size == 0 {
				h.Reset()
				h.Write(secret)
				h.Write(digest)
				digest = h.Sum(nil)
			}
			plain[i] = body[i] ^ digest[i%sha1.Size]
		}
		h.Reset()
		h.Write(secret)
		h.Write(plain)
		if subtle.ConstantTimeCompare(h.Sum(nil), check) == 1 {
			return plain, nil
		}
	}
	return nil, &PasswordError{Alias: alias}
}

// algorithmIdentifier is that of RFC 5280 section 4.1.1.2.
type algorithmIdentifier struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}
