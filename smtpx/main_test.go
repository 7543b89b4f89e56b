package smtpx_test

import (
	"testing"

	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }
