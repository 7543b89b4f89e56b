package store_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
)

func TestASourceKeepsItsNotesAndTakesMore(t *testing.T) {
	for _, notes := range []map[string]string{nil, {"a": "1"}, {"a": "1", "": "empty", "b": "\"}{"}} {
		s := store.NewSource(notes)
		got, err := store.KeptSource(s.Text()).Notes()
		require.NoError(t, err)
		assert.Equal(t, notes, got)

		got, err = s.With("a", "2").With("c", "x\"y").With("a", "3").Notes()
		require.NoError(t, err)
		assert.Equal(t, "3", got["a"])
		assert.Equal(t, "x\"y", got["c"])
	}
	assert.Zero(t, store.NewSource(nil))
	notes, err := store.NewSource(map[string]string{"a": "\xff"}).Notes()
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a": "\uFFFD"}, notes)
	_, err = store.KeptSource("{").Notes()
	assert.Error(t, err, "damage is said")
}
