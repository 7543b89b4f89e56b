package dicomtls_test

import (
	"testing"

	"github.com/carewire/carewire/internal/leakcheck"
)

// leakcheckMain runs the tests; TestMain is where the platform is known.
func leakcheckMain(m *testing.M) { leakcheck.Main(m) }
