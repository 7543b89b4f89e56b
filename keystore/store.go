package keystore

import (
	"context"
	"crypto/fips140"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Integrity tells whether the whole file was found unaltered.
type Integrity int

// The values of Store.Integrity.
const (
	// IntegrityNone: the file has nothing to check. PEM never has, and PKCS#12
	// need not.
	IntegrityNone Integrity = iota
	// IntegrityUnchecked: there is a digest or MAC, and no password to check it.
	IntegrityUnchecked
	// IntegrityVerified: digest or MAC agree with the password.
	IntegrityVerified
)

// String returns a word.
func (i Integrity) String() string {
	switch i {
	case IntegrityVerified:
		return "verified"
	case IntegrityUnchecked:
		return "unchecked"
	default:
		return "none"
	}
}

// Kind says what an entry is.
type Kind int

// The kinds of entries.
const (
	// PrivateKey is a private key with the chain of its certificate.
	PrivateKey Kind = iota + 1
	// TrustedCertificate is one that the store's maker marked as trusted: every
	// certificate entry of JKS, and those of PKCS#12 with Java's mark.
	TrustedCertificate
	// Certificate is one that belongs to no key and has no mark. openssl makes
	// trust stores of such; keytool does not show them.
	Certificate
	// SecretKey is a symmetric key.
	SecretKey
)

// String returns keytool's word.
func (k Kind) String() string {
	switch k {
	case PrivateKey:
		return "PrivateKeyEntry"
	case TrustedCertificate:
		return "trustedCertEntry"
	case Certificate:
		return "certificate"
	case SecretKey:
		return "SecretKeyEntry"
	default:
		return "unknown"
	}
}

// A Store is a key store that has been read. It is not to be modified, and safe
// for concurrent use.
type Store struct {
	Format    Format
	Integrity Integrity
	// Entries in the order of the file. A private key and its certificates are
	// one entry.
	Entries []*Entry

	notes []string // warnings that do not depend on the time
}

// An Entry is one thing in a store.
type Entry struct {
	// Alias as it is in the file. Entries without one are called by their number.
	Alias string
	Kind  Kind
	// Created is zero where the format does not tell.
	Created time.Time
	// Chain are certificates, DER as in the file: those of a private key from its
	// own one upwards, and otherwise the one certificate.
	Chain [][]byte
	// Algorithm of the key, in words ("RSA 2048", "EC P-256", "AES"); empty if it
	// is not known or the key did not open.
	Algorithm string
	// SealAlgorithm is what encrypts a secret key of JCEKS.
	SealAlgorithm string
	// Err is why there is no key, or no certificate, although the file has one. It
	// concerns this entry alone.
	Err error

	key       []byte
	decrypted bool                   // the key was encrypted in the file
	unlock    func() ([]byte, error) // until Open returns
}

// Open reads a key store of any format that is supported. What is wrong with a
// single entry is in its Err, and the others are still there.
//
// It does not modify data, and entries share memory with it. Deriving keys from
// passwords can take seconds, up to what Options.MaxIterations allows: see
// OpenContext.
func Open(data []byte, o Options) (*Store, error) {
	return OpenContext(context.Background(), data, o)
}

// OpenContext is Open that gives up when ctx ends. A derivation that has begun is
// finished first, which takes a second or two at most.
func OpenContext(ctx context.Context, data []byte, o Options) (*Store, error) {
	if most := o.maxBytes(); most >= 0 && int64(len(data)) > most {
		return nil, &LimitError{"bytes of the file (Options.MaxBytes)", most}
	}
	var s *Store
	var err error
	open := func() { s, err = openFormat(data, &o, newAccount(&o, ctx.Err)) }
	if o.AllowLegacyInFIPS {
		fips140.WithoutEnforcement(open)
	} else {
		open()
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// OpenFile opens the file name. Its errors name the file.
func OpenFile(name string, o Options) (*Store, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	defer func() { _ = f.Close() }() // which was only read
	var r io.Reader = f
	if most := o.maxBytes(); most >= 0 {
		r = io.LimitReader(f, most+1)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	s, err := Open(data, o)
	if err != nil {
		if Detect(data) == FormatUnknown && strings.EqualFold(filepath.Ext(name), ".kdb") {
			// GSKit does not publish its format; the name has to do.
			err = &UnsupportedFormatError{FormatKDB, formats[FormatKDB].hint}
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func openFormat(data []byte, o *Options, a *account) (*Store, error) {
	s := &Store{Format: o.Format}
	if s.Format == FormatUnknown {
		s.Format = Detect(data)
	}
	var err error
	switch s.Format {
	case FormatJKS, FormatJCEKS:
		if Detect(data) != s.Format {
			return nil, malformed("the file is not %s", s.Format.description())
		}
		err = openJava(data, s, o, a)
	case FormatPKCS12:
		err = openPKCS12(data, s, o, a)
	case FormatPEM:
		err = openPEM(data, s, o, a)
	case FormatDER:
		err = openDER(data, s, o, a)
	case FormatUnknown:
		return nil, unknownError(data)
	default:
		return nil, &UnsupportedFormatError{s.Format, formats[s.Format].hint}
	}
	if err != nil {
		return nil, err
	}
	if err := a.ended(); err != nil {
		return nil, fmt.Errorf("keystore: %w", err) // not with entries that did not open for this reason
	}
	for _, e := range s.Entries {
		e.finish(s)
	}
	return s, nil
}

// open decrypts the key.
func (e *Entry) open() {
	key, err := e.unlock()
	e.unlock = nil
	if err != nil {
		e.Err = err
		return
	}
	e.key, e.decrypted = key, true
}

// trailing notes n bytes after the end.
func (s *Store) trailing(n int, o *Options) error {
	if o.Strict {
		return malformed("%d bytes after the end of the store", n)
	}
	s.note(fmt.Sprintf("%d bytes after the end of the store are ignored", n))
	return nil
}

// add appends an entry, in place of an earlier one of its kind with just this
// alias: Java's hash tables keep the last. Certificates without a role are no
// entries there.
func (s *Store) add(e *Entry) {
	same := func(o *Entry) bool { return o.Alias == e.Alias && o.Kind == e.Kind }
	if i := slices.IndexFunc(s.Entries, same); i >= 0 && e.Kind != Certificate {
		s.note(fmt.Sprintf("the alias %q occurs twice: the last one is taken", e.Alias))
		s.Entries = slices.Delete(s.Entries, i, i+1)
	}
	s.Entries = append(s.Entries, e)
}

// note adds a warning, once.
func (s *Store) note(text string) {
	if !slices.Contains(s.notes, text) {
		s.notes = append(s.notes, text)
	}
}

// Entry returns the entry alias. Case does not matter unless two differ by
// nothing else. The empty alias is the only private key.
func (s *Store) Entry(alias string) (*Entry, error) {
	if alias == "" {
		return s.onlyKey()
	}
	var best *Entry
	score := 0
	for _, e := range s.Entries {
		n := 0
		switch {
		case e.Alias == alias:
			n = 4
		case strings.EqualFold(e.Alias, alias):
			n = 2
		default:
			continue
		}
		if e.Kind != Certificate {
			n++
		}
		if n >= score { // of equals the last, as in Java
			best, score = e, n
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoSuchAlias, alias)
	}
	return best, nil
}

func (s *Store) onlyKey() (*Entry, error) {
	keys := s.PrivateKeys()
	switch len(keys) {
	case 0:
		return nil, fmt.Errorf("%w: there is no private key", ErrNoSuchAlias)
	case 1:
		return keys[0], nil
	default:
		e := new(AmbiguousError)
		for _, key := range keys {
			e.Aliases = append(e.Aliases, key.Alias)
		}
		return nil, e
	}
}

// PrivateKeys returns the entries of that kind.
func (s *Store) PrivateKeys() []*Entry { return s.ofKind(PrivateKey) }

func (s *Store) ofKind(kinds ...Kind) []*Entry {
	var out []*Entry
	for _, e := range s.Entries {
		if slices.Contains(kinds, e.Kind) {
			out = append(out, e)
		}
	}
	return out
}

// PKCS8 returns the private key, DER, byte for byte as the store has it. The
// error is e.Err, or tells that the entry has none.
func (e *Entry) PKCS8() ([]byte, error) {
	if e.Kind != PrivateKey {
		return nil, fmt.Errorf("%w: %q is a %v and no private key", ErrNoSuchAlias, e.Alias, e.Kind)
	}
	return e.keyBytes()
}

// SecretKey returns the bytes of a symmetric key, whose algorithm is in
// e.Algorithm.
func (e *Entry) SecretKey() ([]byte, error) {
	if e.Kind != SecretKey {
		return nil, fmt.Errorf("%w: %q is a %v and no secret key", ErrNoSuchAlias, e.Alias, e.Kind)
	}
	return e.keyBytes()
}

func (e *Entry) keyBytes() ([]byte, error) {
	if e.key == nil {
		if e.Err == nil {
			return nil, fmt.Errorf("%w: %q has no key", ErrNoSuchAlias, e.Alias)
		}
		return nil, e.Err
	}
	return slices.Clone(e.key), nil
}

// String describes the entry without its key.
func (e Entry) String() string {
	return fmt.Sprintf("Entry{%q %v %s, %d certificates}", e.Alias, e.Kind, e.Algorithm, len(e.Chain))
}

// Format prints String for every verb, so that none shows the key.
func (e Entry) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, e.String()) }
