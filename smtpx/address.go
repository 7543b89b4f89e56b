package smtpx

import (
	"errors"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"
)

// address is a checked address: its mailbox can stand between < and > on the
// wire as it is.
type address struct {
	mail.Address
	ascii bool
}

// parseAddress takes one address, "a@example.org" or "Name <a@example.org>". Its
// errors do not hold the address. More than one address is an error, so that a
// value which is put into a template cannot add a recipient.
func parseAddress(text string) (address, error) {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return address{}, errors.New("an address with control characters")
	}
	parsed, err := mail.ParseAddress(text)
	if err != nil {
		return address{}, errors.New("not an address, or more than one") // err quotes it
	}
	at := strings.LastIndexByte(parsed.Address, '@')
	local, domain := parsed.Address[:at], parsed.Address[at+1:]
	switch {
	// RFC 5321 section 4.5.3.1: what a server need not take.
	case len(local) > 64 || len(domain) > 255 || len(parsed.Address) > 254:
		return address{}, errors.New("an address that is too long")
	// A quoted local part may hold anything, and every hop must quote it again:
	// too much is gained by those who find one that does not.
	case strings.ContainsAny(local, " \"\\<>()[],;:@\t"):
		return address{}, errors.New("an address with a quoted local part, which is not supported")
	case strings.ContainsAny(domain, " \"\\<>(),;@\t") || domain == "":
		return address{}, errors.New("an address with a faulty domain")
	case strings.ContainsFunc(parsed.Name, unicode.IsControl): // from an encoded word
		return address{}, errors.New("a name with control characters")
	case strings.ContainsFunc(parsed.Address, unicode.IsControl):
		return address{}, errors.New("an address with control characters")
	}
	return address{Address: *parsed, ascii: isASCII(parsed.Address)}, nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// redacted returns what of an address may be logged: its domain.
func redacted(mailbox string) string {
	return "…" + mailbox[max(strings.LastIndexByte(mailbox, '@'), 0):]
}
