package sqlite_test

import (
	"os"
	"testing"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
	"github.com/carewire/carewire/examples/engine/internal/store/storetest"
	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name]()
		return
	}
	leakcheck.Main(m)
}

func TestConformance(t *testing.T) {
	place := func(t *testing.T) func() (store.Store, error) {
		dir := t.TempDir()
		return func() (store.Store, error) {
			return sqlite.Open(t.Context(), dir, noReserve)
		}
	}
	storetest.Run(t, place)
	storetest.RunSealing(t, place)
}

// noReserve spares most tests the writing of 16 MiB.
var noReserve = &sqlite.Options{Reserve: -1}
