package keystore

import (
	"fmt"
	"slices"
	"strings"

	"github.com/carewire/carewire/internal/pbe"
)

// Options are the passwords of a key store and the limits of reading it. The
// zero value opens a store with the empty password. Printing leaves out the
// passwords.
type Options struct {
	// Password of the store, which is the password of its keys too unless one of
	// the next three is set. It is never trimmed. Empty: the empty password.
	Password string
	// NoPassword reads what needs no password, does not check the integrity of
	// the file, and leaves the keys locked for which no other password is given.
	NoPassword bool
	// KeyPassword of the private and secret keys, where it differs from the
	// store's. Empty: Password.
	KeyPassword string
	// KeyPasswords of single keys, by alias in any case. They go before
	// KeyPassword.
	KeyPasswords map[string]string
	// MorePasswords are tried last, in order, for keys and for encrypted parts of
	// a PKCS #12 file.
	MorePasswords []string

	// Format of the file. Zero: what its content says, never its name.
	Format Format
	// Strict refuses bytes after the end of the store, which Windows is known to
	// write, instead of warning.
	Strict bool
	// MaxBytes of the file. Zero: 8 MiB. Negative: no limit.
	MaxBytes int64
	// MaxIterations of key derivation over the whole file, counted before each
	// begins. Zero: 5,000,000, about a second or two. Negative: no limit. A
	// single derivation never gets more than 5,000,000, the limit of the JDK.
	MaxIterations int
	// AllowLegacyInFIPS lets the key store itself be opened with algorithms that
	// GODEBUG=fips140=only forbids, such as the SHA-1 of every JKS file. What
	// comes out is used under the rules of that mode.
	AllowLegacyInFIPS bool
}

const (
	defaultMaxBytes      = 8 << 20
	defaultMaxIterations = 5_000_000

	// maxItems bounds the entries, certificates and attributes of a file. The
	// stores of public CAs have some 150 entries.
	maxItems = 10_000
)

// String returns the options without the passwords.
func (o Options) String() string {
	return fmt.Sprintf("Options{Format:%v NoPassword:%t Strict:%t MaxBytes:%d MaxIterations:%d}", o.Format, o.NoPassword, o.Strict, o.MaxBytes, o.MaxIterations)
}

// GoString is String.
func (o Options) GoString() string { return o.String() }

func (o *Options) maxBytes() int64 {
	if o.MaxBytes == 0 {
		return defaultMaxBytes
	}
	return o.MaxBytes
}

// keyPasswords returns the passwords to try for the key alias, in order.
func (o *Options) keyPasswords(alias string) []string {
	var out []string
	add := func(password string) {
		if !slices.Contains(out, password) {
			out = append(out, password)
		}
	}
	for name, password := range o.KeyPasswords {
		if strings.EqualFold(name, alias) {
			add(password)
		}
	}
	if o.KeyPassword != "" {
		add(o.KeyPassword)
	}
	if !o.NoPassword {
		add(o.Password)
	}
	for _, password := range o.MorePasswords {
		add(password)
	}
	return out
}

// storePasswords returns the passwords to try for a part of the store that is
// no key, in order.
func (o *Options) storePasswords() []string {
	if o.NoPassword {
		return o.MorePasswords
	}
	out := []string{o.Password}
	// openssl pkcs12 -twopass encrypts with another password than the MAC's.
	if o.KeyPassword != "" && o.KeyPassword != o.Password {
		out = append(out, o.KeyPassword)
	}
	return append(out, o.MorePasswords...)
}

// account is what may still be spent on one file.
type account struct {
	limit, spent int // iterations; a negative limit is none
	items        int
	ended        func() error // why nobody waits for the outcome any more; nil while somebody does
}

func newAccount(o *Options, ended func() error) *account {
	a := &account{limit: o.MaxIterations, ended: ended}
	if a.limit == 0 {
		a.limit = defaultMaxIterations
	}
	return a
}

// spend is called before n iterations are computed.
func (a *account) spend(n int) error {
	if err := a.ended(); err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	if a.limit >= 0 && n > a.limit-a.spent {
		return &LimitError{"iterations of key derivation in the whole file (Options.MaxIterations)", int64(a.limit)}
	}
	a.spent += n
	return nil
}

// item is called for each thing that is kept.
func (a *account) item() error {
	if a.items++; a.items > maxItems {
		return &LimitError{"entries, certificates and attributes", maxItems}
	}
	return nil
}

// decrypt opens data with the first of passwords that fits. Its error is
// pbe.ErrIncorrect if there is none.
func (a *account) decrypt(scheme *pbe.Scheme, data []byte, passwords []string, accept func([]byte) bool) ([]byte, error) {
	for _, password := range passwords {
		if err := a.spend(scheme.Cost(password)); err != nil {
			return nil, err
		}
		plain, err := scheme.Decrypt(data, password, accept)
		if err == nil || !isIncorrect(err) {
			return plain, err
		}
	}
	return nil, pbe.ErrIncorrect
}
