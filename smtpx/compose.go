package smtpx

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"
)

// maxSigned is the size of the largest message that is signed: go-mail holds
// those in memory, some four times over.
const maxSigned = 32 << 20

// compose writes m to out and returns its envelope and message id. Nothing that
// it can find wrong is found after the first byte has gone to a server.
func compose(m *Message, out *spool) (envelope, string, error) {
	if m == nil {
		return envelope{}, "", errors.New("smtpx: the message is nil")
	}
	h, env, err := m.check()
	if err != nil {
		return env, "", err
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(&h.from.Address)
	for _, list := range []struct {
		set func(...*mail.Address)
		to  []address
	}{{msg.ToMailAddress, h.to}, {msg.CcMailAddress, h.cc}, {msg.ReplyToMailAddress, h.replyTo}} {
		if len(list.to) > 0 { // go-mail counts an empty header as a line, and then signs from the wrong one
			list.set(pointers(list.to)...)
		}
	}
	id, err := m.headers(msg, h.from.Address.Address)
	if err != nil {
		return env, "", err
	}
	if err := m.bodies(msg); err != nil {
		return env, "", err
	}
	if m.DKIM != nil || m.SMIME != nil {
		out.limit = min(out.limit, maxSigned)
	}
	if err := m.attach(msg, out); err != nil {
		return env, "", err
	}
	if err := m.sign(msg); err != nil {
		return env, "", err
	}
	if _, err := msg.WriteTo(out); err != nil {
		if out.err != nil {
			return env, "", out.err // go-mail's words about it say less
		}
		return env, "", fmt.Errorf("smtpx: the message cannot be written: %w", err)
	}
	err = out.finish()
	// Bodies and attachments are encoded, so what is not ASCII is an address.
	env.utf8 = env.utf8 || out.eightBit
	return env, id, err
}

func pointers(in []address) []*mail.Address {
	out := make([]*mail.Address, len(in))
	for i := range in {
		out[i] = &in[i].Address
	}
	return out
}

// reserved are the headers that have a field, or that are made.
var reserved = []string{
	"Bcc", "Cc", "Date", "Dkim-Signature", "From", "Importance", "Message-Id", "Mime-Version", "Priority",
	"Received", "Reply-To", "Return-Path", "Subject", "To", "X-Msmail-Priority", "X-Priority",
}

// headers sets all headers but the addresses, and returns the message id.
func (m *Message) headers(msg *gomail.Msg, from string) (string, error) {
	id := m.ID
	if id == "" {
		var random [16]byte
		_, _ = rand.Read(random[:]) // never fails
		id = hex.EncodeToString(random[:]) + from[strings.LastIndexByte(from, '@'):]
		if !isASCII(id) {
			id = hex.EncodeToString(random[:]) + "@localhost"
		}
	} else if !printableASCII(id) || len(id) > 250 || strings.ContainsAny(id, "<>") || !strings.Contains(id, "@") {
		return "", errors.New("smtpx: Message.ID must be printable ASCII of the form left@right, without < and >")
	}
	msg.SetMessageIDWithValue(id)
	date := m.Date
	if date.IsZero() {
		date = time.Now()
	}
	msg.SetDateWithValue(date)
	if m.Subject != "" {
		if hasControl(m.Subject) {
			return "", errors.New("smtpx: Message.Subject has control characters, or is not UTF-8")
		}
		msg.SetGenHeader(gomail.HeaderSubject, encodeHeader("Subject", m.Subject))
	}
	switch m.Importance {
	case "":
	case ImportanceLow:
		msg.SetImportance(gomail.ImportanceLow)
	case ImportanceHigh:
		msg.SetImportance(gomail.ImportanceHigh)
	default:
		return "", errors.New("smtpx: Message.Importance: use low or high, or nothing")
	}
	seen := make(map[string]bool, len(m.Headers))
	for name, value := range m.Headers {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !isHeaderName(name):
			return "", errors.New("smtpx: Message.Headers has a name that is none")
		case slices.Contains(reserved, canonical) || strings.HasPrefix(canonical, "Content-"):
			return "", fmt.Errorf("smtpx: Message.Headers must not set %s: there is a field for it, or it is made", canonical)
		case seen[canonical]:
			return "", fmt.Errorf("smtpx: Message.Headers has %s twice", canonical)
		case hasControl(value):
			return "", fmt.Errorf("smtpx: Message.Headers: %s has control characters, or is not UTF-8", canonical)
		}
		seen[canonical] = true
		msg.SetGenHeader(gomail.Header(name), encodeHeader(name, value))
	}
	return id, nil
}

// isHeaderName tells whether name is one by RFC 5322 section 2.2, and short
// enough for a line.
func isHeaderName(name string) bool {
	return name != "" && len(name) <= 76 && printableASCII(name) && !strings.Contains(name, ":")
}

func hasControl(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl)
}

// encodeHeader returns value in encoded words (RFC 2047) if it needs that: for
// characters outside of ASCII, for what would be read as an encoded word though
// it is none, for spaces that folding would change, and for words longer than
// a line.
//
// The first word fits the line of the name: some readers take the space of a
// fold right behind the colon for part of the value.
func encodeHeader(name, value string) string {
	const most = 45 // bytes, 60 in base64, with =?UTF-8?b??= around them 72
	room := 70 - len(name)
	longest, first := 0, -1
	for word := range strings.SplitSeq(value, " ") {
		longest = max(longest, len(word))
		if first < 0 {
			first = len(word)
		}
	}
	structured := name != "Subject" // or it may be: its words must stay whole if that is possible
	if isASCII(value) && !strings.Contains(value, "=?") && !strings.Contains(value, "  ") &&
		strings.TrimSpace(value) == value && longest < 900 && (structured || first < room) {
		return value
	}
	var words []string
	n := min(most, max(3, (room-12)/4*3))
	for len(value) > 0 {
		end := min(n, len(value))
		for end > 1 && end < len(value) && !utf8.RuneStart(value[end]) {
			end--
		}
		if end == 1 && value[0] >= utf8.RuneSelf { // a character longer than the room
			_, end = utf8.DecodeRuneInString(value)
		}
		words = append(words, "=?UTF-8?b?"+base64.StdEncoding.EncodeToString([]byte(value[:end]))+"?=")
		value, n = value[end:], most
	}
	return strings.Join(words, " ")
}

// bodies sets text and HTML. A message without either has an empty text: with
// attachments alone, go-mail does not always make parts of them.
func (m *Message) bodies(msg *gomail.Msg) error {
	convert, charset, err := m.charset()
	if err != nil {
		return err
	}
	option := gomail.WithPartCharset(charset)
	if m.Text != "" || m.HTML == "" {
		text, err := convert(m.Text)
		if err != nil {
			return fmt.Errorf("smtpx: Message.Text: %w", err)
		}
		msg.SetBodyString(gomail.TypeTextPlain, text, option)
	}
	if m.HTML != "" {
		html, err := convert(m.HTML)
		if err != nil {
			return fmt.Errorf("smtpx: Message.HTML: %w", err)
		}
		if m.Text != "" {
			msg.AddAlternativeString(gomail.TypeTextHTML, html, option)
		} else {
			msg.SetBodyString(gomail.TypeTextHTML, html, option)
		}
	}
	return nil
}

// charset returns how a body is converted from UTF-8, and the charset's name.
func (m *Message) charset() (func(string) (string, error), gomail.Charset, error) {
	upTo := func(last rune) func(string) (string, error) {
		return func(s string) (string, error) {
			out := make([]byte, 0, len(s))
			for _, r := range s {
				if r > last {
					return "", errors.New("a character that the character set does not have")
				}
				out = append(out, byte(r))
			}
			return string(out), nil
		}
	}
	switch strings.ToUpper(m.Charset) {
	case "", "UTF-8":
		return func(s string) (string, error) {
			if !utf8.ValidString(s) {
				return "", errors.New("not UTF-8")
			}
			return s, nil
		}, gomail.CharsetUTF8, nil
	case "US-ASCII":
		return upTo(unicode.MaxASCII), gomail.CharsetASCII, nil
	case "ISO-8859-1":
		return upTo(unicode.MaxLatin1), gomail.CharsetISO88591, nil
	}
	return nil, "", errors.New("smtpx: Message.Charset: use UTF-8, US-ASCII or ISO-8859-1")
}

// sign sets up the signatures.
func (m *Message) sign(msg *gomail.Msg) error {
	if m.SMIME != nil {
		switch m.SMIME.PrivateKey.(type) {
		case *rsa.PrivateKey, *ecdsa.PrivateKey:
		default:
			return errors.New("smtpx: Message.SMIME: the key must be RSA or ECDSA")
		}
		if err := msg.SignWithTLSCertificate(m.SMIME); err != nil {
			return fmt.Errorf("smtpx: Message.SMIME: %w", err)
		}
	}
	if d := m.DKIM; d != nil {
		if d.Key == nil || hasControl(d.Domain) || hasControl(d.Selector) || !printableASCII(d.Domain+d.Selector) ||
			strings.ContainsAny(d.Domain+d.Selector, ";=") || d.Domain == "" || d.Selector == "" {
			return errors.New("smtpx: Message.DKIM: Domain, Selector and Key must be set")
		}
		if key, ok := d.Key.Public().(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
			return errors.New("smtpx: Message.DKIM: an RSA key must have 2048 bits") // RFC 8301 section 3.2
		}
		msg.SetDKIM(gomail.NewDKIMSigner(d.Domain, d.Selector, d.Key))
	}
	return nil
}
