package tlsprops_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/memnet"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// recorder keeps the events of a Source.
type recorder struct {
	mu     sync.Mutex
	events []tlsprops.Event
}

func (r *recorder) observe(e tlsprops.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// take returns the events since the last call.
func (r *recorder) take() []tlsprops.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

func kinds(events []tlsprops.Event) []tlsprops.EventKind {
	var k []tlsprops.EventKind
	for _, e := range events {
		k = append(k, e.Kind)
	}
	return k
}

func TestABadSetKeepsTheOldOneAndSaysSo(t *testing.T) {
	p := newPKI(t)
	other := newPKI(t)
	fresh := p.ca.Server()
	old := testpki.Options{Hosts: []string{"localhost"}, NotAfter: time.Now().Add(-time.Hour)}
	early := testpki.Options{Hosts: []string{"localhost"}, NotBefore: time.Now().Add(time.Hour)}
	pass := filepath.Join(p.dir, "pass")
	for name, spoil := range map[string]func(t *testing.T){
		"half a key":         func(t *testing.T) { write(t, p.serverFiles.Key, fresh.KeyPEM()[:60]) },
		"half a certificate": func(t *testing.T) { write(t, p.serverFiles.Cert, fresh.CertPEM()[:200]) },
		"an empty file":      func(t *testing.T) { write(t, p.serverFiles.Cert) },
		"a new certificate, the old key": func(t *testing.T) {
			write(t, p.serverFiles.Cert, fresh.CertPEM())
		},
		"a missing file": func(t *testing.T) { require.NoError(t, os.Remove(p.serverFiles.Key)) },
		"a directory in its place": func(t *testing.T) {
			require.NoError(t, os.Remove(p.caFile))
			require.NoError(t, os.Mkdir(p.caFile, 0o700))
		},
		"an empty CA":        func(t *testing.T) { write(t, p.caFile) },
		"a damaged CA":       func(t *testing.T) { write(t, p.caFile, other.ca.PEM()[:300]) },
		"a wrong passphrase": func(t *testing.T) { write(t, pass, []byte("wrong")) },
		"an expired pair":    func(t *testing.T) { p.ca.Issue(old).Write(p.dir, "server") },
		"a pair of tomorrow": func(t *testing.T) { p.ca.Issue(early).Write(p.dir, "server") },
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Remove(p.caFile)
			p.ca.Write(p.dir, "ca.crt")
			write(t, p.serverFiles.Cert, p.server.CertPEM())
			write(t, p.serverFiles.Key, traditional(t, p.server, "pass"))
			write(t, pass, []byte("pass"))
			var rec recorder
			props := p.mutual()
			props.PassphraseFile, props.Observe = pass, rec.observe
			source := load(t, props)
			config, err := source.ServerConfig()
			require.NoError(t, err)
			assert.Equal(t, []tlsprops.EventKind{tlsprops.Loaded}, kinds(rec.take()))

			spoil(t)
			err = source.Reload()
			var fieldErr *tlsprops.FieldError
			require.ErrorAs(t, err, &fieldErr)
			st := source.Status()
			assert.Equal(t, err, st.Err)
			assert.Equal(t, uint64(1), st.Generation)
			assert.Equal(t, uint64(1), st.Failures)
			serverSide, _ := handshake(config, clientConfig(t, tlsprops.TlsProperties{
				KeyStorePath: p.clientFiles.Key, CertStorePath: p.clientFiles.Cert, RejectUnauthorized: new(false), Pins: []string{p.server.Pin()},
			}, "localhost"))
			require.NoError(t, serverSide.err, "the set before serves on")

			require.Error(t, source.Reload())
			assert.Equal(t, uint64(2), source.Status().Failures)
			events := rec.take()
			assert.Equal(t, []tlsprops.EventKind{tlsprops.KeptOld}, kinds(events), "told once")
			assert.Equal(t, uint64(1), events[0].Generation)
			require.ErrorContains(t, events[0].Err, fieldErr.Field)

			_ = os.Remove(p.caFile)
			p.ca.Write(p.dir, "ca.crt")
			write(t, pass, []byte("pass"))
			write(t, p.serverFiles.Cert, fresh.CertPEM())
			write(t, p.serverFiles.Key, traditional(t, fresh, "pass"))
			require.NoError(t, source.Reload())
			st = source.Status()
			assert.NoError(t, st.Err)
			assert.Equal(t, uint64(2), st.Generation)
			assert.Equal(t, []tlsprops.EventKind{tlsprops.Loaded}, kinds(rec.take()))
		})
	}
}

func TestAnExpiredSetReplacesAnExpiredOne(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		soon := p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)})
		soon.Write(p.dir, "server")
		source := load(t, p.listener())
		time.Sleep(2 * time.Hour)
		require.ErrorContains(t, source.Status().Err, "expired at", "it says so although no file has changed")
		p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotBefore: time.Now().Add(time.Minute)}).Write(p.dir, "server")
		require.NoError(t, source.Reload())
		assert.Equal(t, uint64(2), source.Status().Generation)
		require.ErrorContains(t, source.Status().Err, "not valid before")
		time.Sleep(2 * time.Minute)
		assert.NoError(t, source.Status().Err)
	})
}

func TestASetThatIsNotValidYetComesIntoUseInTime(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		source := load(t, p.listener())
		p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, NotBefore: time.Now().Add(time.Minute)}).Write(p.dir, "server")
		require.Error(t, source.Reload())
		time.Sleep(2 * time.Minute)
		require.NoError(t, source.Reload())
		assert.Equal(t, uint64(2), source.Status().Generation)
	})
}

func TestTheSameContentIsNoNewGeneration(t *testing.T) {
	p := newPKI(t)
	var rec recorder
	props := p.mutual()
	props.Observe = rec.observe
	source := load(t, props)
	rec.take()
	p.server.Write(p.dir, "server") // the same bytes again
	require.NoError(t, os.Chtimes(p.serverFiles.Cert, time.Now(), time.Now().Add(time.Hour)))
	require.NoError(t, os.Rename(p.ca.Write(p.dir, "new"), p.caFile))
	require.NoError(t, source.Reload())
	assert.Equal(t, uint64(1), source.Status().Generation)
	assert.Empty(t, rec.take())
}

func TestContentDecidesAndNotTheTimeOfTheFile(t *testing.T) {
	p := newPKI(t)
	source := load(t, p.listener())
	info, err := os.Stat(p.serverFiles.Cert)
	require.NoError(t, err)
	for i, shift := range []time.Duration{0, -time.Hour} {
		p.ca.Server().Write(p.dir, "server")
		for _, path := range []string{p.serverFiles.Cert, p.serverFiles.Key} {
			require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime().Add(shift)))
		}
		require.NoError(t, source.Reload())
		assert.Equal(t, uint64(i+2), source.Status().Generation)
	}
}

func TestEveryKindOfRotationReachesNewHandshakesAndLeavesOldConnectionsAlone(t *testing.T) {
	p := newPKI(t)
	newCA := testpki.NewCA(t, "New CA")
	region := p.ca.Intermediate("Region CA")
	sameKey := p.ca.Issue(testpki.Options{Hosts: []string{"localhost"}, Key: p.server.Key})
	bundle := write(t, filepath.Join(p.dir, "bundle"), p.ca.PEM(), newCA.PEM())
	client := p.trusting()
	client.TrustStorePath = bundle

	source := load(t, p.listener())
	config, err := source.ServerConfig()
	require.NoError(t, err)
	connected, err := connection(t, config, clientConfig(t, client, "localhost"))
	require.NoError(t, err)
	for _, step := range []struct {
		name string
		pair *testpki.Pair
	}{
		{"renewed with the same key", sameKey},
		{"a new key", p.ca.Server()},
		{"one intermediate more", region.Server()},
		{"one intermediate less", p.ca.Server()},
		{"another CA", newCA.Server()},
	} {
		step.pair.Write(p.dir, "server")
		require.NoError(t, source.Reload(), step.name)
		_, clientSide := handshake(config, clientConfig(t, client, "localhost"))
		require.NoError(t, clientSide.err, step.name)
		var sent [][]byte
		for _, c := range clientSide.state.PeerCertificates {
			sent = append(sent, c.Raw)
		}
		assert.Equal(t, step.pair.Chain, sent, step.name)
	}
	require.NoError(t, connected(), "the first connection goes on")
}

func TestTrustRollsWithAnOverlap(t *testing.T) {
	p := newPKI(t)
	newCA := testpki.NewCA(t, "New CA")
	source := load(t, p.trusting())
	accepts := func(pair *testpki.Pair) bool {
		client, err := source.ClientConfig("localhost")
		require.NoError(t, err)
		_, clientSide := handshake(bare(pair), client)
		return clientSide.err == nil
	}
	newPair := newCA.Server()
	assert.Equal(t, []bool{true, false}, []bool{accepts(p.server), accepts(newPair)})
	write(t, p.caFile, p.ca.PEM(), newCA.PEM())
	require.NoError(t, source.Reload())
	assert.Equal(t, []bool{true, true}, []bool{accepts(p.server), accepts(newPair)})
	write(t, p.caFile, newCA.PEM())
	require.NoError(t, source.Reload())
	assert.Equal(t, []bool{false, true}, []bool{accepts(p.server), accepts(newPair)})
}

func TestEverySwapOfAMountIsNoticed(t *testing.T) {
	p := newPKI(t)
	files := func(pair *testpki.Pair) map[string][]byte {
		return map[string][]byte{"tls.crt": pair.CertPEM(), "tls.key": pair.KeyPEM(), "ca.crt": p.ca.PEM()}
	}
	mount := testpki.NewMount(t, t.TempDir(), files(p.server))
	outside := t.TempDir() // links that lead into the mount
	for _, name := range []string{"tls.crt", "tls.key"} {
		require.NoError(t, os.Symlink(mount.Path(name), filepath.Join(outside, name)))
	}
	sources := map[string]*tlsprops.Source{
		"in the mount":     load(t, tlsprops.TlsProperties{KeyStorePath: mount.Path("tls.key"), CertStorePath: mount.Path("tls.crt"), TrustStorePath: mount.Path("ca.crt"), RequireClientCert: true}),
		"by its ..data":    load(t, tlsprops.TlsProperties{KeyStorePath: filepath.Join(mount.Dir, "..data", "tls.key"), CertStorePath: filepath.Join(mount.Dir, "..data", "tls.crt")}),
		"through links":    load(t, tlsprops.TlsProperties{KeyStorePath: filepath.Join(outside, "tls.key"), CertStorePath: filepath.Join(outside, "tls.crt")}),
		"with a file more": load(t, tlsprops.TlsProperties{KeyStorePath: mount.Path("tls.key"), CertStorePath: mount.Path("tls.crt"), TrustStorePath: p.caFile, ClientAuth: "optional"}),
	}
	for swap := range 4 {
		pair := p.ca.Server()
		mount.Swap(files(pair))
		for name, source := range sources {
			require.NoError(t, source.Reload(), name)
			assert.Equal(t, uint64(swap+2), source.Status().Generation, name)
			config, err := source.ServerConfig()
			require.NoError(t, err)
			assert.Equal(t, pair.Cert.Raw, config.Certificates[0].Certificate[0], name)
		}
	}
}

func TestOnlyFilesOutsideMountsHaveToSettle(t *testing.T) {
	p := newPKI(t)
	files := func(pair *testpki.Pair) map[string][]byte {
		return map[string][]byte{"tls.crt": pair.CertPEM(), "tls.key": pair.KeyPEM()}
	}
	mount := testpki.NewMount(t, t.TempDir(), files(p.server))
	props := tlsprops.TlsProperties{
		KeyStorePath: mount.Path("tls.key"), CertStorePath: mount.Path("tls.crt"), TrustStorePath: p.caFile, ClientAuth: "optional",
	}
	synctest.Test(t, func(t *testing.T) {
		source := load(t, props)
		took := func() time.Duration {
			start := time.Now()
			require.NoError(t, source.Reload())
			return time.Since(start)
		}
		assert.Zero(t, took(), "nothing changed")
		mount.Swap(files(p.ca.Server()))
		assert.Zero(t, took(), "the mount changed")
		write(t, p.caFile, p.ca.PEM(), p.ca.PEM())
		assert.Equal(t, 50*time.Millisecond, took(), "a plain file changed")
		assert.Equal(t, uint64(3), source.Status().Generation)
	})
}

func TestAFileThatKeepsChangingIsNotServed(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		props := p.trusting()
		props.Observe = rec.observe
		source := load(t, props)
		rec.take()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				next := write(t, p.caFile+".next", p.ca.PEM(), fmt.Appendf(nil, "# %d\n", i))
				assert.NoError(t, os.Rename(next, p.caFile))
				time.Sleep(10 * time.Millisecond)
			}
		}()
		synctest.Wait()
		assert.ErrorContains(t, source.Reload(), "change while they are read")
		assert.Equal(t, uint64(1), source.Status().Generation)
		assert.Equal(t, []tlsprops.EventKind{tlsprops.KeptOld}, kinds(rec.take()))
		cancel()
		synctest.Wait()
		require.NoError(t, source.Reload())
		assert.Equal(t, uint64(2), source.Status().Generation)
		assert.NoError(t, source.Status().Err)
	})
}

func TestAChangeIsServedWithinOneInterval(t *testing.T) {
	for _, interval := range []time.Duration{0, time.Second, 200 * time.Millisecond, time.Minute} {
		t.Run(interval.String(), func(t *testing.T) {
			p := newPKI(t)
			synctest.Test(t, func(t *testing.T) {
				props := p.listener()
				props.ReloadInterval = interval
				source := load(t, props)
				watch(t, source)
				watch(t, source) // two listeners of one source
				within := interval
				if within == 0 {
					within = 10 * time.Second
				}
				for i := range 20 {
					time.Sleep(within * time.Duration(i) / 7) // at any point of the interval
					p.ca.Server().Write(p.dir, "server")
					time.Sleep(within)
					assert.Equal(t, uint64(i+2), source.Status().Generation)
				}
			})
		})
	}
}

func TestAStormOfChangesIsAtMostOneLoadAnInterval(t *testing.T) {
	p := newPKI(t)
	mount := testpki.NewMount(t, t.TempDir(), map[string][]byte{"ca.crt": p.ca.PEM()})
	synctest.Test(t, func(t *testing.T) {
		source := load(t, tlsprops.TlsProperties{TrustStorePath: mount.Path("ca.crt")})
		watch(t, source)
		for i := range 600 { // a minute
			mount.Swap(map[string][]byte{"ca.crt": append(p.ca.PEM(), fmt.Sprintf("# %d\n", i)...)})
			time.Sleep(100 * time.Millisecond)
			require.NoError(t, source.Refresh(t.Context()))
		}
		loads := source.Status().Generation - 1
		assert.LessOrEqual(t, loads, uint64(6), "an interval is 10 s, of which a tenth may be cut")
		assert.GreaterOrEqual(t, loads, uint64(5))
	})
}

func TestANegativeIntervalReadsOnlyOnReload(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		props := p.listener()
		props.ReloadInterval = -1
		source := load(t, props)
		watch(t, source)
		p.ca.Server().Write(p.dir, "server")
		time.Sleep(24 * time.Hour)
		require.NoError(t, source.Refresh(t.Context()))
		assert.Equal(t, uint64(1), source.Status().Generation)
		require.NoError(t, source.Reload())
		assert.Equal(t, uint64(2), source.Status().Generation)
	})
}

func TestRefreshLooksOncePerIntervalAndKeepsQuietAboutBadFiles(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		source := load(t, p.known())
		p.ca.Client("renewed").Write(p.dir, "client")
		require.NoError(t, source.Refresh(t.Context()))
		assert.Equal(t, uint64(1), source.Status().Generation, "not yet")
		time.Sleep(10 * time.Second)
		require.NoError(t, source.Refresh(t.Context()))
		assert.Equal(t, uint64(2), source.Status().Generation)
		write(t, p.clientFiles.Cert)
		time.Sleep(10 * time.Second)
		require.NoError(t, source.Refresh(t.Context()), "the set before is good")
		assert.Error(t, source.Status().Err)
	})
}

func TestRefreshEndsWithItsContextAndLeavesTheWorkToTheNext(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		source := load(t, p.known())
		p.ca.Client("renewed").Write(p.dir, "client")
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, source.Refresh(ctx), context.DeadlineExceeded)
		assert.Equal(t, 20*time.Millisecond, time.Since(start))
		assert.NoError(t, source.Status().Err)
		require.NoError(t, source.Refresh(t.Context()))
		assert.Equal(t, uint64(2), source.Status().Generation)
	})
}

func TestRefreshBetweenLooksAllocatesNothing(t *testing.T) {
	source := load(t, newPKI(t).known())
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = source.Refresh(context.Background()) }))
}

func TestManyDialersMakeOneLook(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		props := p.known()
		props.Observe = rec.observe
		source := load(t, props)
		rec.take()
		p.ca.Client("renewed").Write(p.dir, "client")
		time.Sleep(10 * time.Second)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { assert.NoError(t, source.Refresh(t.Context())) })
		}
		wg.Wait()
		assert.Equal(t, []tlsprops.EventKind{tlsprops.Loaded}, kinds(rec.take()))
	})
}

func TestExpiryIsToldAt30And7And1DaysAndTheEnd(t *testing.T) {
	const day, interval = 24 * time.Hour, 10 * time.Minute
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		p.ca.Issue(testpki.Options{CommonName: "short", Hosts: []string{"localhost"}, NotAfter: time.Now().Add(40 * day)}).Write(p.dir, "server")
		props := p.mutual()
		props.Observe, props.ReloadInterval = rec.observe, interval
		source := load(t, props)
		watch(t, source)
		assert.Equal(t, []tlsprops.EventKind{tlsprops.Loaded}, kinds(rec.take()))
		start := time.Now()
		for _, left := range []time.Duration{30 * day, 7 * day, day, 0} {
			time.Sleep(40*day - left - time.Since(start) - time.Second)
			assert.Empty(t, rec.take(), "too early")
			time.Sleep(interval)
			events := rec.take()
			require.Len(t, events, 1, "once")
			assert.Equal(t, tlsprops.Expiring, events[0].Kind)
			assert.InDelta(t, left, events[0].Left, float64(interval))
			assert.Equal(t, "CN=short", events[0].Certificate.Subject)
			assert.Equal(t, tlsprops.UseLeaf, events[0].Certificate.Use)
		}
		p.ca.Issue(testpki.Options{CommonName: "next", Hosts: []string{"localhost"}, NotAfter: time.Now().Add(3 * day)}).Write(p.dir, "server")
		time.Sleep(interval)
		events := rec.take()
		assert.Equal(t, []tlsprops.EventKind{tlsprops.Loaded, tlsprops.Expiring}, kinds(events), "a short one is told on load")
		assert.Equal(t, "CN=next", events[1].Certificate.Subject)
	})
}

func TestExpiryIsWatchedWithoutPolling(t *testing.T) {
	p := newPKI(t)
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		old := testpki.NewCAWith(t, testpki.Options{CommonName: "Old CA", NotAfter: time.Now().Add(8 * 24 * time.Hour)})
		write(t, p.caFile, p.ca.PEM(), old.PEM())
		props := p.trusting()
		props.Observe, props.ReloadInterval = rec.observe, -1
		watch(t, load(t, props))
		assert.Equal(t, []tlsprops.EventKind{tlsprops.Loaded, tlsprops.Expiring}, kinds(rec.take()))
		time.Sleep(26 * time.Hour)
		events := rec.take()
		require.Len(t, events, 1)
		assert.Equal(t, tlsprops.UseCA, events[0].Certificate.Use)
	})
}

func TestConfigurationsStayValidWhenNobodyWatchesAnyMore(t *testing.T) {
	p := newPKI(t)
	source := load(t, p.mutual())
	config, err := source.ServerConfig()
	require.NoError(t, err)
	client := clientConfig(t, p.known(), "localhost")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	source.Watch(ctx)
	require.NoError(t, os.RemoveAll(p.dir))
	require.Error(t, source.Reload())
	serverSide, _ := handshake(config, client)
	assert.NoError(t, serverSide.err)
}

func TestAnObserverMayUseTheSource(t *testing.T) {
	p := newPKI(t)
	var source *tlsprops.Source
	var generations []uint64
	props := p.listener()
	props.Observe = func(e tlsprops.Event) {
		if source != nil && e.Kind == tlsprops.Loaded {
			generations = append(generations, source.Status().Generation)
			assert.NoError(t, source.Reload())
		}
	}
	source = load(t, props)
	p.ca.Server().Write(p.dir, "server")
	require.NoError(t, source.Reload())
	assert.Equal(t, []uint64{2}, generations)
}

// connection makes a connection and returns a check that it still works.
func connection(t *testing.T, server, client *tls.Config) (check func() error, err error) {
	t.Helper()
	near, far := memnet.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	done := serve(far, server)
	conn, err := connect(near, client)
	if err != nil {
		return nil, err
	}
	require.NoError(t, (<-done).err)
	return func() error {
		_, err := conn.Write([]byte("still here"))
		return err
	}, nil
}
