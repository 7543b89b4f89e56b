package engine_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/engine"
)

// What is read is what would be written for it.
func FuzzReplay(f *testing.F) {
	digest := "0123456789abcdef0123456789abcdef"
	for _, text := range []string{"", digest, digest + "\x03abc", digest + "\x01a\x02bc", digest + "\x05abc", digest + "\xff"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := engine.DecodeReplay(text)
		if err != nil {
			return
		}
		again, err := engine.DecodeReplay(engine.EncodeReplay(r))
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}
