package main

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mailServer takes one connection, and answers each command as answers says, or
// with 250.
func mailServer(t *testing.T, answers map[string]string) (port string) {
	return tlsMailServer(t, answers, "none", nil)
}

// tlsMailServer is mailServer with encryption, of a word that the command has.
func tlsMailServer(t *testing.T, answers map[string]string, encryption string, c *tls.Config) (port string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(30 * time.Second))
		if encryption == "ssl" {
			nc = tls.Server(nc, c)
		}
		fmt.Fprint(nc, "220 hi\r\n")
		data := false
		for lines := bufio.NewScanner(nc); lines.Scan(); {
			line := lines.Text()
			if encryption == "tls" && line == "STARTTLS" {
				fmt.Fprint(nc, "220 go\r\n")
				nc = tls.Server(nc, c)
				lines = bufio.NewScanner(nc)
				continue
			}
			if data && line != "." {
				continue
			}
			data = line == "DATA"
			answer := "250 ok"
			if data {
				answer = "354 go"
			}
			for prefix, special := range answers {
				if strings.HasPrefix(line, prefix) {
					answer = special
				}
			}
			if answer == "" {
				return
			}
			fmt.Fprint(nc, answer+"\r\n")
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	_, port, err = net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	return port
}

// mailSend runs the command with a body of its own.
func mailSend(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	args = append([]string{"mail", "send", "--host", "127.0.0.1", "--from", "a@example.org"}, args...)
	status = run(t.Context(), args, strings.NewReader("the body\n"), &out, &errs)
	return status, out.String(), errs.String()
}

func TestMailSendSaysWhatBecameOfEachRecipient(t *testing.T) {
	for name, tt := range map[string]struct {
		answers map[string]string
		status  int
		out     string
	}{
		"taken":   {nil, exitOK, "accepted     b@example.org\naccepted     c@example.org\n"},
		"partial": {map[string]string{"RCPT TO:<c@": "550 5.1.1 no"}, exitNacked, "accepted     b@example.org\nrejected     c@example.org 550 5.1.1\n"},
		"unknown": {map[string]string{".": ""}, exitUnknown, "unknown      b@example.org\nunknown      c@example.org\n"},
		"dropped": {map[string]string{"MAIL": ""}, exitNotSent, "not sent     b@example.org\nnot sent     c@example.org\n"},
	} {
		t.Run(name, func(t *testing.T) {
			port := mailServer(t, tt.answers)
			status, out, errs := mailSend(t, "--port", port, "--encryption", "none", "--to", "b@example.org", "--to", "c@example.org", "--subject", "s")
			assert.Equal(t, tt.status, status, errs)
			assert.Equal(t, tt.out, out)
		})
	}
	port := mailServer(t, nil)
	status, out, _ := mailSend(t, "--port", port, "--encryption", "none", "--to", "b@example.org", "--json")
	assert.Equal(t, exitOK, status)
	assert.Equal(t, `{"recipient":"b@example.org","outcome":"accepted","retry":false}`+"\n", out)
}

func TestMailSendDoesNotFallBackToPlaintext(t *testing.T) {
	port := mailServer(t, nil)
	status, _, errs := mailSend(t, "--port", port, "--encryption", "tls", "--to", "b@example.org")
	assert.Equal(t, exitNotSent, status)
	assert.Contains(t, errs, "does not do STARTTLS")
}

func TestMailSendEncryptsAndAuthenticates(t *testing.T) {
	ca := newPKI(t)
	c := config(ca.Server("127.0.0.1"))
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte("PassCanary\n"), 0o600))
	hello := "250-hi\r\n250-STARTTLS\r\n250 AUTH PLAIN"
	right := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00u\x00PassCanary"))
	for _, encryption := range []string{"tls", "ssl"} {
		port := tlsMailServer(t, map[string]string{"EHLO": hello, right: "235 welcome"}, encryption, c)
		args := []string{"--encryption", encryption, "--to", "b@example.org", "--user", "u", "--password-file", secret, "--port"}
		status, out, errs := mailSend(t, append(args, port, "--ca", ca.file)...)
		assert.Equal(t, exitOK, status, errs)
		assert.Equal(t, "accepted     b@example.org\n", out)
		assert.Empty(t, errs)

		// A server that is not trusted learns nothing, and one that says no is heard.
		port = tlsMailServer(t, map[string]string{"EHLO": hello, "AUTH": "235 welcome"}, encryption, c)
		status, _, errs = mailSend(t, append(args, port, "--ca", newPKI(t).file)...)
		assert.Equal(t, exitNotSent, status)
		assert.Contains(t, errs, "TLS handshake")
		port = tlsMailServer(t, map[string]string{"EHLO": hello, "AUTH": "535 5.7.8 not you, PassCanary"}, encryption, c)
		status, _, errs = mailSend(t, append(args, port, "--ca", ca.file)...)
		assert.Equal(t, exitNacked, status)
		assert.Contains(t, errs, "535 5.7.8 to AUTH")
		assert.NotContains(t, errs, "PassCanary")
	}
}

func TestMailSendPrintsTheMessageInsteadOfSendingIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.txt")
	require.NoError(t, os.WriteFile(file, []byte("attached"), 0o600))
	status, out, errs := mailSend(t, "--encryption", "tls", "--to", "Bob <b@example.org>", "--subject", "Grüße", "--html", "--attach", file, "--bcc", "hidden@example.org", "--dry-run")
	require.Equal(t, exitOK, status, errs)
	assert.NotContains(t, out, "hidden@example.org", "what is printed is what would be sent")
	for _, want := range []string{"\r\nTo: \"Bob\" <b@example.org>\r\n", "\r\nSubject: =?UTF-8?b?", "text/html", "the body", "filename=report.txt", "YXR0YWNoZWQ="} {
		assert.Contains(t, out, want)
	}
}

func TestMailSendRefusesWhatItCannotUse(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte("PassCanary\n"), 0o600))
	for want, args := range map[string][]string{
		"need --encryption tls or ssl": {"--encryption", "none", "--ca", "x"},
		"go together":                  {"--encryption", "tls", "--user", "u"},
		"no credentials without TLS":   {"--encryption", "none", "--user", "u", "--password-file", secret},
		"must be one of":               {"--encryption", "starttls"},
		"--attach":                     {"--encryption", "tls", "--attach", "/does/not/exist"},
		"--ca":                         {"--encryption", "tls", "--ca", "/does/not/exist"},
	} {
		status, out, errs := mailSend(t, append([]string{"--to", "b@example.org"}, args...)...)
		assert.Equal(t, exitUsage, status, want)
		assert.Contains(t, errs, want)
		assert.Empty(t, out+strings.Repeat(errs, strings.Count(errs, "PassCanary")))
	}
}
