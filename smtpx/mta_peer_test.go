//go:build linux

package smtpx_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/smtpx"
	"github.com/carewire/carewire/tlsprops"
)

// An mta is a real mail server of a test's own: configuration, queue, users and
// mailboxes are in a directory of the test, and it listens on an address of
// 127/8 that nobody else has. It takes mail for a, b and jörg of example.org, and
// for everybody else from whom the planted credentials come.
type mta struct {
	ip, dir string
	trust   string // the authority of its certificate
	ca      *testpki.Authority

	mechanisms []smtpx.Mechanism // that it knows; "" is whichever smtpx takes
	codes      mtaCodes
	mailboxes  string // the directory of the mailboxes, in the format mbox
	log        string // the file
}

// mtaCodes are what it answers.
type mtaCodes struct {
	unknown   string // to a recipient that does not exist
	relay     string // to one elsewhere
	password  string // to a password that is wrong
	plaintext string // to mail without TLS where that must be
}

// The ports of an mta.
const (
	portPlain  = 2525 // no TLS, AUTH
	portTLS    = 2587 // STARTTLS, AUTH over TLS alone
	portSSL    = 2465 // TLS from the start
	portMutual = 2588 // STARTTLS with a client certificate
)

// newMTA makes the directory and the authority. net tells apart the addresses of
// servers of different kinds.
func newMTA(t testing.TB, net int) *mta {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // both of this test; the servers have users of their own
		require.NoError(t, os.Chmod(d, 0o755))
	}
	pid := os.Getpid()
	m := &mta{dir: dir, ip: fmt.Sprintf("127.%d.%d.%d", net+pid>>16&63, pid>>8&255, max(pid&255, 1)), ca: testpki.NewCA(t, "Hospital CA")}
	m.trust = m.ca.Write(dir, "ca.crt")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.logged())
		}
	})
	return m
}

// answers waits for the greeting.
func (m *mta) answers(t testing.TB) {
	t.Helper()
	until(t, "the server to answer", func() bool {
		nc, err := net.DialTimeout("tcp", fmt.Sprint(m.ip, ":", portPlain), time.Second)
		if err != nil {
			return false
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(5 * time.Second))
		n, _ := nc.Read(make([]byte, 100))
		return n > 3
	})
}

// logged is what the server has logged.
func (m *mta) logged() string {
	text, _ := os.ReadFile(m.log)
	return string(text)
}

// until waits half a minute for what to become true.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// sender returns a Sender to one of the ports.
func (m *mta) sender(t testing.TB, port int, encryption smtpx.SmtpEncryption) *smtpx.Sender {
	s := &smtpx.Sender{Host: m.ip, Port: port, Encryption: encryption}
	if encryption != smtpx.EncryptionNone {
		s.TLS = &tlsprops.TlsProperties{Enabled: true, TrustStorePath: m.trust}
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// box returns what is in a mailbox, as soon as n messages are.
func (m *mta) box(t testing.TB, name string, n int) string {
	t.Helper()
	var text []byte
	until(t, fmt.Sprint(n, " messages in ", name), func() bool {
		text, _ = os.ReadFile(filepath.Join(m.mailboxes, name))
		return bytes.Count(text, []byte("\nDelivered-To: ")) >= n && bytes.HasSuffix(text, []byte("\n\n"))
	})
	return string(text)
}
