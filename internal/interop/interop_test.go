package interop_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/internal/interop"
)

// recorder notes how a helper ended its test, without ending this one.
type recorder struct {
	testing.TB
	fatal, skipped bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Fatalf(string, ...any) { r.fatal = true }
func (r *recorder) Skipf(string, ...any)  { r.skipped = true }

func TestAProgramOnPathIsFound(t *testing.T) {
	assert.Equal(t, "go", filepath.Base(interop.Need(t, "go")))
}

func TestAMissingProgramSkipsUnlessCIRequiresIt(t *testing.T) {
	t.Setenv("CAREWIRE_INTEROP", "")
	r := &recorder{TB: t}
	interop.Need(r, "no-such-program-anywhere")
	assert.True(t, r.skipped)
	assert.False(t, r.fatal)

	t.Setenv("CAREWIRE_INTEROP", "require")
	r = &recorder{TB: t}
	interop.Need(r, "no-such-program-anywhere")
	assert.True(t, r.fatal)
}
