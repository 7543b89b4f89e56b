package users_test

import (
	"testing"

	"github.com/carewire/carewire/examples/engine/internal/users"
)

// Whatever stands in a configuration as a hash is refused or bounded, without a
// panic.
func FuzzCheckHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdHNhbHRzYWx0c2FsdHNhbHQ")
	f.Add("$argon2id$v=19$m=4294967295,t=4294967295,p=255$$")
	f.Add(mirthOld("admin"))
	f.Fuzz(func(_ *testing.T, hash string) { _ = users.CheckHash(hash) })
}
