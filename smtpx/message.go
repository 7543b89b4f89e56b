package smtpx

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

// A Message is one mail. From and at least one recipient must be set. Send does
// not change it.
//
// No field can bring a header or a recipient that is not its own: control
// characters, line ends among them, are an error in every field but the bodies.
type Message struct {
	From string // "a@example.org" or "Name <a@example.org>", as every address here
	// EnvelopeFrom is where notices of failed delivery go (MAIL FROM). Empty: the
	// mailbox of From. "<>": they go nowhere (RFC 5321 section 4.5.5).
	EnvelopeFrom string
	// To, Cc and Bcc are the recipients, each entry one address; Bcc are not
	// shown to anybody. 1,000 are the most.
	To, Cc, Bcc []string
	// Recipients is to whom this goes, for another try after some have it. Nil:
	// everybody in To, Cc and Bcc. The headers do not change with it.
	Recipients []string
	ReplyTo    []string

	Subject string
	// Text and HTML are the body, one or both, as UTF-8. Line ends of any kind,
	// CR, LF or both, arrive as line ends.
	Text, HTML string
	// Headers are further headers. Names for which there is a field here, and
	// those of MIME, are refused. Values may have any characters; those outside
	// of ASCII are encoded (RFC 2047).
	Headers     map[string]string
	Attachments []Attachment

	// Charset is what the bodies are encoded in: UTF-8, US-ASCII or ISO-8859-1.
	// Characters that it does not have are an error. Empty: UTF-8.
	Charset string
	// ID is the message id, without < and >. Empty: a random one in From's
	// domain. Tries of the same message should have the same, so that
	// duplicates are seen.
	ID         string
	Date       time.Time // zero: now
	Importance Importance
	// DSN asks for delivery status notifications (RFC 3461). A server may not
	// know them: see Result.DSN.
	DSN DSN

	// DKIM, if not nil, signs the message (RFC 6376). A signed message is held in
	// memory, so it must not be larger than 32 MiB.
	DKIM *DKIM
	// SMIME, if not nil, signs body and attachments with this certificate and
	// its RSA or ECDSA key (RFC 8551). The same limit holds.
	SMIME *tls.Certificate
}

// An Attachment is a file in a message. Exactly one of Data, Path and Open says
// where its bytes come from; they are read while Send prepares the message, once,
// and not held in memory.
type Attachment struct {
	// Name is what the recipient sees; characters that are dangerous in the name
	// of a file become "_". Empty: the last part of Path.
	Name string
	// ContentType is such as "application/pdf". Empty: by Name, or
	// application/octet-stream. Those of multipart and message are refused.
	ContentType string
	// ContentID, if not empty, makes this a part of HTML, which names it as
	// "cid:" and this, instead of an attachment.
	ContentID string

	Data []byte // not to be changed before Send returns
	Path string
	// Open is called once for each Send; see Stream. The end of Send's context is
	// noticed between two reads.
	Open func() (io.ReadCloser, error)
}

// Stream makes an Attachment.Open of r. If r is an io.Seeker each use begins
// where r stands now; otherwise the second use is an error, so that no second
// try sends an empty file.
func Stream(r io.Reader) func() (io.ReadCloser, error) {
	seeker, _ := r.(io.Seeker)
	var start int64
	var seekErr error
	if seeker != nil {
		start, seekErr = seeker.Seek(0, io.SeekCurrent)
	}
	var used atomic.Bool
	return func() (io.ReadCloser, error) {
		first := !used.Swap(true)
		if seeker != nil && seekErr == nil {
			_, err := seeker.Seek(start, io.SeekStart)
			return io.NopCloser(r), err
		}
		if !first {
			return nil, errors.New("smtpx: the reader was read by an earlier Send: give one that can be opened again")
		}
		return io.NopCloser(r), nil
	}
}

// Importance is what the sender says of a message's urgency.
type Importance string

// The words for importance. Empty: nothing is said.
const (
	ImportanceLow  Importance = "low"
	ImportanceHigh Importance = "high"
)

// DSN is a request for delivery status notifications. The zero value asks for
// nothing in particular: servers then report failures to EnvelopeFrom.
type DSN struct {
	Notify []DSNNotify // when; none: as the servers like it
	// Full returns the whole message with a notice of failure; otherwise, if
	// Notify has entries, the headers alone.
	Full bool
	ID   string // that notices quote (ENVID), printable ASCII, at most 70 characters; empty: none
}

func (d *DSN) empty() bool { return len(d.Notify) == 0 && !d.Full && d.ID == "" }

// DSNNotify says when a notification is sent.
type DSNNotify string

// The words for DSNNotify (RFC 3461 section 4.1). Never stands alone.
const (
	NotifyNever   DSNNotify = "NEVER"
	NotifySuccess DSNNotify = "SUCCESS"
	NotifyFailure DSNNotify = "FAILURE"
	NotifyDelay   DSNNotify = "DELAY"
)

// DKIM says how a message is signed. All fields must be set.
type DKIM struct {
	Domain   string        // d=
	Selector string        // s=
	Key      crypto.Signer // RSA of at least 2048 bits, or Ed25519
}

// Format prints nothing of what the message says or to whom, for any verb.
func (m Message) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, m.summary()) }

// LogValue returns what Format prints.
func (m Message) LogValue() slog.Value { return slog.StringValue(m.summary()) }

func (m Message) summary() string {
	return fmt.Sprintf("smtpx.Message{%d to, %d cc, %d bcc, %d attachments}", len(m.To), len(m.Cc), len(m.Bcc), len(m.Attachments))
}

// envelope is what MAIL and RCPT need.
type envelope struct {
	from string // with < and >
	to   []string
	utf8 bool // some address needs SMTPUTF8
	dsn  DSN
}

// maxRecipients is ten times what a server must take in one go (RFC 5321 section
// 4.5.3.1.8).
const maxRecipients = 1000

// headed are the checked addresses of the headers.
type headed struct {
	from                 address
	to, cc, bcc, replyTo []address
}

// check parses the addresses and checks every field that is not checked where
// it is used. Its errors name the field and hold nothing of it.
func (m *Message) check() (headed, envelope, error) {
	var h headed
	var err error
	if h.from, err = parseAddress(m.From); err != nil {
		return h, envelope{}, fmt.Errorf("smtpx: Message.From: %w", err)
	}
	for _, field := range []struct {
		name string
		in   []string
		out  *[]address
	}{{"To", m.To, &h.to}, {"Cc", m.Cc, &h.cc}, {"Bcc", m.Bcc, &h.bcc}, {"ReplyTo", m.ReplyTo, &h.replyTo}} {
		if *field.out, err = parseAll(field.in); err != nil {
			return h, envelope{}, fmt.Errorf("smtpx: Message.%s%w", field.name, err)
		}
	}
	env := envelope{from: "<" + h.from.Address.Address + ">", utf8: !h.from.ascii, dsn: m.DSN}
	switch m.EnvelopeFrom {
	case "":
	case "<>":
		env.from, env.utf8 = "<>", false
	default:
		from, err := parseAddress(m.EnvelopeFrom)
		if err != nil {
			return h, envelope{}, fmt.Errorf("smtpx: Message.EnvelopeFrom: %w", err)
		}
		env.from, env.utf8 = "<"+from.Address.Address+">", !from.ascii
	}
	recipients := append(append(append([]address(nil), h.to...), h.cc...), h.bcc...)
	if m.Recipients != nil {
		if recipients, err = parseAll(m.Recipients); err != nil {
			return h, envelope{}, fmt.Errorf("smtpx: Message.Recipients%w", err)
		}
	}
	seen := make(map[string]bool, len(recipients))
	for _, r := range recipients {
		if !seen[r.Address.Address] {
			seen[r.Address.Address] = true
			env.to = append(env.to, r.Address.Address)
			env.utf8 = env.utf8 || !r.ascii
		}
	}
	switch {
	case len(env.to) == 0:
		return h, env, errors.New("smtpx: the message has no recipients")
	case len(env.to) > maxRecipients:
		return h, env, fmt.Errorf("smtpx: the message has more than %d recipients", maxRecipients)
	}
	return h, env, m.DSN.check()
}

func parseAll(texts []string) ([]address, error) {
	var all []address
	for i, text := range texts {
		a, err := parseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		all = append(all, a)
	}
	return all, nil
}

func (d *DSN) check() error {
	if len(d.ID) > 70 || !printableASCII(d.ID) {
		return errors.New("smtpx: Message.DSN.ID must be printable ASCII, at most 70 characters")
	}
	for _, n := range d.Notify {
		switch n {
		case NotifySuccess, NotifyFailure, NotifyDelay:
		case NotifyNever:
			if len(d.Notify) > 1 {
				return errors.New("smtpx: Message.DSN.Notify: NEVER stands alone")
			}
		default:
			return errors.New("smtpx: Message.DSN.Notify: use NEVER, or of SUCCESS, FAILURE and DELAY")
		}
	}
	return nil
}

func printableASCII(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// WriteTo writes the message as Send would, with the headers of a message on
// its way, for a person to look at. It reads the attachments as Send does.
func (m *Message) WriteTo(w io.Writer) (int64, error) {
	out := &spool{limit: defaultMaxMessage}
	defer out.Close()
	if _, _, err := compose(m, out); err != nil {
		return 0, err
	}
	return io.Copy(w, out.reader())
}
