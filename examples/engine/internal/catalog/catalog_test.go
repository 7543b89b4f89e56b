package catalog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/catalog"
	"github.com/carewire/carewire/examples/engine/internal/config"
)

// fake is an engine that remembers its channels.
type fake struct {
	channels []*config.Channel
	refuses  error
}

func (f *fake) Channels() []*config.Channel { return slices.Clone(f.channels) }

func (f *fake) Add(cfg *config.Channel) error {
	if f.refuses == nil {
		f.channels = append(f.channels, cfg)
	}
	return f.refuses
}

func (f *fake) Replace(_ context.Context, cfg *config.Channel, _ bool) error {
	if f.refuses == nil {
		i := slices.IndexFunc(f.channels, func(ch *config.Channel) bool { return ch.ID == cfg.ID })
		f.channels[i] = cfg
	}
	return f.refuses
}

func (f *fake) Remove(_ context.Context, id string, _ bool) error {
	if f.refuses == nil {
		f.channels = slices.DeleteFunc(f.channels, func(ch *config.Channel) bool { return ch.ID == id })
	}
	return f.refuses
}

const text = "id: ward\nname: Ward\nsource: {type: channel}\ndestinations: [{name: a, type: file, directory: a}]\n"

func none(string) (string, bool) { return "", false }

func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestWhatTheEngineRefusesIsNotKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "channels")
	refusal := errors.New("no")
	f := &fake{refuses: refusal}
	c := catalog.New(dir, f, none)
	require.ErrorIs(t, c.Put(t.Context(), []byte(text), false, false, false), refusal)
	assert.Empty(t, files(t, dir))
	f.refuses = nil
	require.NoError(t, c.Put(t.Context(), []byte(text), false, false, false))
	assert.Equal(t, "ward.yaml", files(t, dir))

	f.refuses = refusal
	other := strings.Replace(text, "name: Ward", "name: Other", 1)
	require.ErrorIs(t, c.Replace(t.Context(), "ward", []byte(other), false, false), refusal)
	require.ErrorIs(t, c.Remove(t.Context(), "ward", false), refusal)
	kept, err := c.Text("ward")
	require.NoError(t, err)
	assert.Equal(t, text, string(kept))
	assert.Equal(t, "ward.yaml", files(t, dir))
}

// What cannot be kept does not run either: after a restart it would be gone.
func TestWhatCannotBeKeptDoesNotRun(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "channels")
	f := new(fake)
	c := catalog.New(dir, f, none)
	require.NoError(t, os.WriteFile(dir, nil, 0o600)) // in the way of the directory
	require.Error(t, c.Put(t.Context(), []byte(text), false, false, false))
	assert.Empty(t, f.channels)

	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "ward.yaml", "x"), 0o700)) // in the way of the file
	require.Error(t, c.Put(t.Context(), []byte(text), false, false, false))
	assert.Empty(t, f.channels)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "ward.yaml")))
	require.NoError(t, c.Put(t.Context(), []byte(text), false, false, false))

	require.NoError(t, os.Remove(filepath.Join(dir, "ward.yaml")))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "ward.yaml", "x"), 0o700))
	other := strings.Replace(text, "name: Ward", "name: Other", 1)
	require.Error(t, c.Replace(t.Context(), "ward", []byte(other), false, false))
	assert.Equal(t, "Ward", f.channels[0].Name, "it goes on by what it was")
}

func TestFilesAreForTheirOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "channels")
	c := catalog.New(dir, new(fake), none)
	require.NoError(t, c.Put(t.Context(), []byte(text), false, false, false))
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "ward.yaml"): 0o600} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode().Perm())
	}
}
