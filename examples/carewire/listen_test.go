package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/mllp"
)

// listening is a run of mllp listen that goes on while the test does.
type listening struct {
	first string // the first line of its output
	addr  string
	stop  func() result // ends it, as Ctrl-C does, and waits
}

// listen starts mllp listen on a free port.
func listen(t *testing.T, args ...string) *listening {
	t.Helper()
	return listenFor(t, "mllp", args...)
}

// listenFor starts the listener of a protocol on a free port.
func listenFor(t *testing.T, protocol string, args ...string) *listening {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var stderr, rest bytes.Buffer
	var status int
	var wg sync.WaitGroup
	wg.Go(func() {
		status = run(ctx, append([]string{protocol, "listen", "--addr", "127.0.0.1:0"}, args...), strings.NewReader(""), in, &stderr)
		in.Close()
	})
	r := bufio.NewReader(out)
	first, err := r.ReadString('\n')
	if err != nil {
		cancel()
		wg.Wait()
		require.NoError(t, err, stderr.String())
	}
	wg.Go(func() { _, _ = io.Copy(&rest, r) })
	l := &listening{first: first}
	if fields := strings.Fields(first); len(fields) == 3 {
		l.addr = fields[1]
	}
	l.stop = sync.OnceValue(func() result {
		cancel()
		wg.Wait()
		return result{status, rest.String(), stderr.String()}
	})
	t.Cleanup(func() { l.stop() })
	return l
}

// stored returns what the files of a directory hold, in the order of their names.
func stored(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var texts []string
	for _, e := range entries {
		assert.True(t, strings.HasSuffix(e.Name(), ".hl7"), e.Name())
		info, err := e.Info()
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		texts = append(texts, string(data))
	}
	return texts
}

func TestListenSaysWhereInItsFirstLine(t *testing.T) {
	l := listen(t)
	assert.Regexp(t, regexp.MustCompile(`^listening 127\.0\.0\.1:\d+ MLLP\n$`), l.first)
	r := l.stop()
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.err, "thrown away")

	l = listen(t, "--json", "--out", t.TempDir())
	var first map[string]string
	require.NoError(t, json.Unmarshal([]byte(l.first), &first))
	assert.Equal(t, "MLLP", first["transport"])
	_, port, err := net.SplitHostPort(first["listening"])
	require.NoError(t, err)
	assert.NotEqual(t, "0", port)
	r = l.stop()
	assert.Equal(t, exitOK, r.status)
	assert.Empty(t, r.err)
}

func TestAnAcknowledgedMessageIsOnDiskByteForByte(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	l := listen(t, "--out", dir)
	odd := strings.TrimRight(adt("M2"), "\r") + "\nwith \xE9, FS \x1C and no last CR"
	dialer := mllp.Dialer{}
	conn, err := dialer.DialContext(t.Context(), "tcp", l.addr)
	require.NoError(t, err)
	defer conn.Close()
	for i, text := range []string{adt("M1"), odd, adt("../../M3/\x1b[2J")} {
		reply, err := conn.Send(t.Context(), []byte(text))
		require.NoError(t, err)
		assert.Equal(t, mllp.AA, reply.Ack.Code)
		require.Len(t, stored(t, dir), i+1, "it is there when its acknowledgement is")
		assert.Equal(t, text, stored(t, dir)[i])
	}
	require.NoError(t, conn.Close())
	r := l.stop()
	assert.Equal(t, exitOK, r.status)
	assert.NotContains(t, r.out+r.err, "CANARY")
	assert.NotContains(t, r.out+r.err, "\x1b")
	lines := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	require.Len(t, lines, 3)
	assert.Regexp(t, regexp.MustCompile(`^\S+Z 127\.0\.0\.1:\d+ AA M1 \d+ bytes \S+-00000001-M1\.hl7$`), lines[0])
}

func TestAMessageThatCannotBeStoredIsNotAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	l := listen(t, "--out", dir, "--json")
	var first map[string]string
	require.NoError(t, json.Unmarshal([]byte(l.first), &first))
	p := &peer{addr: first["listening"]}
	one := file(t, "one.hl7", adt("M1"))
	assert.Equal(t, exitOK, send(t, p, one).status, "the control: with the directory there")

	require.NoError(t, os.RemoveAll(dir))
	r := send(t, p, one)
	assert.Equal(t, exitNacked, r.status)
	assert.Contains(t, r.out, "AE M1")
	r = l.stop()
	assert.Contains(t, r.err, "could not be stored")
	assert.NotContains(t, r.out+r.err, "CANARY")
	var codes []string
	for line := range strings.Lines(r.out) {
		var got received
		require.NoError(t, json.Unmarshal([]byte(line), &got))
		assert.Equal(t, "M1", got.ControlID)
		assert.Equal(t, len(adt("M1")), got.Bytes)
		codes = append(codes, string(got.Code))
	}
	assert.Equal(t, []string{"AA", "AE"}, codes)
}

func TestNakAnswersEveryMessageWithTheCode(t *testing.T) {
	for _, code := range []string{"AE", "AR", "CE", "CR"} {
		l := listen(t, "--nak", code)
		r := send(t, &peer{addr: l.addr}, file(t, "one.hl7", adt("M1")))
		assert.Equal(t, exitNacked, r.status)
		assert.Equal(t, code+" M1\tFILE #1\tTIME\n1 message: 0 acknowledged, 1 refused, 0 unknown, 0 not sent\n", stable(r.out))
		assert.Contains(t, l.stop().out, " "+code+" M1 ")
	}
}

func TestMutualTLSFromCertificatesToStoredMessage(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.Equal(t, exitOK, carewire(t, "tls", "certs", "--dir", dir).status)
	out := at("out")
	l := listen(t, "--tls", "--cert", at("server.crt"), "--key", at("server.key"), "--ca", at("ca.crt"), "--out", out)
	assert.Contains(t, l.first, "MLLPS")
	p := &peer{addr: l.addr}
	one := file(t, "one.hl7", adt("M1"))

	r := send(t, p, one, "--tls", "--ca", at("ca.crt"), "--cert", at("client.crt"), "--key", at("client.key"))
	assert.Equal(t, exitOK, r.status, r.out+r.err)
	assert.Equal(t, []string{adt("M1")}, stored(t, out))

	r = send(t, p, one, "--tls", "--ca", at("ca.crt"))
	assert.Contains(t, []int{exitUnknown, exitNotSent}, r.status, "without a certificate")
	r = send(t, p, one)
	assert.Contains(t, []int{exitUnknown, exitNotSent}, r.status, "without TLS")
	assert.Len(t, stored(t, out), 1)

	status, report := probe(t, l.addr, "--ca", at("ca.crt"), "--cert", at("client.crt"), "--key", at("client.key"))
	assert.Equal(t, exitOK, status, report.Error)
	assert.Equal(t, "no no yes yes", answers(report))
	assert.Empty(t, report.weaknesses(), "what this library listens with is in order")
	assert.Equal(t, exitOK, l.stop().status)
}

func TestAnEncryptedKeyOpensWithItsPassphraseFile(t *testing.T) {
	openssl := interop.Need(t, "openssl")
	ca := newPKI(t)
	pair := ca.Server().Write(ca.dir, "server")
	locked := filepath.Join(ca.dir, "locked.key")
	out, err := exec.CommandContext(t.Context(), openssl, "pkcs8", "-topk8", "-in", pair.Key, "-out", locked, "-v2", "aes256", "-passout", "pass:open sesame").CombinedOutput()
	require.NoError(t, err, string(out))
	l := listen(t, "--tls", "--cert", pair.Cert, "--key", locked, "--passphrase-file", file(t, "pass", "open sesame\n"))
	r := send(t, &peer{addr: l.addr}, file(t, "one.hl7", adt("M1")), "--tls", "--ca", ca.file)
	assert.Equal(t, exitOK, r.status, r.out+r.err)

	for name, args := range map[string][]string{
		"no passphrase":    {},
		"a wrong one":      {"--passphrase-file", file(t, "pass", "open barley\n")},
		"no file":          {"--passphrase-file", "no-such-file"},
		"that of no key":   {"--passphrase-file", file(t, "pass", "open sesame"), "--key", ""},
		"an empty file":    {"--passphrase-file", file(t, "pass", "")},
		"a certificate in": {"--passphrase-file", pair.Cert},
	} {
		t.Run(name, func(t *testing.T) {
			r := carewire(t, append([]string{"mllp", "listen", "--addr", "127.0.0.1:0", "--tls", "--cert", pair.Cert, "--key", locked}, args...)...)
			assert.Equal(t, exitUsage, r.status)
			assert.Empty(t, r.out, "it does not listen")
			assert.NotContains(t, r.err, "open barley")
		})
	}
}

func TestListenRefusesWhatContradictsItself(t *testing.T) {
	ca := newPKI(t)
	pair := ca.Server().Write(ca.dir, "server")
	for name, args := range map[string][]string{
		"TLS without a certificate":   {"--tls"},
		"TLS without a key":           {"--tls", "--cert", pair.Cert},
		"a certificate without TLS":   {"--cert", pair.Cert, "--key", pair.Key},
		"a CA without TLS":            {"--ca", ca.file},
		"a CA that is not there":      {"--tls", "--cert", pair.Cert, "--key", pair.Key, "--ca", "no-such-file"},
		"storing what is refused":     {"--out", t.TempDir(), "--nak", "AE"},
		"a code that is none":         {"--nak", "AA"},
		"a directory that is a file":  {"--out", ca.file},
		"a key that is another's":     {"--tls", "--cert", pair.Cert, "--key", ca.Server().Write(t.TempDir(), "x").Key},
		"a client's certificate only": {"--tls", "--ca", ca.file},
	} {
		t.Run(name, func(t *testing.T) {
			r := carewire(t, append([]string{"mllp", "listen", "--addr", "127.0.0.1:0"}, args...)...)
			assert.Equal(t, exitUsage, r.status)
			assert.Empty(t, r.out)
			assert.NotEmpty(t, r.err)
		})
	}
}

func TestAnAddressInUseIsAnError(t *testing.T) {
	l := listen(t)
	r := carewire(t, "mllp", "listen", "--addr", l.addr)
	assert.Equal(t, exitNo, r.status)
	assert.Contains(t, r.err, "address already in use")
	assert.Empty(t, r.out)
}

// The program itself, in a process of its own: what a signal does.
func TestSIGTERMEndsAListenerInGoodOrder(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		exe, err := os.Executable()
		require.NoError(t, err)
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), exe, "mllp", "listen", "--addr", "127.0.0.1:0", "--out", dir)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		r := bufio.NewReader(out)
		first, err := r.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, exitOK, send(t, &peer{addr: strings.Fields(first)[1]}, file(t, "one.hl7", adt("M1"))).status)
		require.NoError(t, cmd.Process.Signal(signal))
		_, _ = io.Copy(io.Discard, r)
		require.NoError(t, cmd.Wait(), "exit status 0")
		assert.Equal(t, []string{adt("M1")}, stored(t, dir))
	}
}

func TestListenTakesWhatPythonHL7Sends(t *testing.T) {
	sender := interop.Need(t, "mllp_send")
	dir := t.TempDir()
	l := listen(t, "--out", dir)
	_, port, err := net.SplitHostPort(l.addr)
	require.NoError(t, err)
	path := file(t, "three.mllp", framed(adt("P1"))+framed(adt("P2"))+framed(adt("P3")))
	out, err := exec.CommandContext(t.Context(), sender, "--port", port, "--file", path, "127.0.0.1").CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Equal(t, 3, strings.Count(string(out), "MSA|AA|"), "%s", out)
	var want []string
	for _, id := range []string{"P1", "P2", "P3"} {
		want = append(want, strings.TrimSuffix(adt(id), "\r")) // which mllp_send takes off
	}
	assert.Equal(t, want, stored(t, dir))

	loose := file(t, "loose.hl7", strings.ReplaceAll(adt("P4")+adt("P5"), "\r", "\r\n"))
	out, err = exec.CommandContext(t.Context(), sender, "--loose", "--port", port, "--file", loose, "127.0.0.1").CombinedOutput()
	require.NoError(t, err, string(out))
	r := l.stop()
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.out, " AA P4 ")
	assert.Contains(t, r.out, " AA P5 ")
}
