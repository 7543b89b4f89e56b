package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/carewire/carewire/keystore"
)

// keystoreFlags are the passwords of a key store. Those on the command line are
// seen by everyone who may list the machine's processes; they are there for those
// who insist.
type keystoreFlags struct {
	StorepassFile string `xor:"storepass" placeholder:"FILE" help:"File that holds the store's password; one newline at its end is not part of it."`
	StorepassEnv  string `xor:"storepass" placeholder:"NAME" help:"Environment variable that holds the store's password."`
	Storepass     string `xor:"storepass" placeholder:"PASSWORD" help:"The store's password itself, which the machine's process list then shows."`
	KeypassFile   string `xor:"keypass" placeholder:"FILE" help:"The same for the key's password, where it differs from the store's."`
	KeypassEnv    string `xor:"keypass" placeholder:"NAME" help:"The same."`
	Keypass       string `xor:"keypass" placeholder:"PASSWORD" help:"The same."`
	iterationsFlag
}

// iterationsFlag lets large stores be opened. Java 17 spends 200,000 iterations on
// each key of a JCEKS store, and programs of NSS 600,000 or more on each part of
// a PKCS#12 file.
type iterationsFlag struct {
	MaxIterations int `placeholder:"N" help:"Iterations of key derivation to spend on the whole file (default: 5000000, a second or two). A file of many keys may want more; a negative number is no limit."`
}

// options are the flags in the library's words. Where no password is given and
// there is a terminal, it is asked for.
func (f *keystoreFlags) options(s *streams) (keystore.Options, error) {
	store, given, err := readPassword(f.StorepassFile, f.StorepassEnv, f.Storepass)
	if err != nil {
		return keystore.Options{}, err
	}
	key, _, err := readPassword(f.KeypassFile, f.KeypassEnv, f.Keypass)
	if err != nil {
		return keystore.Options{}, err
	}
	if !given {
		if store, given, err = askPassword(s); err != nil {
			return keystore.Options{}, err
		}
	}
	return keystore.Options{Password: store, NoPassword: !given, KeyPassword: key, MaxIterations: f.MaxIterations}, nil
}

// readPassword returns the password of one of three sources, and whether there
// is one.
func readPassword(file, env, value string) (password string, given bool, err error) {
	switch {
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return "", false, unusable("the file of the password: %w", err)
		}
		password, newline := strings.CutSuffix(string(data), "\n")
		if newline {
			password = strings.TrimSuffix(password, "\r")
		}
		return password, true, nil
	case env != "":
		password, ok := os.LookupEnv(env)
		if !ok {
			return "", false, unusable("the environment variable %s is not set", env)
		}
		return password, true, nil
	default:
		return value, value != "", nil
	}
}

// askPassword asks at the terminal, if standard input is one. No answer is no
// password.
func askPassword(s *streams) (password string, given bool, err error) {
	in, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", false, nil
	}
	fmt.Fprint(s.err, "password of the key store (empty: none): ")
	answer, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(s.err)
	if err != nil {
		return "", false, unusable("the password: %w", err)
	}
	return string(answer), len(answer) > 0, nil
}

// open opens the key store name and notes what is strange about it.
func (f *keystoreFlags) open(s *streams, name string) (*keystore.Store, keystore.Options, error) {
	o, err := f.options(s)
	if err != nil {
		return nil, o, err
	}
	store, err := openStoreFile(s, name, o)
	return store, o, err
}

func openStoreFile(s *streams, name string, o keystore.Options) (*keystore.Store, error) {
	store, err := keystore.OpenFile(name, o)
	if errors.Is(err, keystore.ErrPasswordRequired) {
		return nil, unusable("%w: give --storepass-file or --storepass-env", err)
	}
	if _, ok := errors.AsType[*keystore.LimitError](err); ok {
		return nil, unusable("%w (--max-iterations allows more)", err)
	}
	if err != nil {
		return nil, unusable("%w", err)
	}
	for _, text := range store.Warnings() {
		s.note("%s", text)
	}
	return store, nil
}

// keystoreListCmd is `carewire keystore list`.
type keystoreListCmd struct {
	File string `arg:"" help:"JKS, JCEKS, PKCS#12, PEM or DER file; its content tells which."`
	keystoreFlags
	JSON bool `name:"json" help:"Print one JSON object for each entry."`
}

// keystoreLine is what an entry prints.
type keystoreLine struct {
	Alias        string     `json:"alias"`
	Kind         string     `json:"kind"`
	Algorithm    string     `json:"algorithm,omitempty"`
	Created      *time.Time `json:"created,omitempty"`
	Certificates int        `json:"certificates"`
	Problem      string     `json:"problem,omitempty"`
}

func (c *keystoreListCmd) Run(s *streams) error {
	store, _, err := c.open(s, c.File)
	if err != nil {
		return err
	}
	if !c.JSON {
		fmt.Fprintf(s.out, "%s: %v, integrity %v, %s\n", c.File, store.Format, store.Integrity, entries(len(store.Entries)))
	}
	for _, e := range store.Entries {
		line := keystoreLine{Alias: e.Alias, Kind: e.Kind.String(), Algorithm: e.Algorithm, Certificates: len(e.Chain)}
		if !e.Created.IsZero() {
			line.Created = &e.Created
		}
		if e.Err != nil {
			line.Problem = e.Err.Error()
		}
		if c.JSON {
			if err := s.printJSON(line); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(s.out, "%q\t%s\t%s\t%s\n", line.Alias, line.Kind, line.Algorithm, plural(line.Certificates, "certificate"))
	}
	return nil
}

func entries(n int) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
