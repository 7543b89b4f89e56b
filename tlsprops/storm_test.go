package tlsprops_test

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// The storm: a writer replaces certificate, key and CA every few hundred
// microseconds, while handshakes with client certificates go on without pause.
// Each generation has a CA of its own that issued its certificates, and its
// number is in the names of all, so that a set of mixed generations shows: in
// the handshake, where the client sees the server's leaf and the name of the CA
// that it accepts, and in the configuration of a client.

// issue is one generation, as files and as the client that fits it.
type issue struct {
	name   string
	ca     *testpki.Authority
	client tls.Certificate
	files  map[string][]byte // ca.crt, tls.crt, tls.key
}

// stormIssues are written over and over; two passes never write the same bytes,
// because a comment with a counter is added.
func stormIssues(t *testing.T, n int) []issue {
	t.Helper()
	issues := make([]issue, n)
	for i := range issues {
		name := fmt.Sprintf("gen-%d", i)
		ca := testpki.NewCA(t, name)
		pair := ca.Issue(testpki.Options{CommonName: name, Hosts: []string{"localhost"}})
		issues[i] = issue{name, ca, ca.Client(name).TLS(), map[string][]byte{
			"ca.crt": ca.PEM(), "tls.crt": pair.CertPEM(), "tls.key": pair.KeyPEM(),
		}}
	}
	return issues
}

// numbered returns the files of the issue, made unlike those of any other pass.
func (is issue) numbered(pass int) map[string][]byte {
	files := make(map[string][]byte, len(is.files))
	for name, data := range is.files {
		files[name] = append(append([]byte(nil), data...), fmt.Sprintf("# pass %d\n", pass)...)
	}
	return files
}

// stormHandshakes is set by who has minutes: go test ./tlsprops -run Mixed -storm-handshakes 10000
var stormHandshakes = flag.Int64("storm-handshakes", 1, "least handshakes while each writer of the storm is at work")

// settleTime is how long a plain file must stay the same, as documented.
const settleTime = 50 * time.Millisecond

// writers replace the files of dir; each returns how to write one generation.
var writers = map[string]func(t *testing.T, dir string, first map[string][]byte) func(files map[string][]byte){
	"swaps ..data": func(t *testing.T, dir string, first map[string][]byte) func(map[string][]byte) {
		return testpki.NewMount(t, dir, first).Swap
	},
	"renames": func(t *testing.T, dir string, first map[string][]byte) func(map[string][]byte) {
		replace := func(files map[string][]byte) {
			for name, data := range files {
				next := filepath.Join(dir, "."+name)
				if err := os.WriteFile(next, data, 0o600); err != nil {
					t.Error(err)
				}
				if err := os.Rename(next, filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
			}
		}
		replace(first)
		return replace
	},
	"rewrites in place": func(t *testing.T, dir string, first map[string][]byte) func(map[string][]byte) {
		rewrite := func(files map[string][]byte) {
			for name, data := range files {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Error(err)
				}
			}
		}
		rewrite(first)
		return rewrite
	},
}

// storm is what goes on during one writer's subtest.
type storm struct {
	issues  map[string]issue
	server  *tlsprops.Source
	client  *tlsprops.Source
	config  *tls.Config
	done    atomic.Bool // everything ends
	stopped atomic.Bool // the writer has
	stalled sync.Map    // names of issues during whose writing the machine stood still

	handshakes, failed atomic.Int64
	mixed              sync.Map // each mix that was served
	seen               sync.Map // generation numbers of the server's source
}

// handshakeOnce makes one handshake and sees whether its set belongs together.
func (s *storm) handshakeOnce(t *testing.T) string {
	var leaf, ca string
	client := &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // verified below, against the CA that the server names
		GetClientCertificate: func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(r.AcceptableCAs) != 1 {
				return nil, fmt.Errorf("%d acceptable CAs", len(r.AcceptableCAs))
			}
			for name, is := range s.issues {
				if string(is.ca.Cert.RawSubject) == string(r.AcceptableCAs[0]) {
					ca = name
					return &is.client, nil
				}
			}
			return nil, fmt.Errorf("a CA that nobody wrote")
		},
	}
	serverSide, clientSide := handshake(s.config, client)
	s.handshakes.Add(1)
	if serverSide.err != nil || clientSide.err != nil {
		s.failed.Add(1)
		t.Errorf("handshake: server %v, client %v", serverSide.err, clientSide.err)
		return ""
	}
	leaf = clientSide.state.PeerCertificates[0].Subject.CommonName
	s.compare("server", leaf, ca)
	return leaf
}

// clientOnce sees whether the set of a client belongs together.
func (s *storm) clientOnce(t *testing.T) string {
	config, err := s.client.ClientConfig("localhost")
	if err != nil {
		t.Error(err)
		return ""
	}
	cert, err := config.GetClientCertificate(&tls.CertificateRequestInfo{
		Version: tls.VersionTLS13, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
	})
	if err != nil {
		t.Error(err)
		return ""
	}
	_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: config.RootCAs})
	leaf, ca := cert.Leaf.Subject.CommonName, cert.Leaf.Subject.CommonName
	if err != nil {
		ca = "another"
	}
	s.compare("client", leaf, ca)
	return leaf
}

// compare notes a set of mixed generations.
func (s *storm) compare(role, leaf, ca string) {
	if leaf != ca {
		s.mixed.Store(mix{role, leaf, ca}, true)
	}
}

// mix is a set of mixed generations.
type mix struct{ role, leaf, ca string }

// mixedSets returns the mixed sets that were served. Files outside a mount that
// stood half replaced for longer than the settling time, because the machine
// held up the writer between two files, cannot be told from finished ones. Such
// a set is not counted, but the writer has to have seen the delay.
func (s *storm) mixedSets() []mix {
	var all []mix
	s.mixed.Range(func(key, _ any) bool {
		m := key.(mix)
		_, leafStood := s.stalled.Load(m.leaf)
		_, caStood := s.stalled.Load(m.ca)
		if !leafStood && !caStood {
			all = append(all, m)
		}
		return true
	})
	return all
}

// naiveOnce reads the files one by one, as a program without tlsprops does, and
// tells whether they did not belong together. It is the control: the storm must
// be one in which that happens.
func naiveOnce(dir string) bool {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return true
	}
	roots := x509.NewCertPool()
	data, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(data) {
		return true
	}
	_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: roots})
	return err != nil
}

func TestNoWriterMakesASourceServeAMixedSet(t *testing.T) {
	var naive atomic.Int64
	for name, writer := range writers {
		t.Run(name, func(t *testing.T) {
			issues := stormIssues(t, 64)
			dir := t.TempDir()
			write := writer(t, dir, issues[0].numbered(0))
			const interval = time.Second
			props := tlsprops.TlsProperties{
				KeyStorePath: filepath.Join(dir, "tls.key"), CertStorePath: filepath.Join(dir, "tls.crt"),
				TrustStorePath: filepath.Join(dir, "ca.crt"), ReloadInterval: interval,
			}
			s := &storm{issues: make(map[string]issue), client: load(t, props)}
			for _, is := range issues {
				s.issues[is.name] = is
			}
			props.RequireClientCert = true
			s.server = load(t, props)
			var err error
			s.config, err = s.server.ServerConfig()
			require.NoError(t, err)
			watch(t, s.server)
			watch(t, s.client)

			var wg sync.WaitGroup
			defer func() { s.done.Store(true); wg.Wait() }()
			loop := func(f func()) {
				wg.Go(func() {
					for !s.done.Load() {
						f()
					}
				})
			}
			loop(func() { s.handshakeOnce(t) })
			loop(func() {
				if naiveOnce(dir) {
					naive.Add(1)
				}
				time.Sleep(time.Millisecond)
			})
			loop(func() { s.clientOnce(t); time.Sleep(100 * time.Microsecond) })
			loop(func() {
				if s.stopped.Load() {
					time.Sleep(time.Millisecond)
					return
				}
				_ = s.server.Reload() // kept sets are what this is about
				s.seen.Store(s.server.Status().Generation, true)
			})

			generations := func() (n int) {
				s.seen.Range(func(any, any) bool { n++; return true })
				return n
			}
			want := 0 // generations to be seen
			if strings.Contains(name, "..data") {
				want = 100
			}
			written := 0
			var last issue
			// Two seconds, or longer on a machine that is busy with other things.
			most := patience + time.Duration(*stormHandshakes)*20*time.Millisecond
			enough := func() bool { return generations() >= want && s.handshakes.Load() >= *stormHandshakes }
			for start := time.Now(); time.Since(start) < 2*time.Second || !enough() && time.Since(start) < most; written++ {
				last = issues[written%len(issues)]
				began := time.Now()
				write(last.numbered(written))
				if time.Since(began) >= settleTime {
					s.stalled.Store(last.name, true)
				}
				time.Sleep(200 * time.Microsecond)
			}
			during := s.handshakes.Load()
			s.stopped.Store(true)
			stopped := time.Now()

			// From here on the watchers alone must find the last set. That they do so
			// within one interval is shown elsewhere, where time stands still while the
			// machine does other things.
			require.Eventually(t, func() bool {
				return s.clientOnce(t) == last.name && s.handshakeOnce(t) == last.name
			}, 10*time.Second, 5*time.Millisecond)
			took := time.Since(stopped)
			s.done.Store(true)
			wg.Wait()

			t.Logf("%d sets written, %d generations served, %d handshakes, last set after %v of %v",
				written, generations(), s.handshakes.Load(), took.Round(time.Millisecond), interval)
			assert.Zero(t, s.failed.Load(), "failed handshakes")
			assert.Empty(t, s.mixedSets(), "mixed sets")
			assert.GreaterOrEqual(t, during, *stormHandshakes, "handshakes while the writer was at work")
			assert.GreaterOrEqual(t, generations(), want, "generations seen")
		})
	}
	assert.Positive(t, naive.Load(), "reading the files one by one, sets that do not belong together")
}
