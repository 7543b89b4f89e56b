package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carewire/carewire/keystore"
)

// keystoreMirthCmd is `carewire keystore mirth`.
type keystoreMirthCmd struct {
	Dir        string `arg:"" help:"Mirth's appdata directory, which has keystore.jks."`
	Properties string `placeholder:"FILE" help:"mirth.properties; without it, it is looked for in DIR, DIR/conf and DIR/../conf."`
	Out        string `default:"certs" placeholder:"DIR" help:"Directory for the PEM files, made where it is missing."`
	Force      bool   `help:"Replace files that are there already."`
	iterationsFlag
}

// Help is shown by --help.
func (c *keystoreMirthCmd) Help() string {
	return "Reads the passwords from mirth.properties, writes the keys and certificates as PEM files, and prints the tls block for a channel of the engine."
}

func (c *keystoreMirthCmd) Run(s *streams) error {
	properties, err := c.properties()
	if err != nil {
		return err
	}
	name := filepath.Join(c.Dir, "keystore.jks")
	if path := properties["keystore.path"]; path != "" {
		name = strings.ReplaceAll(path, "${dir.appdata}", c.Dir)
		if !filepath.IsAbs(name) && !strings.HasPrefix(path, "${dir.appdata}") {
			name = filepath.Join(c.Dir, filepath.Base(name)) // it was relative to Mirth's own directory
		}
	}
	store, err := openStoreFile(s, name, keystore.Options{
		Password: properties["keystore.storepass"], KeyPassword: properties["keystore.keypass"],
		MaxIterations: c.MaxIterations,
	})
	if err != nil {
		return err
	}
	names, err := store.WritePEMFiles(c.Out, keystore.PEMOptions{Overwrite: c.Force})
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w (--force replaces them)", err)
	}
	if err != nil {
		return err
	}
	for _, e := range store.Entries {
		if e.Kind == keystore.SecretKey {
			s.note("%q is a secret key (%s), with which Mirth encrypts messages at rest: it has no PEM form and is left in the key store", e.Alias, e.Algorithm)
		}
	}
	for _, name := range names {
		fmt.Fprintf(s.out, "# %s\n", filepath.Join(c.Out, name))
	}
	fmt.Fprint(s.out, tlsBlocks(c.Out, names))
	if len(store.PrivateKeys()) > 1 {
		s.note("there are several private keys, and so several blocks: a connector takes one")
	}
	return nil
}

// tlsBlocks is the engine's configuration for the files that were written: a
// block for each private key, as a connector has one.
func tlsBlocks(dir string, names []string) string {
	trust := ""
	if slices.Contains(names, "ca.crt") {
		trust = fmt.Sprintf("  trustStorePath: %q\n", filepath.Join(dir, "ca.crt"))
	}
	var b strings.Builder
	for _, name := range names {
		if base, ok := strings.CutSuffix(name, ".key"); ok {
			fmt.Fprintf(&b, "tls:\n  enabled: true\n  keyStorePath: %q\n  certStorePath: %q\n%s",
				filepath.Join(dir, name), filepath.Join(dir, base+".crt"), trust)
		}
	}
	if b.Len() == 0 && trust != "" {
		b.WriteString("tls:\n  enabled: true\n" + trust)
	}
	return b.String()
}

// properties reads mirth.properties.
func (c *keystoreMirthCmd) properties() (map[string]string, error) {
	places := []string{c.Properties}
	if c.Properties == "" {
		const name = "mirth.properties"
		places = []string{filepath.Join(c.Dir, name), filepath.Join(c.Dir, "conf", name), filepath.Join(c.Dir, "..", "conf", name)}
	}
	for _, place := range places {
		data, err := os.ReadFile(place)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, unusable("%w", err)
		}
		return parseProperties(data), nil
	}
	return nil, unusable("there is no mirth.properties in %s: name it with --properties", strings.Join(places, ", "))
}
