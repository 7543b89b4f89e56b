package sealed_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/sealed"
	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
	"github.com/carewire/carewire/examples/engine/internal/store/storetest"
	"github.com/carewire/carewire/internal/leakcheck"
)

func TestMain(m *testing.M) { leakcheck.Main(m) }

// secret is a key as a file has it, without its id.
func secret() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:])
	return base64.StdEncoding.EncodeToString(raw[:])
}

func keys(t testing.TB, text string) sealed.Keys {
	t.Helper()
	k, err := sealed.ParseKeys(text)
	require.NoError(t, err)
	return k
}

// open opens a sealed store in dir, for the rest of the test unless it is closed before.
func open(t testing.TB, dir string, k sealed.Keys, opts sealed.Options) store.Store {
	t.Helper()
	st, err := try(t, dir, k, opts)
	require.NoError(t, err)
	t.Cleanup(func() { st.Close() })
	return st
}

func try(t testing.TB, dir string, k sealed.Keys, opts sealed.Options) (store.Store, error) {
	t.Helper()
	inner, err := sqlite.Open(context.Background(), dir, &sqlite.Options{Reserve: -1})
	require.NoError(t, err)
	st, err := sealed.Open(context.Background(), inner, k, opts)
	if err != nil {
		require.NoError(t, inner.Close())
	}
	return st, err
}

func TestConformance(t *testing.T) {
	k := keys(t, "a:"+secret())
	storetest.Run(t, func(t *testing.T) func() (store.Store, error) {
		dir := t.TempDir()
		return func() (store.Store, error) {
			inner, err := sqlite.Open(t.Context(), dir, &sqlite.Options{Reserve: -1})
			require.NoError(t, err)
			return sealed.Open(t.Context(), inner, k, sealed.Options{RefuseUnsealed: true})
		}
	})
}

const marker = "PIDMARKER^OF^SOMEBODY"

func example(controlID string) store.Intake {
	return store.Intake{
		Channel: "c", ControlID: controlID, Raw: []byte("MSH|" + marker), Destinations: []string{"d"},
		Source: store.NewSource(map[string]string{"remoteAddress": marker}),
	}
}

func take(t testing.TB, st store.Store, in store.Intake) int64 {
	t.Helper()
	id, err := st.Intake(context.Background(), in)
	require.NoError(t, err)
	return id
}

func pending(t testing.TB, st store.Store) []store.Delivery {
	t.Helper()
	list, err := st.Pending(context.Background(), "c", "d", 0, 100)
	require.NoError(t, err)
	return list
}

func TestNothingOfTheContentIsOnTheDisk(t *testing.T) {
	dir, in := t.TempDir(), example("1")
	st := open(t, dir, keys(t, "a:"+secret()), sealed.Options{})
	for range 5 {
		take(t, st, in)
	}
	look := func(want bool) {
		files, err := filepath.Glob(filepath.Join(dir, "engine.db*"))
		require.NoError(t, err)
		found := false
		for _, file := range files {
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			found = found || bytes.Contains(content, []byte(marker))
		}
		assert.Equal(t, want, found)
	}
	look(false)
	assert.Equal(t, in.Raw, pending(t, st)[4].Message.Raw)
	assert.Equal(t, in.Source, pending(t, st)[4].Message.Source)
	require.NoError(t, st.Close())
	look(false)

	plain := t.TempDir()
	dir = plain
	st = open(t, dir, sealed.Keys{}, sealed.Options{})
	take(t, st, in)
	look(true) // the control
}

func TestKeysAreExchangedAndOldOnesRunOut(t *testing.T) {
	dir, a, b := t.TempDir(), "a:"+secret(), "b:"+secret()
	st := open(t, dir, sealed.Keys{}, sealed.Options{})
	take(t, st, example("unsealed"))
	require.NoError(t, st.Close())

	st = open(t, dir, keys(t, a), sealed.Options{})
	take(t, st, example("of a"))
	require.NoError(t, st.Close())
	_, err := try(t, dir, sealed.Keys{}, sealed.Options{})
	require.ErrorContains(t, err, `sealed with the key "a": give it, too, in encryption.keyFile or MIRTH_ENCRYPTION_KEY`)
	_, err = try(t, dir, keys(t, b), sealed.Options{})
	require.ErrorContains(t, err, `the key "a"`)
	_, err = try(t, dir, keys(t, "a:"+secret()), sealed.Options{})
	require.ErrorContains(t, err, `the key "a" in encryption.keyFile or MIRTH_ENCRYPTION_KEY is not the one`)

	st = open(t, dir, keys(t, b+","+a), sealed.Options{})
	last := take(t, st, example("of b"))
	list := pending(t, st)
	require.Len(t, list, 3)
	for i := range list {
		assert.Equal(t, example("").Raw, list[i].Message.Raw)
		assert.Equal(t, example("").Source, list[i].Message.Source)
		require.NoError(t, st.Delivered(t.Context(), &list[i]))
	}
	found, err := st.Find(t.Context(), "c", store.Filter{}, 0, 10)
	require.NoError(t, err)
	for _, m := range found {
		assert.Equal(t, int64(len(example("").Raw)), m.Bytes, "as it came in")
		assert.Equal(t, example("").Source, m.Source)
	}
	m, err := st.Message(t.Context(), "c", last)
	require.NoError(t, err)
	for p := (store.Pruning{Before: m.Received}); ; {
		done, err := st.Prune(t.Context(), "c", p)
		require.NoError(t, err)
		if p.After = done.Next; done.Next == 0 {
			break
		}
	}
	require.NoError(t, st.Close())
	st = open(t, dir, keys(t, b), sealed.Options{}) // a is not needed any more
	m, err = st.Message(t.Context(), "c", last)
	require.NoError(t, err)
	assert.Equal(t, example("").Raw, m.Raw)
}

// tampered says how the database is changed behind the engine's back. Message 1 is the
// one whose delivery must not go out; all have the same content.
var tampered = map[string]string{
	"a bit of the payload":                 `UPDATE message SET raw = CAST(substr(raw, 1, 20) || CASE substr(raw, 21, 1) WHEN x'00' THEN x'01' ELSE x'00' END || substr(raw, 22) AS BLOB) WHERE id = 1`,
	"the payload cut":                      `UPDATE message SET raw = substr(raw, 1, length(raw) - 1) WHERE id = 1`,
	"no payload":                           `UPDATE message SET raw = x'' WHERE id = 1`,
	"another's payload":                    `UPDATE message SET raw = (SELECT raw FROM message WHERE id = 2) WHERE id = 1`,
	"another's payload and source map":     `UPDATE message SET (raw, source) = (SELECT raw, source FROM message WHERE id = 2) WHERE id = 1`,
	"of another channel":                   `UPDATE message SET (raw, source) = (SELECT raw, source FROM message WHERE id = 3) WHERE id = 1`,
	"the control id":                       `UPDATE message SET control_id = x'39' WHERE id = 1`,
	"the key's id":                         `UPDATE message SET source = replace(source, ':a:', ':z:') WHERE id = 1`,
	"the source map cut":                   `UPDATE message SET source = substr(source, 1, 40) WHERE id = 1`,
	"the source map's text":                `UPDATE message SET source = substr(source, 1, 80) || 'AAAA' || substr(source, 85) WHERE id = 1`,
	"the payload in place of a source map": `UPDATE message SET source = 'sealed1:a:' WHERE id = 1`,
	"unsealed":                             `UPDATE message SET source = NULL, raw = x'4d5348' WHERE id = 1`,
}

func TestWhatWasTamperedWithIsSetAsideAndNeverSent(t *testing.T) {
	for name, change := range tampered {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, k := t.TempDir(), keys(t, "a:"+secret())
			st := open(t, dir, k, sealed.Options{})
			take(t, st, example("1"))
			take(t, st, example("2"))
			other := example("1")
			other.Channel = "other"
			take(t, st, other)
			require.NoError(t, st.Close())
			db, err := sql.Open("sqlite", filepath.Join(dir, "engine.db"))
			require.NoError(t, err)
			result, err := db.ExecContext(t.Context(), change)
			require.NoError(t, err)
			changed, err := result.RowsAffected()
			require.NoError(t, err)
			require.EqualValues(t, 1, changed)
			require.NoError(t, db.Close())

			var log bytes.Buffer
			st = open(t, dir, k, sealed.Options{RefuseUnsealed: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			list := pending(t, st)
			require.Len(t, list, 1, "the next one is not held up")
			assert.Equal(t, "2", list[0].Message.ControlID)
			assert.Equal(t, example("").Raw, list[0].Message.Raw)
			assert.Contains(t, log.String(), "set aside")
			assert.NotContains(t, log.String(), marker)

			dead, err := st.DeadLetters(t.Context(), "c", "d", 0, 10)
			require.NoError(t, err)
			require.Len(t, dead, 1)
			assert.Nil(t, dead[0].Message.Raw)
			assert.True(t, strings.HasPrefix(dead[0].LastError, store.ErrTampered.Error()), dead[0].LastError)
			_, err = st.Message(t.Context(), "c", dead[0].Message.ID)
			require.ErrorIs(t, err, store.ErrTampered)
			stats, err := st.Stats(t.Context(), "c")
			require.NoError(t, err)
			assert.Equal(t, []int64{1, 1}, []int64{stats.Queued, stats.Error})

			// Put back into its queue, it comes back out.
			_, err = st.Requeue(t.Context(), dead[0].Seq)
			require.NoError(t, err)
			assert.Len(t, pending(t, st), 1)
			require.NoError(t, st.Delivered(t.Context(), &list[0]))
			assert.Empty(t, pending(t, st))
		})
	}
}

func TestUnsealedIsReadableUntilThatIsRefused(t *testing.T) {
	dir, k := t.TempDir(), keys(t, "a:"+secret())
	in := example("1")
	in.Source = store.NewSource(map[string]string{"note": "sealed1:a:x"}) // a sender may say what it likes
	st := open(t, dir, sealed.Keys{}, sealed.Options{})
	id := take(t, st, in)
	require.NoError(t, st.Close())
	st = open(t, dir, k, sealed.Options{})
	m, err := st.Message(t.Context(), "c", id)
	require.NoError(t, err)
	assert.Equal(t, in.Raw, m.Raw)
	require.NoError(t, st.Close())
	st = open(t, dir, k, sealed.Options{RefuseUnsealed: true})
	_, err = st.Message(t.Context(), "c", id)
	require.ErrorIs(t, err, store.ErrTampered)
	assert.Empty(t, pending(t, st))
}

func TestKeysThatAreNoneAreRefusedWithoutShowingThem(t *testing.T) {
	good := secret()
	path := filepath.Join(t.TempDir(), "keys")
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":                {"\n# none\n", "has no key"},
		"no id":                  {good, "line 1: write ID:BASE64"},
		"an id with more":        {"\na b:" + good, "line 2: write ID:BASE64"},
		"no base64":              {"a:" + good + "!", "line 1: is not 32 random bytes"},
		"too short":              {"a:" + base64.StdEncoding.EncodeToString([]byte(marker)[:16]), "line 1: is not 32 random bytes"},
		"all the same":           {"a:" + base64.StdEncoding.EncodeToString(make([]byte, 32)), "line 1: is not 32 random bytes"},
		"one id for two":         {"a:" + good + "\na:" + secret(), "line 2: another has the same id"},
		"no end":                 {strings.Repeat("#", 70_000), "longer than"},
		"without an end of keys": {strings.Repeat("a:x\n", 10), "line 1"},
	} {
		require.NoError(t, os.WriteFile(path, []byte(tt.text), 0o600))
		_, err := sealed.ReadKeys(path)
		require.ErrorContains(t, err, tt.want, name)
		assert.NotContains(t, err.Error(), good[:8], name)
	}
	require.NoError(t, os.WriteFile(path, []byte("# of 2026\na:"+good+"\r\n\nb:"+secret()), 0o600))
	k, err := sealed.ReadKeys(path)
	require.NoError(t, err)
	raw, err := base64.StdEncoding.DecodeString(good)
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		text := fmt.Sprintf(verb, k)
		assert.NotContains(t, text, good[:8])
		assert.NotContains(t, text, fmt.Sprint(raw[0], " ", raw[1], " ", raw[2]))
		assert.NotContains(t, text, fmt.Sprintf("%x", raw[:4]))
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "keys", k)
	assert.Contains(t, log.String(), "keys a, b")

	require.NoError(t, os.Chmod(path, 0o640))
	_, err = sealed.ReadKeys(path)
	require.ErrorContains(t, err, "mode 0640")
	_, err = sealed.ReadKeys(filepath.Dir(path))
	require.ErrorContains(t, err, "is not a file")
	_, err = sealed.ReadKeys(path + ".none")
	require.ErrorIs(t, err, os.ErrNotExist)

	one, err := sealed.ParseKeys(good)
	require.NoError(t, err)
	assert.Regexp(t, `^keys key-[0-9a-f]{8}$`, one.String())
	_, err = sealed.ParseKeys("changeme")
	require.Error(t, err)
}

// BenchmarkIntake measures the sealed store beside the plain one, by turns. "ratio" is
// the plain store's time to the sealed one's.
func BenchmarkIntake(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			plain := open(b, b.TempDir(), sealed.Keys{}, sealed.Options{})
			ours := open(b, b.TempDir(), keys(b, "a:"+secret()), sealed.Options{})
			in := example("1")
			in.Raw = make([]byte, size)
			var tPlain, tOurs time.Duration
			for b.Loop() {
				b.StopTimer()
				begun := time.Now()
				take(b, plain, in)
				tPlain += time.Since(begun)
				b.StartTimer()
				begun = time.Now()
				take(b, ours, in)
				tOurs += time.Since(begun)
			}
			b.ReportMetric(tPlain.Seconds()/tOurs.Seconds(), "ratio")
		})
	}
}
