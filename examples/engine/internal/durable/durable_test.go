package durable_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/durable"
)

func TestMissingDirectoriesAreMadeForTheOwnerAloneByManyAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() { assert.NoError(t, durable.MakeDir(dir)) })
	}
	group.Wait()
	for _, made := range []string{dir, filepath.Dir(dir)} {
		info, err := os.Stat(made)
		require.NoError(t, err)
		assert.Equal(t, os.ModeDir|0o700, info.Mode())
	}
	require.NoError(t, durable.MakeDir(dir), "it is there")
}

func TestADirectoryThatCannotBeMadeIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.Error(t, durable.MakeDir(filepath.Join(file, "inside")))
	require.Error(t, durable.SyncDir(filepath.Join(file, "inside")))
}
