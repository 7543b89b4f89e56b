package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/keystore"
)

// keystoreConvertCmd is `carewire keystore convert`.
type keystoreConvertCmd struct {
	File string `arg:"" help:"JKS, JCEKS, PKCS#12, PEM or DER file; its content tells which."`
	Out  string `required:"" placeholder:"DIR" help:"Directory to write to, made where it is missing; - writes PEM to standard output."`
	keystoreFlags
	Alias []string `placeholder:"ALIAS" help:"Entry to convert, in any case; repeat it for several. Without it all are."`
	To    string   `enum:"pem,p12" default:"pem" help:"What to write: pem or p12. A p12 has the store's password."`
	Force bool     `help:"Replace files that are there already."`
}

// Help is shown by --help.
func (c *keystoreConvertCmd) Help() string {
	return "A private key becomes ALIAS.key (mode 0600) and ALIAS.crt with its chain, trusted certificates become ca.crt. " +
		"Entries that do not open are reported, and the others written; the exit status is then 1."
}

func (c *keystoreConvertCmd) Run(s *streams) error {
	store, o, err := c.open(s, c.File)
	if err != nil {
		return err
	}
	if c.To == "p12" {
		return c.writePKCS12(s, store, o)
	}
	pem := keystore.PEMOptions{Aliases: c.Alias, Overwrite: c.Force}
	if c.Out == "-" {
		return store.WritePEM(s.out, pem)
	}
	names, err := store.WritePEMFiles(c.Out, pem)
	for _, name := range names {
		fmt.Fprintln(s.out, filepath.Join(c.Out, name))
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w (--force replaces them)", err)
	}
	return err
}

// writePKCS12 writes one private key, or the trusted certificates.
func (c *keystoreConvertCmd) writePKCS12(s *streams, store *keystore.Store, o keystore.Options) error {
	switch {
	case o.NoPassword:
		return unusable("a p12 needs a password: give --storepass-file or --storepass-env")
	case c.Out == "-":
		return unusable("--out: a p12 is not for a terminal: name a directory")
	case len(c.Alias) > 1:
		return unusable("--alias: a p12 holds one private key: name one alias")
	}
	name, trust := "truststore.p12", len(store.PrivateKeys()) == 0 && len(c.Alias) == 0
	alias := ""
	if !trust {
		if len(c.Alias) == 1 {
			alias = c.Alias[0]
		}
		name = "keystore.p12"
	}
	if err := os.MkdirAll(c.Out, 0o700); err != nil {
		return unusable("%w", err)
	}
	path := filepath.Join(c.Out, name)
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if c.Force {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w (--force replaces it)", err)
	}
	if err != nil {
		return err
	}
	if trust {
		err = store.WriteTrustStorePKCS12(f, o.Password)
	} else {
		err = store.WritePKCS12(f, alias, o.Password)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	fmt.Fprintln(s.out, path)
	return nil
}
