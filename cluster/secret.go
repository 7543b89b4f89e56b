package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	// minSecretBytes is what 24 random bytes take in base64, and 16 in
	// hexadecimal: no secret that a machine made is shorter.
	minSecretBytes = 32
	// maxSecretBytes keeps a secret within what every HTTP server takes as a
	// header.
	maxSecretBytes = 1024
	// minDistinct is how many different characters a secret has at least. Of 32
	// random hexadecimal digits one in ten million has fewer than 8.
	minDistinct = 8
	// minPeriod is how long the part must be of which a secret is a repetition.
	minPeriod = 16
)

// Errors found in the Err of a FieldError with errors.Is.
var (
	// ErrNoSecret means that there is none: nobody can be let in.
	ErrNoSecret = errors.New("no secret is set: make one with `openssl rand -base64 32` and give all nodes the same")
	// ErrWeakSecret means that a secret can be guessed, or is known from a manual.
	ErrWeakSecret = errors.New("the secret can be guessed: make one with `openssl rand -base64 32`")
)

// A Secret is what the nodes of a cluster share: 32 to 1024 printable ASCII
// characters, such as the output of `openssl rand -base64 32`. They are used as
// they are, and not decoded. However a Secret is printed, logged or marshalled,
// it comes out as REDACTED.
type Secret string

const redacted = "REDACTED"

// Format writes REDACTED, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns REDACTED.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns REDACTED.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// placeholders are what manuals and charts put where a secret belongs, in lower
// case, letters and digits alone. None is so short that a random secret could
// hold it by chance.
var placeholders = []string{
	"yourstrongrandomsecrethere", // the guide's
	"yourstrong", "yoursecret", "yourcluster", "yourrandom", "randomsecret", "strongsecret", "secrethere",
	"changeme", "changeit", "changethis", "replaceme", "replacethis", "placeholder", "insertsecret", "examplesecret",
	"clustersecret", "supersecret", "password", "qwertyuiop", "0123456789abcdef0123456789abcdef",
}

// check tells what is wrong with a secret, without quoting any of it.
func (s Secret) check() error {
	text := string(s)
	if text == "" {
		return ErrNoSecret
	}
	if strings.Contains(text, "${") || strings.Contains(text, "$(") {
		return errors.New("a variable was not replaced by its value")
	}
	if known(text) {
		return fmt.Errorf("%w (it has the words of a placeholder)", ErrWeakSecret)
	}
	if strings.TrimSpace(text) != text {
		return errors.New("a space or a line's end stands before or after the secret, which an HTTP header cannot carry: remove it")
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			return errors.New("it has characters other than printable ASCII, which an HTTP header cannot carry")
		}
	}
	switch {
	case len(text) < minSecretBytes:
		return fmt.Errorf("%w (it has %d bytes, and %d are needed)", ErrWeakSecret, len(text), minSecretBytes)
	case len(text) > maxSecretBytes:
		return fmt.Errorf("it has %d bytes, and %d are the limit", len(text), maxSecretBytes)
	case distinct(text) < minDistinct:
		return fmt.Errorf("%w (it has fewer than %d different characters)", ErrWeakSecret, minDistinct)
	case periodic(text):
		return fmt.Errorf("%w (it repeats itself)", ErrWeakSecret)
	}
	return nil
}

// known reports whether a secret holds a placeholder, however that is written.
func known(text string) bool {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(text))
	for _, p := range placeholders {
		if strings.Contains(plain, p) {
			return true
		}
	}
	return false
}

func distinct(text string) int {
	var seen [256]bool
	n := 0
	for _, c := range []byte(text) {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}

// periodic reports whether text is a short part, repeated.
func periodic(text string) bool {
	for p := 1; p < min(minPeriod, len(text)); p++ {
		if strings.HasPrefix(text, text[p:]) {
			return true
		}
	}
	return false
}
