package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/cluster"
)

// lines is the text of a file of secrets.
func lines(secrets ...cluster.Secret) string {
	var b strings.Builder
	for _, s := range secrets {
		b.WriteString(string(s) + "\n")
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// fromFile returns an Auth with a file of secrets, and its events.
func fromFile(t *testing.T, text string) (auth *cluster.Auth, path string, seen *journal) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "secret")
	write(t, path, text)
	seen = &journal{}
	return &cluster.Auth{Node: "node-b", SecretFile: path, Observe: seen.observe}, path, seen
}

// passes reports whether the plain header with a secret is let in.
func passes(t *testing.T, h http.Handler, s cluster.Secret) bool {
	t.Helper()
	return give(h, withSecret(post(t, "{}"), string(s))).Code == http.StatusOK
}

func TestAFileOfSecrets(t *testing.T) {
	for name, test := range map[string]struct {
		text     string
		accepted []cluster.Secret // the first is sent
		fault    string
	}{
		"one":               {string(secretA), []cluster.Secret{secretA}, ""},
		"one line":          {lines(secretA), []cluster.Secret{secretA}, ""},
		"several":           {lines(secretB, secretA, secretC), []cluster.Secret{secretB, secretA, secretC}, ""},
		"comments":          {"# of June\n\n  # next\n" + lines(secretA) + "\n\n", []cluster.Secret{secretA}, ""},
		"from Windows":      {"\ufeff" + string(secretA) + "\r\n" + string(secretB) + "\r\n", []cluster.Secret{secretA, secretB}, ""},
		"one twice":         {lines(secretA, secretB, secretA), []cluster.Secret{secretA, secretB}, ""},
		"empty":             {"", nil, "no secret"},
		"comments alone":    {"# none yet\n", nil, "no secret"},
		"a weak one":        {lines(secretA, "changeme"), nil, "secret 2 of 2"},
		"UTF-16":            {"\xff\xfeq\x00", nil, "UTF-16"},
		"too many":          {strings.Repeat(lines(secretA), 9), nil, "too many"},
		"too large":         {strings.Repeat("#\n", 40<<10), nil, "more than 65536 bytes"},
		"one in two halves": {string(secretA[:30]) + "\n" + string(secretA[30:]), nil, "secret 1 of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			auth, _, _ := fromFile(t, test.text)
			err := auth.Validate()
			h := auth.Handler(&echo{})
			status := auth.Status()
			for _, s := range []cluster.Secret{secretA, secretB, secretC} {
				accepted := false
				for _, want := range test.accepted {
					accepted = accepted || string(want) == string(s)
				}
				assert.Equal(t, accepted, passes(t, h, s))
			}
			if test.fault == "" {
				require.NoError(t, err)
				assert.Len(t, status.Accepted, len(test.accepted))
				assert.EqualValues(t, 1, status.Generation)
				assert.Equal(t, status.Accepted[0], status.KeyID)
				return
			}
			field, ok := errors.AsType[*cluster.FieldError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, "secretFile", field.Field)
			assert.Equal(t, auth.SecretFile, field.Path)
			assert.ErrorContains(t, err, test.fault)
			assert.NotContains(t, err.Error(), string(secretA[:12]))
			assert.Zero(t, status.Generation)
		})
	}
}

func TestAFileIsReadAgainWithinTheInterval(t *testing.T) {
	for name, replace := range map[string]func(t *testing.T, path, text string){
		"written in place": write,
		"renamed": func(t *testing.T, path, text string) {
			write(t, path+".new", text)
			require.NoError(t, os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				auth, path, seen := fromFile(t, lines(secretA))
				require.NoError(t, auth.Validate())
				h := auth.Handler(&echo{})
				seen.take()
				require.True(t, passes(t, h, secretA))

				replace(t, path, lines(secretB))
				time.Sleep(9 * time.Second)
				assert.False(t, passes(t, h, secretB), "looked too early")
				time.Sleep(time.Second)
				begun := time.Now()
				assert.True(t, passes(t, h, secretB))
				assert.Equal(t, 50*time.Millisecond, time.Since(begun))
				assert.False(t, passes(t, h, secretA))

				var loaded []cluster.Event
				for _, e := range seen.take() {
					if e.Kind == cluster.Loaded {
						loaded = append(loaded, e)
					}
				}
				require.Len(t, loaded, 1)
				assert.EqualValues(t, 2, loaded[0].Generation)
				assert.Equal(t, auth.Status().KeyID, loaded[0].KeyID)
				assert.Equal(t, auth.Status().Accepted, loaded[0].Accepted)

				begun = time.Now()
				time.Sleep(time.Minute)
				assert.True(t, passes(t, h, secretB))
				assert.Equal(t, time.Minute, time.Since(begun), "an unchanged file is not waited for")
			})
		})
	}
}

func TestAKubernetesMountIsFollowed(t *testing.T) {
	dir := t.TempDir()
	for version, s := range map[string]cluster.Secret{"..1": secretA, "..2": secretB} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version, "cluster-secret"), string(s))
	}
	require.NoError(t, os.Symlink("..1", filepath.Join(dir, "..data")))
	require.NoError(t, os.Symlink("..data/cluster-secret", filepath.Join(dir, "cluster-secret")))
	auth := &cluster.Auth{Node: "node-b", SecretFile: filepath.Join(dir, "cluster-secret"), ReloadInterval: -1}
	require.NoError(t, auth.Validate())
	h := auth.Handler(&echo{})
	assert.True(t, passes(t, h, secretA))

	require.NoError(t, os.Symlink("..2", filepath.Join(dir, "..new")))
	require.NoError(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	assert.False(t, passes(t, h, secretB), "with a negative interval only Reload looks")
	require.NoError(t, auth.Reload())
	assert.True(t, passes(t, h, secretB))
}

func TestAFileThatCannotBeUsedKeepsTheSecretsBefore(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"emptied":     func(t *testing.T, path string) { write(t, path, "") },
		"removed":     func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
		"half a line": func(t *testing.T, path string) { write(t, path, string(secretB[:20])) },
		"placeholder": func(t *testing.T, path string) { write(t, path, "your-strong-random-secret-here") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				auth, path, seen := fromFile(t, lines(secretA))
				require.NoError(t, auth.Validate())
				h := auth.Handler(&echo{})
				seen.take()
				spoil(t, path)
				for range 5 {
					time.Sleep(time.Minute)
					assert.True(t, passes(t, h, secretA))
				}
				var kept int
				for _, e := range seen.take() {
					if e.Kind == cluster.KeptOld {
						kept++
						assert.EqualValues(t, 1, e.Generation)
						assert.Error(t, e.Err)
						assert.Equal(t, e.Err, auth.Status().Err)
					}
				}
				assert.Equal(t, 1, kept, "one event for one content")

				write(t, path, lines(secretA))
				time.Sleep(time.Minute)
				assert.True(t, passes(t, h, secretA))
				assert.NoError(t, auth.Status().Err)
				assert.EqualValues(t, 1, auth.Status().Generation)
			})
		})
	}
}

func TestAFileThatComesLateIsFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		auth, path, _ := fromFile(t, "")
		require.NoError(t, os.Remove(path))
		require.ErrorIs(t, auth.Validate(), os.ErrNotExist)
		h := auth.Handler(&echo{})
		assert.False(t, passes(t, h, secretA))
		write(t, path, lines(secretA))
		time.Sleep(10 * time.Second)
		assert.True(t, passes(t, h, secretA))
		assert.NoError(t, auth.Validate())
	})
}

// A node that nobody asked for hours must not refuse the first requests after a
// rotation, although they come at once and only one of them reads the file.
func TestTheFirstRequestsAfterALongSilenceAllSeeTheNewSecret(t *testing.T) {
	bubble(t, func(t *testing.T) {
		auth, path, _ := fromFile(t, lines(secretA))
		require.NoError(t, auth.Validate())
		h := auth.Handler(&echo{})
		sender := &cluster.Auth{Node: "node-a", Secret: secretB}
		write(t, path, lines(secretB))
		time.Sleep(5 * time.Hour)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if i%2 == 0 {
					assert.True(t, passes(t, h, secretB))
				} else {
					assert.Equal(t, http.StatusOK, give(h, signed(t, sender, "{}")).Code)
				}
			})
		}
		wg.Wait()
	})
}

func TestAFileIsNotUsedWhileItIsWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		auth, path, _ := fromFile(t, lines(secretA))
		require.NoError(t, auth.Validate())
		h := auth.Handler(&echo{})
		time.Sleep(time.Hour)
		// A long secret, of which the first part is a good secret too.
		part := string(secretB) + string(secretC[:20])
		write(t, path, part[:40])
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(30 * time.Millisecond)
			write(t, path, part)
		})
		assert.True(t, passes(t, h, cluster.Secret(part)))
		assert.EqualValues(t, 2, auth.Status().Generation)
		wg.Wait()

		stop := make(chan struct{}) // and one that never settles
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					write(t, path, lines(secretA)+fmt.Sprintf("# %d\n", n))
				}
			}
		})
		time.Sleep(time.Minute)
		assert.False(t, passes(t, h, secretA))
		assert.ErrorContains(t, auth.Status().Err, "while it is read")
		close(stop)
		wg.Wait()
		time.Sleep(time.Minute)
		assert.True(t, passes(t, h, secretA))
	})
}

func TestSecretsFromElsewhereAreReplacedAtOnce(t *testing.T) {
	auth := &cluster.Auth{Node: "node-b"}
	require.ErrorIs(t, auth.Validate(), cluster.ErrNoSecret)
	h := auth.Handler(&echo{})
	assert.False(t, passes(t, h, secretA))

	require.NoError(t, auth.SetSecrets(secretA, secretB))
	require.NoError(t, auth.Validate())
	assert.True(t, passes(t, h, secretA))
	assert.True(t, passes(t, h, secretB))

	require.NoError(t, auth.SetSecrets(secretB))
	assert.False(t, passes(t, h, secretA))
	assert.EqualValues(t, 2, auth.Status().Generation)

	require.ErrorIs(t, auth.SetSecrets(""), cluster.ErrNoSecret)
	require.ErrorIs(t, auth.SetSecrets("changeme"), cluster.ErrWeakSecret)
	assert.True(t, passes(t, h, secretB), "a refused change leaves the secrets as they are")
	require.NoError(t, auth.Validate())

	require.Error(t, auth.Reload(), "there is no file")
	file, _, _ := fromFile(t, lines(secretA))
	require.Error(t, file.SetSecrets(secretB))
	require.Error(t, (&cluster.Auth{}).SetSecrets(secretA))
	require.Error(t, (&cluster.Auth{}).Reload())
}

func TestObserveMayCallMethods(t *testing.T) {
	bubble(t, func(t *testing.T) {
		auth, path, _ := fromFile(t, lines(secretA))
		var generations []uint64
		auth.Observe = func(e cluster.Event) {
			if e.Kind == cluster.Loaded {
				generations = append(generations, auth.Status().Generation)
				assert.NoError(t, auth.Reload())
			}
		}
		require.NoError(t, auth.Validate())
		h := auth.Handler(&echo{})
		write(t, path, lines(secretB))
		time.Sleep(time.Minute)
		assert.True(t, passes(t, h, secretB))
		assert.Equal(t, []uint64{1, 2}, generations)
	})
}

// TestTheSecretIsChangedOverThreeNodesWithoutAFailure writes the files of three
// nodes one after the other, in the three steps of the package's documentation,
// while every node sends to every other all the time, and shows that a node left
// behind is seen by the ID of its secret.
func TestTheSecretIsChangedOverThreeNodesWithoutAFailure(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain %t", plain), func(t *testing.T) {
			bubble(t, func(t *testing.T) { rotate(t, plain) })
		})
	}
}

func rotate(t *testing.T, plain bool) {
	const size = 3
	var (
		nodes   [size]*cluster.Auth
		files   [size]string
		seen    [size]*journal
		clients [size]*http.Client
	)
	for i := range size {
		nodes[i], files[i], seen[i] = fromFile(t, lines(secretA))
		nodes[i].Node = fmt.Sprintf("node-%d", i)
		nodes[i].PlainHeader = plain
		require.NoError(t, nodes[i].Validate())
		clients[i] = serve(t, nodes[i].Handler(&echo{}))
	}
	oldID := nodes[0].Status().KeyID

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent, failures := 0, []string(nil) // guarded by mu
	for from := range size {
		for to := range size {
			if from == to {
				continue
			}
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(200 * time.Millisecond):
					}
					resp, err := nodes[from].Do(clients[to], atLoopback(post(t, "{}")), nodes[to].Node)
					mu.Lock()
					sent++
					switch {
					case err != nil:
						failures = append(failures, err.Error())
					case resp.StatusCode != http.StatusOK:
						failures = append(failures, resp.Status)
					}
					mu.Unlock()
					if err == nil {
						resp.Body.Close()
					}
				}
			})
		}
	}
	// behind returns the nodes that sent the old secret since the last call.
	behind := func() map[int]bool {
		late := make(map[int]bool)
		for i := range size {
			seen[i].take()
		}
		time.Sleep(5 * time.Second)
		for i := range size {
			for _, e := range seen[i].take() {
				if e.Kind != cluster.Accepted || e.KeyID != oldID {
					continue
				}
				for from := range size {
					if e.Node == nodes[from].Node || plain && from != i {
						late[from] = true
					}
				}
			}
		}
		return late
	}

	time.Sleep(15 * time.Second)
	assert.Len(t, behind(), size, "all send the old one")
	for _, step := range []string{lines(secretA, secretB), lines(secretB, secretA)} {
		for i := range size {
			if !plain && step == lines(secretB, secretA) && i == size-1 {
				// Before the last node has the second step, it is seen to be behind.
				assert.Equal(t, map[int]bool{size - 1: true}, behind())
			}
			write(t, files[i], step)
			time.Sleep(12 * time.Second) // each node within its interval, and no two at once
		}
	}
	assert.Empty(t, behind(), "nobody sends the old one any more")
	for i := range size {
		write(t, files[i], lines(secretB))
		time.Sleep(12 * time.Second)
	}
	assert.Empty(t, behind())
	close(stop)
	wg.Wait()
	assert.Empty(t, failures)
	assert.Greater(t, sent, 2000)
	for i := range size {
		assert.Len(t, nodes[i].Status().Accepted, 1)
		assert.NotEqual(t, oldID, nodes[i].Status().KeyID)
	}
}

// The positive control of the test above: without the first step requests fail.
func TestChangingTheSecretInOneStepFailsRequests(t *testing.T) {
	a, b, _ := pair(t)
	client := serve(t, b.Handler(&echo{}))
	require.NoError(t, a.SetSecrets(secretB, secretA))
	_, _, _, err := do(t, a, client, atLoopback(post(t, "{}")))
	require.ErrorIs(t, err, cluster.ErrUnverified)
	require.NoError(t, b.SetSecrets(secretB))
	_, _, _, err = do(t, a, client, atLoopback(post(t, "{}")))
	require.NoError(t, err)
}
