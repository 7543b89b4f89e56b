//go:build linux

package dicomtls_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/interop"
)

// storeProcess is the environment variable that makes the test binary store
// objects until it is killed.
const storeProcess = "CAREWIRE_TEST_STORE_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeProcess); dir != "" {
		storeUntilKilled(dir)
	}
	leakcheckMain(m)
}

func instance(n int) string { return fmt.Sprintf("%s.%d", anInstance, n) }

// object is the n-th object: some hundred KiB of its own number.
func object(n int) *dicomtls.StoreRequest {
	data := new(builder).uids(ctStorage, instance(n)).element(pixelData, "OB", strings.Repeat(fmt.Sprintf("%08d", n), 50_000)).Bytes()
	r := storeOf(data)
	r.SOPInstanceUID = instance(n)
	return r
}

// storeUntilKilled stores objects one after the other and prints the number of
// each for which success is answered. The program dies by its own hand in the
// 5th, when it is on disk and not answered.
func storeUntilKilled(dir string) {
	store := &dicomtls.FileStore{Dir: dir, MinFreeBytes: -1, Stored: func(_ context.Context, o dicomtls.StoredObject) error {
		if o.Meta.SOPInstanceUID == instance(5) && os.Getenv("CAREWIRE_TEST_DIE") != "" {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}}
	for n := 1; ; n++ {
		if status := store.ServeStore(context.Background(), object(n)); status != dicomtls.StatusSuccess {
			fmt.Println("failed", status)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// killed runs storeUntilKilled until it has answered for some objects, or dies of
// itself, and returns how many.
func killed(t *testing.T, dir string, after time.Duration, env ...string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, storeProcess+"="+dir)...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	if after > 0 {
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	} else {
		timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	said, err := io.ReadAll(out)
	require.NoError(t, err)
	_ = cmd.Wait()
	require.NotContains(t, string(said), "failed")
	// The last line may be cut, in which case it was not answered.
	return bytes.Count(said, []byte("\n"))
}

// A kill at any time loses nothing that was answered and shows nothing that is
// not whole.
func TestAKilledStoreHasAllThatItAnsweredAndNothingHalf(t *testing.T) {
	dir := t.TempDir()
	check := func(answered int) (files int) {
		store := &dicomtls.FileStore{Dir: dir, MinFreeBytes: -1}
		require.NoError(t, store.Open())
		for _, name := range names(t, dir) {
			require.True(t, strings.HasSuffix(name, ".dcm"), name)
			meta, data := stored(t, filepath.Join(dir, name))
			var n int
			_, err := fmt.Sscanf(strings.TrimPrefix(meta.SOPInstanceUID, anInstance+"."), "%d", &n)
			require.NoError(t, err)
			want, _ := io.ReadAll(object(n).Body)
			require.True(t, bytes.Equal(want, data), "%s is whole", name)
			files++
		}
		require.GreaterOrEqual(t, files, answered, "what was answered is there")
		return files
	}
	assert.Equal(t, 4, killed(t, dir, 0, "CAREWIRE_TEST_DIE=1"))
	assert.Equal(t, 5, check(4), "killed between the commit and the answer: stored, and unknown to the sender")
	for round := range 5 { // at any other time
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Mkdir(dir, 0o700))
		check(killed(t, dir, time.Duration(150+70*round)*time.Millisecond))
	}
	// The sender tries what it had no answer for once more.
	store := &dicomtls.FileStore{Dir: dir, MinFreeBytes: -1}
	before := names(t, dir)
	if len(before) > 0 {
		assert.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), object(1)))
		assert.Equal(t, before, names(t, dir))
	}
}

// smallDisk mounts a file system of size bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		interop.Missing(t, "a file system cannot be mounted here: "+err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestAFullDiskIsOutOfResourcesAndTheStoreGoesOnWhenThereIsRoom(t *testing.T) {
	dir := smallDisk(t, 1<<20)
	store := &dicomtls.FileStore{Dir: dir, MinFreeBytes: -1}
	var n int
	var status dicomtls.Status
	for n = 1; status == dicomtls.StatusSuccess && n < 10; n++ { // 400 KiB each
		r := object(n)
		if status = store.ServeStore(t.Context(), r); status != dicomtls.StatusSuccess {
			assert.Equal(t, "the disk cannot be written", r.Comment)
		}
	}
	assert.Equal(t, dicomtls.StatusOutOfResources, status)
	assert.Equal(t, []string{instance(1) + ".dcm", instance(2) + ".dcm"}, names(t, dir))
	require.NoError(t, os.Remove(filepath.Join(dir, instance(1)+".dcm")))
	assert.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), object(3)), "the control: there is room again")

	careful := &dicomtls.FileStore{Dir: dir, MinFreeBytes: 1 << 20}
	r := object(4)
	assert.Equal(t, dicomtls.StatusOutOfResources, careful.ServeStore(t.Context(), r))
	assert.Equal(t, "not enough space on the disk", r.Comment)
	rest, _ := io.ReadAll(r.Body)
	assert.NotEmpty(t, rest, "it was refused before it was read")
}

func TestADiskThatFillsUpIsAnsweredA700AndTheAssociationGoesOn(t *testing.T) {
	disk := smallDisk(t, 1<<20)
	store := &dicomtls.FileStore{Dir: disk, MinFreeBytes: -1}
	s := listen(t, &dicomtls.Server{Store: store})
	_, port, err := net.SplitHostPort(s.addr)
	require.NoError(t, err)
	a := storing(t, port)
	big := explicit().header(pixelData, "OW", 3<<20)
	big.Write(make([]byte, 3<<20))
	status, err := a.Store(t.Context(), ctSlice(big.Bytes()))
	var failed *dicomtls.SendError
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, dicomtls.StatusOutOfResources, status)
	assert.True(t, failed.Retryable())
	assert.Empty(t, names(t, disk))
	status, err = a.Store(t.Context(), ctSlice(explicit().Bytes()))
	assert.NoError(t, err)
	assert.Equal(t, dicomtls.StatusSuccess, status)
}
