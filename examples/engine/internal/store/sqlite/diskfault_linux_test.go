package sqlite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
	"github.com/carewire/carewire/internal/interop"
)

// failingSyncs is strace's command line for a program whose syncs fail: those that
// when selects, counted from 1 for each thread.
func failingSyncs(t *testing.T, trace, when string) []string {
	t.Helper()
	return []string{
		interop.Need(t, "strace"), "-f", "-qq", "-o", trace,
		"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=" + when,
	}
}

// acknowledgedOnFailingDisk returns what is wrong with a child's answers on a disk
// whose every sync fails after some.
func acknowledgedOnFailingDisk(lines []string) error {
	i := slices.IndexFunc(lines, func(line string) bool { return len(saidIn([]string{line}, refused)) > 0 })
	if i < 0 {
		return fmt.Errorf("all %d messages were acknowledged", len(lines))
	}
	if late := saidIn(lines[i:], acknowledged); len(late) > 0 {
		return fmt.Errorf("%d messages were acknowledged after the first error", len(late))
	}
	return nil
}

func TestAFailedSyncIsNeverFollowedByAnAcknowledgement(t *testing.T) {
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	c := start(t, "sequence", dir, sqlite.SynchronousFull, failingSyncs(t, trace, "25+")...)
	c.finish(t)
	recorded, err := os.ReadFile(trace)
	require.NoError(t, err)
	require.Contains(t, string(recorded), "(INJECTED)")
	require.NoError(t, acknowledgedOnFailingDisk(c.lines))
	acks := c.said(acknowledged)
	require.NotEmpty(t, acks)
	assert.Contains(t, c.said(refused)[0], store.ErrFailed.Error())
	assert.NotEqual(t, "<nil>", c.said(childDone)[0], "no orderly end")

	st := reopened(t, dir)
	defer st.Close()
	assert.Empty(t, missing(acks, everyone(t, st, quiet)))
	assert.True(t, queue(t, st, quiet)[0].MaybeSent, "the end counts as a crash")
}

// The control: a store that does not sync does not notice.
func TestAStoreThatDoesNotSyncIsFoundAcknowledgingOnAFailingDisk(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	c := start(t, "sequence", t.TempDir(), sqlite.SynchronousOff, failingSyncs(t, trace, "25+")...)
	c.finish(t)
	require.Error(t, acknowledgedOnFailingDisk(c.lines))
}

func TestTheStoreReopensAndVerifiesItselfWhenTheDiskWorksAgain(t *testing.T) {
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	c := start(t, "until-better", dir, sqlite.SynchronousFull, failingSyncs(t, trace, "25..27")...)
	c.finish(t)
	require.NotEmpty(t, c.said(refused))
	assert.Empty(t, c.said("read"), "nor can anything be read meanwhile")
	last := c.lines[len(c.lines)-2]
	require.NotEmpty(t, saidIn([]string{last}, acknowledged), "%v", c.lines)

	st := reopened(t, dir)
	defer st.Close()
	assert.Empty(t, missing(c.said(acknowledged), everyone(t, st, quiet)))
	assertStatsAddUp(t, st)
}

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("carewire", dir, "tmpfs", 0, "size="+strconv.Itoa(size)); err != nil {
		interop.Missing(t, "a small file system cannot be mounted (that takes root): "+err.Error())
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}

func TestAFullDiskRefusesIntakeDrainsAndRecoversByItself(t *testing.T) {
	const mib = 1 << 20
	dir := smallDisk(t, 12*mib)
	filler := filepath.Join(dir, "filler")
	require.NoError(t, os.WriteFile(filler, make([]byte, 4*mib), 0o600))
	opts := &sqlite.Options{Reserve: 2 * mib}
	st, err := sqlite.Open(t.Context(), dir, opts)
	require.NoError(t, err)
	defer func() { assert.NoError(t, st.Close()) }()

	var acks, nacks []string
	for i := 0; len(nacks) < 5; i++ {
		id := strconv.Itoa(i)
		_, err := st.Intake(t.Context(), store.Intake{
			Channel: "c", ControlID: id, Raw: make([]byte, 10_000), Destinations: []string{drained, quiet},
		})
		if err == nil {
			require.Empty(t, nacks, "intake goes on in what was kept for completions")
			acks = append(acks, id)
			continue
		}
		require.ErrorIs(t, err, store.ErrFull)
		nacks = append(nacks, id)
	}
	require.NotEmpty(t, acks)
	require.ErrorIs(t, st.Healthy(), store.ErrFull)

	for _, d := range queue(t, st, drained) {
		require.NoError(t, st.Delivered(t.Context(), &d), "the queue drains")
	}
	require.ErrorIs(t, st.Healthy(), store.ErrFull)
	assert.Equal(t, acks, everyone(t, st, quiet), "what was acknowledged is there, and what was refused is not")
	assert.NotEmpty(t, missing(append(slices.Clone(acks), nacks...), everyone(t, st, quiet)),
		"control: a refused message that had been acknowledged would be found missing")

	require.NoError(t, os.Remove(filler))
	require.Eventually(t, func() bool { return st.Healthy() == nil }, 20*time.Second, 20*time.Millisecond)
	require.NoError(t, intake(st, "after"))
	acks = append(acks, "after")
	assertStatsAddUp(t, st)
	require.NoError(t, st.Close())

	st, err = sqlite.Open(t.Context(), dir, opts)
	require.NoError(t, err)
	assert.Equal(t, acks, everyone(t, st, quiet))
	assert.Equal(t, []string{"after"}, everyone(t, st, drained))
}

func TestADiskThatIsFullAtTheStartIsOpenedForCompletions(t *testing.T) {
	const mib = 1 << 20
	dir := smallDisk(t, 8*mib)
	opts := &sqlite.Options{Reserve: mib}
	st, err := sqlite.Open(t.Context(), dir, opts)
	require.NoError(t, err)
	for i := range 20 {
		require.NoError(t, intake(st, strconv.Itoa(i)))
	}
	require.NoError(t, st.Close())

	filler, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, filler.Close())

	st, err = sqlite.Open(t.Context(), dir, opts)
	require.NoError(t, err)
	defer st.Close()
	require.ErrorIs(t, intake(st, "x"), store.ErrFull)
	for _, d := range queue(t, st, drained) {
		require.NoError(t, st.Delivered(t.Context(), &d))
	}
	require.NoError(t, os.Remove(filler.Name()))
	require.Eventually(t, func() bool { return st.Healthy() == nil }, 20*time.Second, 20*time.Millisecond)
	require.NoError(t, intake(st, "x"))
}
