// Package interop finds the real programs that tests talk to: openssl, keytool,
// nmap and the like. On a developer's machine a program that is not installed
// skips the test that wants it; in CI, where CAREWIRE_INTEROP=require is set and
// every peer is installed, its absence fails the test, so that a peer cannot
// drop out of the suite unnoticed.
package interop

import (
	"os"
	"os/exec"
	"testing"
)

// Need returns the path of the program name on PATH. Where it is absent the
// test is skipped, or fails if CAREWIRE_INTEROP is "require".
func Need(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	Missing(tb, name+" is not on PATH")
	return ""
}

// Missing ends the test because what it needs is not there: it is skipped, or
// fails if CAREWIRE_INTEROP is "require".
func Missing(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv("CAREWIRE_INTEROP") == "require" {
		tb.Fatalf("CAREWIRE_INTEROP=require, but %s", why)
	}
	tb.Skipf("skipped: %s", why)
}
