package meshclient_test

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// endless is content of any size without any memory: 1 MiB, again and again, with
// the number of the repetition in front.
type endless struct {
	size  int64
	block []byte
}

func (e *endless) Size() int64 { return e.size }

func (e *endless) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < e.size {
		at := off % int64(len(e.block))
		k := copy(p[n:min(int64(len(p)), int64(n)+e.size-off)], e.block[at:])
		if at == 0 {
			p[n] = byte(off >> 20)
		}
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// highest watches the heap until it is told to stop, and returns its peak beyond
// what it was at first.
func highest() (stop func() uint64) {
	var first, m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&first)
	done, peak := make(chan struct{}), uint64(0)
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() uint64 {
		close(done)
		watching.Wait()
		return peak - min(peak, first.HeapInuse)
	}
}

func TestA256MiBMessageGoesBothWaysInLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short")
	}
	for name, row := range map[string]struct {
		size int64
		zip  bool
	}{"plain": {256 << 20, false}, "gzip": {6 << 20, true}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, meshtest.Options{Dir: t.TempDir(), NoGzip: true, SmallChunks: row.zip})
			a, b := connect(t, s, alice), connect(t, s, bob)
			block := make([]byte, 1<<20)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(block)
			m := message(nil)
			m.Content, m.Gzip = &endless{size: row.size, block: block}, row.zip
			if row.zip {
				m.ChunkSize, m.SmallChunks = 2<<20, true // compression is what takes time
			}
			stop := highest()
			sent, err := a.Send(bounded(t), m)
			require.NoError(t, err)
			w := &hashing{sum: sha256.New()}
			info, err := b.Receive(bounded(t), sent.MessageID, w, nil)
			require.NoError(t, err)
			peak := stop()
			assert.Greater(t, sent.Chunks, 2)
			assert.Equal(t, row.size, info.Size)
			assert.Equal(t, sent.Checksum, "sha256:"+hex.EncodeToString(w.sum.Sum(nil)))
			assert.Less(t, peak, uint64(24<<20), "bytes of the heap, of client and server together")
			t.Logf("%d chunks, peak of the heap %.1f MiB", sent.Chunks, float64(peak)/(1<<20))
		})
	}
}

// hashing is a file that remembers nothing but its hash.
type hashing struct{ sum hash.Hash }

func (h *hashing) Write(p []byte) (int, error) { return h.sum.Write(p) }

var _ meshclient.Content = (*endless)(nil)
