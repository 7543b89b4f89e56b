package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient/meshtest"
)

// meshMiB is how large a file TestAKilledTransferGoesOn sends and receives. With 5120
// it takes about ten minutes, and 15 GiB of TMPDIR:
//
//	go test ./examples/carewire -run AKilledTransfer -mesh-mib 5120 -timeout 1h -v
var meshMiB = flag.Int64("mesh-mib", 24, "MiB that TestAKilledTransferGoesOn sends and receives")

// maxRSS is what a client may have in memory, in bytes.
const maxRSS = 64 << 20

func TestAKilledTransferGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "carewire")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	server, err := meshtest.New(meshtest.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	for _, mailbox := range []string{"MAILBOX1", "MAILBOX2"} {
		conf, err := server.Config(mailbox)
		require.NoError(t, err)
		require.NoError(t, writeMeshDir(filepath.Join(dir, mailbox), conf))
	}
	file, chunk := filepath.Join(dir, "sent"), "67108864"
	if *meshMiB < 256 {
		chunk = "5242880"
	}
	want := writeText(t, file, *meshMiB<<20)

	// transfer runs a command, and with kill ends it with SIGKILL when the server
	// has begun a third chunk.
	transfer := func(op string, kill bool, mailbox string, args ...string) {
		t.Helper()
		args = append([]string{"mesh", args[0], "--base-url", server.URL, "--dir", filepath.Join(dir, mailbox)}, args[1:]...)
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Stderr = os.Stderr
		if kill { // should the machine be so busy that it comes to a fourth, that waits
			server.Script(meshtest.Fault{Op: op, Chunk: 4, Status: 503, Header: http.Header{"Retry-After": {"2"}}})
		}
		require.NoError(t, cmd.Start())
		peak := peakMemory(cmd.Process.Pid)
		if kill {
			for chunkOf(server, op) < 3 {
				time.Sleep(time.Millisecond) // of a process of its own, nothing else can be waited for
			}
			require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
		}
		err := cmd.Wait()
		rss := <-peak
		t.Logf("%s, killed %t: %d MiB of memory at most", args[1], kill, rss>>20)
		assert.Less(t, rss, int64(maxRSS))
		assert.NotZero(t, rss)
		assert.Equal(t, kill, err != nil, "%v", err)
	}
	send := []string{"send", "--to", "MAILBOX2", "--workflow", "W", "--gzip", "--chunk-size", chunk, file}
	transfer("chunk", true, "MAILBOX1", send...)
	first := chunkOf(server, "chunk")
	before := len(server.Requests())
	transfer("chunk", false, "MAILBOX1", append(send, "--resume")...)
	for _, r := range server.Requests()[before:] {
		assert.NotEqual(t, "send", r.Op)
		if r.Op == "chunk" {
			assert.GreaterOrEqual(t, r.Chunk, first-1, "what the server had is not sent again")
		}
	}

	received := filepath.Join(dir, "received")
	receive := []string{"receive", "--out", received, "--ack", server.Waiting("MAILBOX2")[0]}
	transfer("download", true, "MAILBOX2", receive...)
	assert.NoFileExists(t, received)
	first, before = chunkOf(server, "download"), len(server.Requests())
	transfer("download", false, "MAILBOX2", append(receive, "--resume")...)
	for _, r := range server.Requests()[before:] {
		if r.Op == "download" {
			assert.GreaterOrEqual(t, r.Chunk, first-1)
		}
	}
	f, err := os.Open(received)
	require.NoError(t, err)
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	require.NoError(t, err)
	assert.Equal(t, want, hex.EncodeToString(sum.Sum(nil)))
	assert.Empty(t, server.Waiting("MAILBOX2"))
}

// peakMemory watches a process until it ends, and then says how many bytes it had in
// memory at most. What the kernel says of a process that has ended (getrusage) counts
// the memory of the test, too, from which it was started.
func peakMemory(pid int) <-chan int64 {
	peak := make(chan int64, 1)
	go func() {
		most := int64(0)
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, after, running := strings.Cut(string(status), "\nVmHWM:") // a process that has ended has none
			if err != nil || !running {
				break
			}
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && filepath.Base(exe) == "carewire" {
				kib, _ := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
				most = max(most, kib<<10)
			}
			time.Sleep(2 * time.Millisecond) // of a process of its own, nothing else can be waited for
		}
		peak <- most
	}()
	return peak
}

// chunkOf is the last chunk of an operation that the server has seen.
func chunkOf(server *meshtest.Server, op string) (last int) {
	for _, r := range server.Requests() {
		if r.Op == op {
			last = max(last, r.Chunk)
		}
	}
	return last
}

// writeText writes a file that compresses to about a half, and returns its SHA-256.
func writeText(t *testing.T, name string, size int64) string {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	sum := sha256.New()
	src := io.NewSectionReader(&digits{newSynthetic(size)}, 0, size)
	_, err = io.Copy(io.MultiWriter(f, sum), src)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return hex.EncodeToString(sum.Sum(nil))
}

// digits is content of sixteen letters.
type digits struct{ *synthetic }

func (d *digits) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.synthetic.ReadAt(p, off)
	for i := range p[:n] {
		p[i] = "0123456789ABCDEF"[p[i]&15]
	}
	return n, err
}
