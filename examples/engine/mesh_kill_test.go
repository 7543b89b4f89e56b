package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient"
	"github.com/carewire/carewire/meshclient/meshtest"
)

// A gate is a listener whose connections can be held up: then nothing that is written
// to the server's clients, or nothing that they write, gets through.
type gate struct {
	net.Listener

	mu          sync.Mutex
	opened      sync.Cond
	answers     bool // are held up; guarded by mu
	questions   bool // are held up; guarded by mu
	interrupted int  // reads and writes that wait, or did; guarded by mu
}

func newGate(t *testing.T) *gate {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{Listener: ln}
	g.opened.L = &g.mu
	t.Cleanup(func() { g.hold(false, false) }) // whoever waits goes on, whatever the test says
	return g
}

func (g *gate) hold(answers, questions bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers, g.questions = answers, questions
	g.opened.Broadcast()
}

// waits tells how many are held up, or were.
func (g *gate) waits() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.interrupted
}

// pass waits as long as held is, and tells whether it was.
func (g *gate) pass(held *bool) (was bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if was = *held; was {
		g.interrupted++
	}
	for *held {
		g.opened.Wait()
	}
	return was
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gated{c, g}, nil
}

type gated struct {
	net.Conn
	gate *gate
}

func (c *gated) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.gate.pass(&c.gate.questions) {
		return 0, net.ErrClosed // what was held up never comes
	}
	return n, err
}

func (c *gated) Write(p []byte) (int, error) {
	c.gate.pass(&c.gate.answers)
	return c.Conn.Write(p)
}

// mailboxOf returns the keys of a mailbox for an engine's configuration.
func mailboxOf(t *testing.T, s *meshtest.Server, mailbox string) string {
	t.Helper()
	cert, key, err := s.Client(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	require.NoError(t, err)
	dir := t.TempDir()
	for name, text := range map[string][]byte{"client.crt": cert, "client.key": key, "ca.crt": s.CA()} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	return fmt.Sprintf(`type: mesh, baseUrl: "%s", mailbox: %s, password: password, hashSecret: TestKey, proxyUrl: none,`+
		` tls: {enabled: true, trustStorePath: %s/ca.crt, certStorePath: %s/client.crt, keyStorePath: %s/client.key}`, s.URL, mailbox, dir, dir, dir)
}

// seen counts the requests of a kind.
func seen(s *meshtest.Server, op string) (n int) {
	for _, r := range s.Requests() {
		if r.Op == op {
			n++
		}
	}
	return n
}

// answered counts those that had an answer of a status.
func answered(s *meshtest.Server, op string, status int) (n int) {
	for _, r := range s.Requests() {
		if r.Op == op && r.Status == status {
			n++
		}
	}
	return n
}

// comparison says which messages are there twice, and which are not.
func comparison(want, got []string) (twice, lost []string) {
	count := make(map[string]int)
	for _, m := range got {
		count[m]++
	}
	for _, m := range want {
		switch n := count[m]; {
		case n == 0:
			lost = append(lost, m)
		case n > 1:
			twice = append(twice, m)
		}
		delete(count, m)
	}
	for m := range count {
		twice = append(twice, "never sent: "+m)
	}
	return twice, lost
}

// sums returns the SHA-256 of the files of a directory.
func sums(t *testing.T, dir string) (found []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.*"))
	require.NoError(t, err)
	for _, name := range names {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		found = append(found, sumOf(content))
	}
	return found
}

func sumOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// later makes the engine believe that it listed the inbox long ago, as five minutes
// would, and changes nothing else of what it remembers.
func later(t *testing.T, data string) {
	t.Helper()
	name := filepath.Join(data, "mesh", "in", "polling.json")
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	var state map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &state))
	state["lastPoll"] = json.RawMessage(`"` + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339) + `"`)
	text, err = json.Marshal(state)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, text, 0o600))
}

// notNow is an answer after which a client waits for longer than a test lasts.
var notNow = http.Header{"Retry-After": {"300"}}

// killed is a test of one channel and one MESH that are left alone, but for kills, or
// sabotaged: then the test must find out.
type killed struct {
	mesh          *meshtest.Server
	config        string
	data, archive string
}

func newKilled(t *testing.T, o meshtest.Options, channel func(s *meshtest.Server) string) *killed {
	t.Helper()
	s, err := meshtest.New(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	k := &killed{mesh: s, config: writeConfig(t, "channels:\n  - %s\n", channel(s))}
	k.data, k.archive = filepath.Join(filepath.Dir(k.config), "data"), filepath.Join(filepath.Dir(k.config), "archive")
	return k
}

// client returns one of the test's own, for what people do beside the engine.
func (k *killed) client(t *testing.T, mailbox string) *meshclient.Client {
	t.Helper()
	conf, err := k.mesh.Config(mailbox)
	require.NoError(t, err)
	c, err := meshclient.New(conf)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func kill(t *testing.T, p *process) {
	t.Helper()
	p.signal(syscall.SIGKILL)
	assert.Equal(t, -1, p.code())
}

func TestKilledEngineTakesEveryMESHMessageInOnce(t *testing.T) {
	t.Parallel()
	// run ends when so many files are there. What came twice would have come before the
	// last: the inbox is listed in order, and so is what is filed.
	run := func(t *testing.T, files int, afterFirst, afterSecond func(k *killed, ids []string)) (k *killed, twice, lost []string) {
		k = newKilled(t, meshtest.Options{SmallChunks: true}, func(s *meshtest.Server) string {
			return "{id: in, source: {" + mailboxOf(t, s, "MAILBOX2") + "}, destinations: [{name: archive, type: file, directory: ./archive}]}"
		})
		var want, ids []string
		for i := range 4 {
			var chunks [][]byte
			for n := range 3 {
				chunks = append(chunks, []byte(strings.Repeat(fmt.Sprintf("%d-%d ", i, n), 20_000)))
			}
			want = append(want, sumOf(slices.Concat(chunks...)))
			ids = append(ids, k.mesh.Deliver(&meshtest.Message{From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: chunks}))
		}

		// In the middle of the second message, of which it has two chunks of three.
		k.mesh.Script(meshtest.Fault{Op: "download", Chunk: 3, Skip: 1, Status: http.StatusServiceUnavailable, Header: notNow})
		p := launch(t, nil, "-config", k.config)
		eventually(t, "it waits for a chunk", func() bool { return answered(k.mesh, "download", http.StatusServiceUnavailable) == 1 })
		eventually(t, "the first is filed", func() bool { return len(sums(t, k.archive)) == 1 })
		kill(t, p)
		require.Equal(t, ids[1:], k.mesh.Waiting("MAILBOX2"))
		afterFirst(k, ids)
		later(t, k.data)

		// When a message is stored, and it is not acknowledged.
		k.mesh.Script(meshtest.Fault{Op: "acknowledge", Skip: 1, Status: http.StatusServiceUnavailable, Header: notNow})
		p = launch(t, nil, "-config", k.config)
		eventually(t, "it waits to acknowledge", func() bool { return answered(k.mesh, "acknowledge", http.StatusServiceUnavailable) == 1 })
		// Each that was acknowledged is filed, and the one that was not.
		eventually(t, "it is filed", func() bool { return len(sums(t, k.archive)) == 3 })
		kill(t, p)
		later(t, k.data)
		afterSecond(k, ids)

		p = launch(t, nil, "-config", k.config)
		eventually(t, "the inbox is empty", func() bool { return len(k.mesh.Waiting("MAILBOX2")) == 0 })
		filed := func() []string { return append(sums(t, k.archive), sums(t, k.archive+".old")...) }
		eventually(t, "all is filed", func() bool { return len(filed()) >= files })
		p.signal(syscall.SIGTERM)
		assert.Equal(t, 0, p.code())
		twice, lost = comparison(want, filed())
		return k, twice, lost
	}
	nothing := func(*killed, []string) {}
	t.Run("left alone", func(t *testing.T) {
		t.Parallel()
		k, twice, lost := run(t, 4, nothing, nothing)
		assert.Empty(t, twice)
		assert.Empty(t, lost)
		first := 0
		for _, r := range k.mesh.Requests() {
			if r.Op == "download" && r.Chunk < 3 {
				first++
			}
		}
		assert.Equal(t, 2*4, first, "what was there is not fetched again")
	})
	t.Run("the control: a store that is lost takes a message twice", func(t *testing.T) {
		t.Parallel()
		_, twice, _ := run(t, 5, nothing, func(k *killed, _ []string) {
			require.NoError(t, os.Rename(k.archive, k.archive+".old")) // or the numbers of the new store would meet those of the old
			require.NoError(t, os.RemoveAll(k.data))
		})
		assert.Len(t, twice, 1)
	})
	t.Run("the control: what is acknowledged and not stored is lost", func(t *testing.T) {
		t.Parallel()
		_, _, lost := run(t, 3, func(k *killed, ids []string) {
			require.NoError(t, k.client(t, "MAILBOX2").Acknowledge(t.Context(), ids[1]))
		}, nothing)
		assert.Len(t, lost, 1)
	})
}

func TestKilledEngineSendsEveryMessageOverMESHOnce(t *testing.T) {
	t.Parallel()
	for name, blind := range map[string]bool{"left alone": false, "the control: a MESH that denies what it has gets it twice": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, port := newGate(t), freePort(t)
			k := newKilled(t, meshtest.Options{Listener: g}, func(s *meshtest.Server) string {
				return fmt.Sprintf("{id: out, source: {type: tcp, host: 127.0.0.1, port: %d}, destinations: [{name: mesh, to: MAILBOX2, workflowId: W, queue: {retryInterval: 10ms}, %s}]}",
					port, mailboxOf(t, s, "MAILBOX1"))
			})
			var want []string
			send := func(id string) {
				conn := dial(t, port, nil)
				_, err := conn.Send(t.Context(), message(id))
				require.NoError(t, err)
				want = append(want, sumOf(message(id)))
			}
			arrived := func(n int) func() bool { return func() bool { return len(k.mesh.Waiting("MAILBOX2")) >= n } }

			p := launch(t, nil, "-config", k.config)
			p.says("engine ready")
			send("M1")
			eventually(t, "it has come", arrived(1))
			// MESH has it, and the engine has no answer.
			eventually(t, "the first is done with", func() bool { return answered(k.mesh, "send", http.StatusAccepted) == 1 })
			g.hold(true, false)
			send("M2")
			eventually(t, "it has come", arrived(2))
			kill(t, p)
			g.hold(false, false)
			if blind {
				k.mesh.Script(meshtest.Fault{Op: "track", Status: http.StatusNotFound, Body: "{}"})
			}

			// The engine has sent it, and MESH has nothing.
			p = launch(t, nil, "-config", k.config)
			p.says("engine ready")
			eventually(t, "it has asked for it", func() bool { return seen(k.mesh, "track") == 1 })
			send("M3")
			n := map[bool]int{false: 3, true: 4}[blind]
			eventually(t, "it has come", arrived(n))
			before := g.waits()
			g.hold(false, true)
			send("M4")
			eventually(t, "it is on its way", func() bool { return g.waits() > before })
			kill(t, p)
			g.hold(false, false)

			p = launch(t, nil, "-config", k.config)
			p.says("engine ready")
			send("M5")
			eventually(t, "all have come", arrived(n+2))
			p.signal(syscall.SIGTERM)
			assert.Equal(t, 0, p.code())
			reader := k.client(t, "MAILBOX2")
			var got []string
			for _, id := range k.mesh.Waiting("MAILBOX2") {
				var content bytes.Buffer
				_, err := reader.Receive(t.Context(), id, &content, nil)
				require.NoError(t, err)
				got = append(got, sumOf(content.Bytes()))
			}
			twice, lost := comparison(want, got)
			assert.Empty(t, lost)
			if blind {
				assert.Equal(t, want[1:2], twice)
				return
			}
			assert.Empty(t, twice)
			assert.Equal(t, want, got, "in order")
		})
	}
}
