package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

const (
	ctImage    = "1.2.840.10008.5.1.4.1.1.2"
	modalities = 6 // that send when the engine is killed
)

// ctObject is the n-th object of a modality.
func ctObject(modality, n int) dicomtls.Object {
	instance := fmt.Sprintf("1.2.826.0.1.3680043.10.9999.6.%d.%d", modality, n)
	var b bytes.Buffer
	for tag, value := range []string{0x16: ctImage, 0x18: instance} {
		if value == "" {
			continue
		}
		if len(value)%2 != 0 {
			value += "\x00"
		}
		_ = binary.Write(&b, binary.LittleEndian, []uint16{0x0008, uint16(tag)})
		b.WriteString("UI")
		_ = binary.Write(&b, binary.LittleEndian, uint16(len(value)))
		b.WriteString(value)
	}
	_ = binary.Write(&b, binary.LittleEndian, []uint16{0x7FE0, 0x0010})
	b.WriteString("OW\x00\x00")
	_ = binary.Write(&b, binary.LittleEndian, uint32(20_000))
	pixels := rand.NewChaCha8([32]byte{byte(modality), byte(n), byte(n >> 8)})
	_, _ = io.CopyN(&b, pixels, 20_000)
	return dicomtls.BytesObject(ctImage, instance, dicomtls.ExplicitVRLittleEndian, b.Bytes())
}

// pacs notes what it is sent.
type pacs struct {
	mu    sync.Mutex
	first []string            // instances in the order of their first arrival; guarded by mu
	sums  map[string][32]byte // guarded by mu
	again int                 // guarded by mu
}

func (p *pacs) ServeStore(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
	sum := sha256.New()
	if _, err := io.Copy(sum, r.Body); err != nil {
		return dicomtls.StatusProcessingFailure
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, there := p.sums[r.SOPInstanceUID]; there {
		p.again++
	} else {
		p.first = append(p.first, r.SOPInstanceUID)
	}
	p.sums[r.SOPInstanceUID] = [32]byte(sum.Sum(nil))
	return dicomtls.StatusSuccess
}

// modality sends objects, each until it is stored, until enough is true. It returns
// how many.
func modality(ctx context.Context, id int, addr string, stored *atomic.Int64, enough *atomic.Bool) int {
	d := &dicomtls.Dialer{AETitle: fmt.Sprintf("CT%d", id), CalledAE: "ENGINE"}
	var a *dicomtls.Association
	defer func() {
		if a != nil {
			_ = a.Close()
		}
	}()
	for n := 0; ; n++ {
		if enough.Load() {
			return n
		}
		o := ctObject(id, n)
		for {
			var err error
			if a == nil {
				a, err = d.DialContext(ctx, "tcp", addr, dicomtls.Propose([]dicomtls.Object{o})...)
			}
			if err == nil {
				if _, err = a.Store(ctx, o); err == nil {
					break
				}
				_ = a.Close()
			}
			a = nil
			if ctx.Err() != nil {
				return n
			}
			time.Sleep(10 * time.Millisecond)
		}
		stored.Add(1)
	}
}

// dicomKills runs the engine between modalities and a PACS and kills it again and
// again. It returns how many objects were answered with success, how many of them
// the PACS does not have, and how many it has in another order than they were sent.
func dicomKills(t *testing.T, sabotage string, rounds int) (acked, lost, misordered int) {
	t.Helper()
	if testing.Short() {
		t.Skip("kills the engine for a while; not in short mode")
	}
	binary, err := engineBinary()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	archive := &pacs{sums: make(map[string][32]byte)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, served := &dicomtls.Server{Store: archive}, make(chan struct{})
	go func() { defer close(served); server.Serve(context.Background(), ln) }()
	defer func() { server.Close(); <-served }()

	dir := t.TempDir()
	source, apiPort, err := freeAddrs()
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(source)
	require.NoError(t, err)
	_, archivePort, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	config, password := filepath.Join(dir, "engine.yaml"), filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(password, []byte("of the demo alone"), 0o600))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, configMark+`
dataDir: data
users: [{name: demo, role: viewer, passwordFile: password}]
channels:
  - id: %s
    source: {type: dicom, host: 127.0.0.1, port: %s}
    destinations:
      - {name: pacs, type: dicom, host: 127.0.0.1, port: %s, queue: {retryInterval: 100ms}}
`, channelID, port, archivePort), 0o600))
	e := &engine{command: []string{binary, "-config", config}, logFile: filepath.Join(dir, "engine.log"), port: apiPort, password: "of the demo alone"}
	if sabotage != "" {
		e.command = append(e.command, "-sabotage", sabotage)
	}
	require.NoError(t, e.start(ctx))
	defer func() { assert.NoError(t, e.stop()) }()

	var stored atomic.Int64
	var enough atomic.Bool
	counts := make([]int, modalities)
	var group sync.WaitGroup
	for id := range modalities {
		group.Go(func() { counts[id] = modality(ctx, id, source, &stored, &enough) })
	}
	for range rounds {
		before := stored.Load()
		until(t, "every round to do some work", func() bool { return stored.Load() >= before+3*modalities })
		time.Sleep(rand.N(200 * time.Millisecond)) // a moment that nobody chose
		require.NoError(t, e.kill())
		require.NoError(t, e.start(ctx))
	}
	enough.Store(true)
	waitFor(t, "the modalities to be done", group.Wait)
	until(t, "the queue to be empty", func() bool {
		n, err := e.queued(ctx, channelID)
		return err == nil && n == 0
	})

	archive.mu.Lock()
	defer archive.mu.Unlock()
	place := make(map[string]int)
	for i, instance := range archive.first {
		place[instance] = i
	}
	for id, n := range counts {
		last := -1
		for i := range n {
			acked++
			o := ctObject(id, i)
			r, err := o.Open()
			require.NoError(t, err)
			want, err := io.ReadAll(r)
			require.NoError(t, err)
			at, there := place[o.SOPInstanceUID]
			switch {
			case !there:
				lost++
				continue
			case at < last:
				misordered++
			}
			last = at
			assert.Equal(t, sha256.Sum256(want), archive.sums[o.SOPInstanceUID], "altered")
		}
	}
	t.Logf("%d kills, %d modalities: %d stored, %d lost, %d out of order, %d delivered again", rounds, modalities, acked, lost, misordered, archive.again)
	return acked, lost, misordered
}

func TestNoObjectThatWasAnsweredWithSuccessIsLostByKills(t *testing.T) {
	acked, lost, misordered := dicomKills(t, "", 3)
	assert.NotZero(t, acked)
	assert.Zero(t, lost)
	assert.Zero(t, misordered)
}

func TestTheKillsFindAnEngineThatAnswersObjectsBeforeItCommits(t *testing.T) {
	_, lost, _ := dicomKills(t, AckBeforeCommit, 1)
	assert.NotZero(t, lost)
}
