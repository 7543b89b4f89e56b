package smtpx

import "fmt"

// SmtpEncryption says how the connection to the server is encrypted. Its words
// are those of the deployment guide. There is no default: the empty word is
// refused, so that nobody sends mail in the clear by leaving a setting out.
type SmtpEncryption string

const (
	// EncryptionNone sends in the clear, and refuses to send credentials.
	EncryptionNone SmtpEncryption = "none"
	// EncryptionTLS demands STARTTLS (RFC 3207) before anything but EHLO. A
	// server that does not offer it, or refuses it, gets no mail.
	EncryptionTLS SmtpEncryption = "tls"
	// EncryptionSSL begins the connection with TLS (RFC 8314 section 3.3).
	EncryptionSSL SmtpEncryption = "ssl"
)

// DefaultPort returns 25 for none, 587 for tls and 465 for ssl, and 0 for a word
// that does not exist.
func (e SmtpEncryption) DefaultPort() int {
	switch e {
	case EncryptionNone:
		return 25
	case EncryptionTLS:
		return 587
	case EncryptionSSL:
		return 465
	}
	return 0
}

// MarshalText returns the word; one that does not exist is an error.
func (e SmtpEncryption) MarshalText() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return []byte(e), nil
}

// UnmarshalText takes "none", "tls" and "ssl", letter by letter, and nothing else.
func (e *SmtpEncryption) UnmarshalText(text []byte) error {
	word := SmtpEncryption(text)
	if err := word.check(); err != nil {
		return err
	}
	*e = word
	return nil
}

func (e SmtpEncryption) check() error {
	if e.DefaultPort() == 0 {
		return fmt.Errorf("smtpx: encryption %q: use none (port 25), tls (STARTTLS, port 587) or ssl (TLS from the start, port 465)", string(e))
	}
	return nil
}
