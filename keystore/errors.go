package keystore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/carewire/carewire/internal/pbe"
)

// What errors.Is finds in the errors of this package. None of them holds
// anything of a password or a key; aliases are quoted.
var (
	// ErrFormat is in the error for a file that breaks the rules of its format.
	ErrFormat = errors.New("keystore: malformed")
	// ErrTruncated is in the error for a file that ends too early. ErrFormat is
	// in it too.
	ErrTruncated = errors.New("keystore: the file ends too early")
	// ErrIncorrectPassword is in every *PasswordError.
	ErrIncorrectPassword = errors.New("keystore: incorrect password")
	// ErrPasswordRequired is in the error for what cannot be read with
	// Options.NoPassword.
	ErrPasswordRequired = errors.New("keystore: encrypted, and no password is given")
	// ErrIntegrity is in the error for a file that was altered or damaged beyond
	// doubt. Mostly that cannot be told from a wrong password: see PasswordError.
	ErrIntegrity = errors.New("keystore: altered or damaged")
	// ErrNoSuchAlias is in the error for an alias that the store does not have,
	// or under which it has something else.
	ErrNoSuchAlias = errors.New("keystore: no such entry")
	// ErrKeyMismatch is in the error of Store.TLSCertificate for a private key
	// whose certificate belongs to another one.
	ErrKeyMismatch = errors.New("keystore: the private key and the certificate do not belong together")
)

// A PasswordError is the error for a password that opens nothing. No format can
// tell it from damage.
type PasswordError struct {
	// Alias of the key that does not open. Empty if Store is set.
	Alias string
	// Store is true if the whole file does not open.
	Store bool
}

// Error says what did not open.
func (e *PasswordError) Error() string {
	if e.Store {
		return "keystore: incorrect password, or the file was altered"
	}
	if e.Alias == "" {
		return "keystore: incorrect password for the key, or it was altered"
	}
	return fmt.Sprintf("keystore: incorrect password for the key %q, or it was altered", e.Alias)
}

// Is makes the error ErrIncorrectPassword.
func (e *PasswordError) Is(target error) bool { return target == ErrIncorrectPassword }

// An UnsupportedFormatError is the error for a file of a kind that is known, and
// not read here.
type UnsupportedFormatError struct {
	Format Format
	Hint   string // what to do, with the command that converts it
}

// Error names the format and the way out.
func (e *UnsupportedFormatError) Error() string {
	return fmt.Sprintf("keystore: the file is %s, which is not read here: %s", e.Format.description(), e.Hint)
}

// An UnsupportedAlgorithmError is the error for cryptography that is not known
// here, or that the FIPS 140-only mode forbids.
type UnsupportedAlgorithmError struct {
	OID   string // dotted; empty if the algorithm has none
	Name  string // empty if it has none here
	Where string // "the MAC of the file"
	FIPS  bool   // known, but forbidden: see Options.AllowLegacyInFIPS
}

// Error names the algorithm.
func (e *UnsupportedAlgorithmError) Error() string {
	name := e.Name
	switch {
	case name == "":
		name = e.OID
	case e.OID != "":
		name += " (" + e.OID + ")"
	}
	if e.FIPS {
		return fmt.Sprintf("keystore: %s uses %s, which is not allowed in FIPS 140-only mode", e.Where, name)
	}
	return fmt.Sprintf("keystore: %s uses %s, which is not known here", e.Where, name)
}

// A LimitError is the error for a file that asks for more than is granted. It
// comes before the work.
type LimitError struct {
	What  string // "bytes of the file"
	Limit int64
}

// Error says what the limit is.
func (e *LimitError) Error() string {
	return fmt.Sprintf("keystore: more than %d %s", e.Limit, e.What)
}

// An AmbiguousError is the error for asking a store with several private keys
// for its only one.
type AmbiguousError struct {
	Aliases []string
}

// Error lists the aliases.
func (e *AmbiguousError) Error() string {
	quoted := make([]string, 0, len(e.Aliases))
	for _, alias := range e.Aliases {
		quoted = append(quoted, fmt.Sprintf("%q", alias))
	}
	const most = 20
	if len(quoted) > most {
		quoted = append(quoted[:most], "...")
	}
	return fmt.Sprintf("keystore: %d private keys: name the alias of one: %s", len(e.Aliases), strings.Join(quoted, ", "))
}

// malformed returns an error that is ErrFormat.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// truncated returns an error that is ErrTruncated and ErrFormat.
func truncated(in string) error {
	return &joined{fmt.Sprintf("%v: within %s", ErrTruncated, in), []error{ErrTruncated, ErrFormat}}
}

// joined is an error with a text of its own that is several others.
type joined struct {
	text string
	errs []error
}

func (e *joined) Error() string   { return e.text }
func (e *joined) Unwrap() []error { return e.errs }

// fromPBE turns an error of the decryption of what where names into one of this
// package. ErrIncorrect stays, for only the caller knows whose password it was.
func fromPBE(err error, where string) error {
	var unsupported *pbe.UnsupportedError
	var limit *pbe.LimitError
	var own *LimitError
	switch {
	case err == nil, errors.Is(err, pbe.ErrIncorrect), errors.Is(err, ErrFormat), errors.As(err, &own):
		return err
	case errors.As(err, &unsupported):
		return &UnsupportedAlgorithmError{unsupported.OID, unsupported.Name, where, unsupported.FIPS}
	case errors.As(err, &limit) && limit.Asked > limit.Max:
		return &LimitError{limit.What + " in " + where, int64(limit.Max)}
	default:
		return malformed("%s: %v", where, err)
	}
}

func isIncorrect(err error) bool { return errors.Is(err, pbe.ErrIncorrect) }
