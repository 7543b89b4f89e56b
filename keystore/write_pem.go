package keystore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// PEMOptions say what WritePEM and WritePEMFiles write. The zero value is
// everything, with keys in the clear as PKCS#8.
type PEMOptions struct {
	// Aliases to write, in any case. Empty: every entry but secret keys, for
	// which PEM has no form.
	Aliases []string
	// KeyPassword encrypts the private keys with AES-256 and PBKDF2, such that
	// openssl and tlsprops open them. Empty: they are not encrypted.
	KeyPassword string
	// Traditional writes RSA and EC keys as PKCS#1 and SEC 1, for programs that do
	// not know PKCS#8. Not together with KeyPassword.
	Traditional bool
	// Overwrite replaces files that exist.
	Overwrite bool
}

// WritePEM writes the entries to w: for each the private key and then the chain
// from its own certificate upwards, or the certificate. Before each block there
// is a comment with the alias, as openssl pkcs12 writes it, and no PEM headers,
// for crypto/x509 skips certificates that have some.
//
// An entry whose key did not open is an error, and so is a store with nothing to
// write; the others are written nevertheless.
func (s *Store) WritePEM(w io.Writer, o PEMOptions) error {
	entries, err := s.selected(o)
	errs := []error{err}
	for _, e := range entries {
		key, err := e.keyPEM(o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, err := w.Write(append(key, e.chainPEM()...)); err != nil {
			return fmt.Errorf("keystore: %w", err)
		}
	}
	return errors.Join(errs...)
}

// WritePEMFiles writes the entries into the directory dir, which it makes if it
// is not there: ALIAS.key (mode 0600) and ALIAS.crt for a private key and its
// chain, and ca.crt with the certificates of Roots. Characters that have no
// place in a file name become underscores. It returns the names of what it has
// written, within dir.
//
// Nothing that exists is overwritten unless o.Overwrite is set, and then it is
// replaced in one step. An entry whose key did not open is an error; the others
// are written nevertheless.
func (s *Store) WritePEMFiles(dir string, o PEMOptions) ([]string, error) {
	entries, err := s.selected(o)
	errs := []error{err}
	if len(entries) == 0 {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the keys in it are 0600
		return nil, fmt.Errorf("keystore: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	defer func() { _ = root.Close() }()
	w := &pemDirectory{root: root, overwrite: o.Overwrite, taken: map[string]bool{"ca": true}}
	var roots []byte
	marked := len(s.ofKind(TrustedCertificate)) > 0
	for _, e := range entries {
		switch {
		case e.Kind == PrivateKey:
			key, err := e.keyPEM(o)
			if err == nil {
				base := w.baseName(e.Alias)
				err = w.write(base+".key", key, 0o600)
				if err == nil && len(e.Chain) > 0 {
					err = w.write(base+".crt", e.chainPEM(), 0o644)
				}
			}
			errs = append(errs, err)
		case e.Kind == TrustedCertificate, !marked:
			roots = append(roots, e.chainPEM()...)
		default:
			errs = append(errs, w.write(w.baseName(e.Alias)+".crt", e.chainPEM(), 0o644))
		}
	}
	if len(roots) > 0 {
		errs = append(errs, w.write("ca.crt", roots, 0o644))
	}
	return w.written, errors.Join(errs...)
}

// selected returns the entries that o asks for.
func (s *Store) selected(o PEMOptions) ([]*Entry, error) {
	if o.Traditional && o.KeyPassword != "" {
		return nil, errors.New("keystore: traditional and encrypted keys exclude each other: leave out one")
	}
	var out []*Entry
	var errs []error
	for _, alias := range o.Aliases {
		e, err := s.Entry(alias)
		if err == nil && e.Kind == SecretKey {
			err = fmt.Errorf("%w: %q is a secret key, for which PEM has no form", ErrNoSuchAlias, alias)
		}
		if err != nil {
			errs = append(errs, err)
		} else if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	if len(o.Aliases) == 0 {
		out = s.ofKind(PrivateKey, TrustedCertificate, Certificate)
		if len(out) == 0 {
			errs = append(errs, fmt.Errorf("%w: there is no private key and no certificate", ErrNoSuchAlias))
		}
	}
	return out, errors.Join(errs...)
}

// keyPEM returns the block of the private key, or nothing for a certificate.
func (e *Entry) keyPEM(o PEMOptions) ([]byte, error) {
	if e.Kind != PrivateKey {
		return nil, nil
	}
	der, err := e.PKCS8()
	if err != nil {
		return nil, err
	}
	label := "PRIVATE KEY"
	switch {
	case o.KeyPassword != "":
		label = "ENCRYPTED PRIVATE KEY"
		if der, err = encryptPKCS8(der, o.KeyPassword); err != nil {
			return nil, fmt.Errorf("keystore: the key %q: %w", e.Alias, err)
		}
	case o.Traditional:
		label, der = traditionalForm(der)
	}
	return pemBlock(label, der, e.Alias), nil
}

// traditionalForm returns the label and the DER of before PKCS #8, where the key
// has such a form.
func traditionalForm(pkcs8 []byte) (label string, der []byte) {
	label, der = "PRIVATE KEY", pkcs8
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return label, der
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)
	case *ecdsa.PrivateKey:
		if sec1, err := x509.MarshalECPrivateKey(key); err == nil {
			return "EC PRIVATE KEY", sec1
		}
	}
	return label, der
}

func (e *Entry) chainPEM() []byte {
	var out []byte
	for _, der := range e.Chain {
		out = append(out, pemBlock("CERTIFICATE", der, e.Alias)...)
	}
	return out
}

// pemBlock writes a comment with the alias, and the block.
func pemBlock(label string, der []byte, alias string) []byte {
	var b bytes.Buffer
	b.WriteString("Bag Attributes\n    friendlyName: " + oneLine(alias) + "\n")
	_ = pem.Encode(&b, &pem.Block{Type: label, Bytes: der}) // a Buffer does not fail
	return b.Bytes()
}

// oneLine returns an alias that cannot end its line or begin a block.
func oneLine(alias string) string {
	if strings.ContainsFunc(alias, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(alias, "-----") ||
		strings.TrimSpace(alias) != alias {
		return strings.ReplaceAll(strconv.Quote(alias), "-----", `\x2d----`)
	}
	return alias
}

// pemDirectory writes files that do not leave their directory.
type pemDirectory struct {
	root      *os.Root
	overwrite bool
	taken     map[string]bool // base names, in lower case
	written   []string
}

// baseName returns a file name for alias that was not taken yet.
func (d *pemDirectory) baseName(alias string) string {
	const longest = 100 // bytes; file systems end at 255
	base := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-+@=", r) {
			return r
		}
		return '_'
	}, alias)
	for len(base) > longest {
		runes := []rune(base)
		base = string(runes[:min(len(runes)-1, longest)])
	}
	if base == "" || strings.HasPrefix(base, "-") || strings.HasPrefix(base, ".") {
		base = "_" + base
	}
	name := base
	for n := 2; d.taken[strings.ToLower(name)]; n++ {
		name = base + "-" + strconv.Itoa(n)
	}
	d.taken[strings.ToLower(name)] = true
	return name
}

// write makes the file name, which has its mode from the beginning. A file that
// exists is replaced in one step, or not at all.
func (d *pemDirectory) write(name string, data []byte, mode os.FileMode) error {
	target := name
	if d.overwrite {
		target = "." + name + "." + strconv.Itoa(os.Getpid()) + ".tmp"
	}
	f, err := d.root.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keystore: %w: remove it, or ask for it to be overwritten", err)
	}
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil && d.overwrite {
		err = d.root.Rename(target, name)
	}
	if err != nil {
		_ = d.root.Remove(target)
		return fmt.Errorf("keystore: %w", err)
	}
	d.written = append(d.written, name)
	return nil
}
