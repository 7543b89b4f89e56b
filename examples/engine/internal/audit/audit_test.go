package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/audit"
)

func event(i int) audit.Event {
	return audit.Event{
		Action: "channel.stop", Outcome: audit.Begun, UserID: 7, User: "anna", Client: "192.0.2.1", Request: fmt.Sprintf("R%d", i),
		Attributes: map[string]string{"channelId": "adt"},
	}
}

// written is a log with n records, closed.
func written(t *testing.T, n int, opts audit.Options) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "audit")
	l, err := audit.Open(dir, opts)
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, l.Append(event(i)))
	}
	require.NoError(t, l.Close())
	return dir
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	return names
}

func TestWhatIsAppendedIsReadAgainTheLatestFirst(t *testing.T) {
	t.Parallel()
	dir := written(t, 3, audit.Options{})
	l, err := audit.Open(dir, audit.Options{})
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.Append(event(3)))
	records, err := l.Read(3, 0)
	require.NoError(t, err)
	require.Len(t, records, 3)
	assert.Equal(t, event(3), records[0].Event)
	assert.EqualValues(t, 4, records[0].Seq)
	assert.EqualValues(t, 2, records[2].Seq)
	assert.False(t, records[0].Time.Before(records[2].Time))
	records, err = l.Read(100, 2)
	require.NoError(t, err)
	assert.Len(t, records, 2)
	sum, err := audit.Verify(dir)
	require.NoError(t, err)
	assert.Equal(t, 4, sum.Records)
	info, err := os.Stat(files(t, dir)[0])
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestEveryChangeOfAByteIsNoticed(t *testing.T) {
	t.Parallel()
	dir := written(t, 3, audit.Options{})
	name := files(t, dir)[0]
	good, err := os.ReadFile(name)
	require.NoError(t, err)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		require.NoError(t, os.WriteFile(name, bad, 0o600))
		_, err := audit.Verify(dir)
		if i == len(good)-1 {
			continue // without its end the last line is one that was being written
		}
		broken := new(audit.BrokenError)
		require.ErrorAs(t, err, &broken, "byte %d", i)
		assert.Equal(t, name, broken.File)
		assert.NotContains(t, err.Error(), "anna")
	}
}

func TestLinesThatAreGoneOrPutInAreNoticed(t *testing.T) {
	t.Parallel()
	dir := written(t, 5, audit.Options{})
	other := written(t, 5, audit.Options{})
	name := files(t, dir)[0]
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	foreign, err := os.ReadFile(files(t, other)[0])
	require.NoError(t, err)
	lines, foreignLines := strings.SplitAfter(string(text), "\n"), strings.SplitAfter(string(foreign), "\n")
	for what, bad := range map[string][]string{
		"one removed":  {lines[0], lines[1], lines[3], lines[4]},
		"two swapped":  {lines[0], lines[2], lines[1], lines[3], lines[4]},
		"one repeated": {lines[0], lines[1], lines[1], lines[2]},
		"one replaced": {lines[0], lines[1], foreignLines[2], lines[3], lines[4]},
		"an empty one": {lines[0], "\n", lines[1]},
		"no JSON":      {lines[0], strings.Repeat("x", 200) + "\n"},
	} {
		require.NoError(t, os.WriteFile(name, []byte(strings.Join(bad, "")), 0o600))
		_, err := audit.Verify(dir)
		require.Error(t, err, what)
		_, err = audit.Open(dir, audit.Options{})
		require.Error(t, err, "%s: an engine does not go on with it", what)
	}
	// What is cut off at the end shows only in the head.
	require.NoError(t, os.WriteFile(name, []byte(strings.Join(lines[:3], "")), 0o600))
	sum, err := audit.Verify(dir)
	require.NoError(t, err)
	assert.EqualValues(t, 3, sum.Last)
}

func TestLineThatWasBeingWrittenIsRemovedAndThatIsRecorded(t *testing.T) {
	t.Parallel()
	dir := written(t, 2, audit.Options{})
	name := files(t, dir)[0]
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, append(text, `{"seq":3,"ti`...), 0o600))
	sum, err := audit.Verify(dir)
	require.NoError(t, err)
	assert.Equal(t, 12, sum.Unfinished)
	l, err := audit.Open(dir, audit.Options{})
	require.NoError(t, err)
	defer l.Close()
	records, err := l.Read(1, 0)
	require.NoError(t, err)
	assert.Equal(t, "audit.recover", records[0].Action)
	assert.Equal(t, "12", records[0].Attributes["unfinishedBytes"])
	sum, err = audit.Verify(dir)
	require.NoError(t, err)
	assert.Equal(t, 3, sum.Records)
	assert.Zero(t, sum.Unfinished)
}

func TestFilesAreChainedAndTheirNumberIsBounded(t *testing.T) {
	t.Parallel()
	opts := audit.Options{FileBytes: 1000, Files: 3}
	dir := written(t, 40, opts)
	assert.Len(t, files(t, dir), 3)
	sum, err := audit.Verify(dir)
	require.NoError(t, err)
	assert.Greater(t, sum.First, uint64(1), "older ones were pruned")
	l, err := audit.Open(dir, opts)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.Append(event(40)))
	records, err := l.Read(1000, 0)
	require.NoError(t, err)
	assert.Greater(t, len(records), sum.Records-4, "across files")
	var pruned int
	for _, r := range records {
		if r.Action == "audit.prune" {
			pruned++
		}
	}
	assert.NotZero(t, pruned)

	require.NoError(t, os.Remove(files(t, dir)[1]))
	_, err = audit.Verify(dir)
	assert.ErrorContains(t, err, "another between them")
}

func TestFileOfWhichNothingWasWrittenYetGoesOnWithTheOneBefore(t *testing.T) {
	t.Parallel()
	dir := written(t, 2, audit.Options{})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "audit-000002.jsonl"), nil, 0o600))
	l, err := audit.Open(dir, audit.Options{})
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.Append(event(2)))
	sum, err := audit.Verify(dir)
	require.NoError(t, err)
	assert.EqualValues(t, 3, sum.Last)
}

func TestEventsAreAppendedByManyAtOnce(t *testing.T) {
	t.Parallel()
	dir := written(t, 0, audit.Options{})
	l, err := audit.Open(dir, audit.Options{FileBytes: 2000})
	require.NoError(t, err)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 10 {
				assert.NoError(t, l.Append(event(i)))
				_, err := l.Read(5, 0)
				assert.NoError(t, err)
			}
		})
	}
	group.Wait()
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Append(event(0)), audit.ErrClosed)
	sum, err := audit.Verify(dir)
	require.NoError(t, err)
	assert.Equal(t, 80, sum.Records)
}

func TestTextsInEventsAreBounded(t *testing.T) {
	t.Parallel()
	dir := written(t, 0, audit.Options{})
	l, err := audit.Open(dir, audit.Options{})
	require.NoError(t, err)
	defer l.Close()
	e := event(0)
	e.User = strings.Repeat("\n\x00\"", 10_000)
	e.Attributes = map[string]string{"channelId": strings.Repeat("\xff", 10_000)}
	require.NoError(t, l.Append(e))
	_, err = audit.Verify(dir)
	require.NoError(t, err)
	e.Attributes = make(map[string]string)
	for i := range 17 {
		e.Attributes[fmt.Sprint(i)] = ""
	}
	require.Error(t, l.Append(e))
	require.NoError(t, l.Append(event(1)), "that one is not in the way of others")
}

// Whatever a file holds, it is read without a panic, and only what holds together
// is taken.
func FuzzVerify(f *testing.F) {
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"seq":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","hash":"x"}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "audit-000001.jsonl"), text, 0o600))
		sum, err := audit.Verify(dir)
		if err == nil {
			assert.Equal(t, bytes.Count(text, []byte("\n")), sum.Records)
		}
	})
}
