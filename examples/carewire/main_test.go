package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/leakcheck"
)

// asProgram is the environment variable that makes the test binary the program,
// for tests that need a process.
const asProgram = "CAREWIRE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	leakcheck.Main(m)
}

// result is what one run of the program did.
type result struct {
	status   int
	out, err string
}

// carewire runs the program in this process.
func carewire(t *testing.T, args ...string) result {
	t.Helper()
	return carewireReading(t, strings.NewReader(""), args...)
}

// carewireReading does so with something on standard input.
func carewireReading(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	return carewireUntil(t.Context(), stdin, args...)
}

func carewireUntil(ctx context.Context, stdin io.Reader, args ...string) result {
	var out, err bytes.Buffer
	status := run(ctx, args, stdin, &out, &err)
	return result{status, out.String(), err.String()}
}

// file writes a file into the test's directory and returns its path.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestVersionAndHelpSucceedWithoutACommand(t *testing.T) {
	r := carewire(t, "--version")
	assert.Equal(t, exitOK, r.status)
	assert.Regexp(t, regexp.MustCompile(`^carewire \S+ .*go1\.`), r.out)
	for _, args := range [][]string{{"--help"}, {"tls", "--help"}, {"mllp", "send", "--help"}} {
		r := carewire(t, args...)
		assert.Equal(t, exitOK, r.status)
		assert.Contains(t, r.out, "Usage: carewire")
		assert.Empty(t, r.err)
	}
}

func TestAnUnusableCommandLineIsStatus2AndOneLine(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":                     {},
		"an unknown command":          {"tls", "break"},
		"an unknown flag":             {"tls", "certs", "--dri", "x"},
		"a flag that is missing":      {"tls", "certs"},
		"an address without a port":   {"tls", "probe", "localhost"},
		"a span that is none":         {"tls", "expiry", "x.pem", "--within", "soon"},
		"a negative number of days":   {"tls", "expiry", "x.pem", "--within=-3d"},
		"a file that is not there":    {"tls", "expiry", "no-such-file.pem"},
		"a CA that is not there":      {"tls", "probe", "localhost:1", "--ca", "no-such-file.pem"},
		"an unknown STARTTLS":         {"tls", "probe", "localhost:1", "--starttls", "pop3"},
		"a timeout of nothing":        {"tls", "probe", "localhost:1", "--timeout", "0s"},
		"a host that cannot be named": {"tls", "certs", "--dir", filepath.Join(t.TempDir(), "x"), "--host", "local host"},
	} {
		t.Run(name, func(t *testing.T) {
			r := carewire(t, args...)
			assert.Equal(t, exitUsage, r.status)
			assert.Empty(t, r.out)
			assert.Regexp(t, regexp.MustCompile(`^carewire: [^\n]+\n$`), r.err)
		})
	}
}
