//go:build unix

package mllp_test

import (
	"os"
	"testing"

	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		play(role) // in a process of its own: see TestMemoryOfIdleConnections
		return
	}
	leakcheck.Main(m)
}
