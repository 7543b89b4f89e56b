package users_test

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/users"
)

const password = "correct horse battery"

var cheap = users.Options{Cost: users.Cost{Memory: 64, Passes: 1, Threads: 1}}

func open(t *testing.T, path string) *users.Store {
	t.Helper()
	s, err := users.Open(path, cheap)
	require.NoError(t, err)
	return s
}

func newFile(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "users.json")
}

func TestUserSignsInWithNameAndPassword(t *testing.T) {
	t.Parallel()
	path := newFile(t)
	s := open(t, path)
	made, err := s.Create(t.Context(), "Anna", password, users.Operator)
	require.NoError(t, err)
	for _, again := range []*users.Store{s, open(t, path)} {
		user, err := again.Verify(t.Context(), "anna", password)
		require.NoError(t, err)
		assert.Equal(t, made.ID, user.ID)
		assert.Equal(t, "Anna", user.Name)
		assert.Equal(t, users.Operator, user.Role)
		assert.WithinDuration(t, time.Now(), user.LastLogin, time.Minute)
		_, err = again.Verify(t.Context(), "Anna", password+"x")
		require.ErrorIs(t, err, users.ErrRefused)
		_, err = again.Verify(t.Context(), "Anna", strings.Repeat("x", 2000))
		require.ErrorIs(t, err, users.ErrRefused)
		_, err = again.Verify(t.Context(), "nobody", password)
		require.ErrorIs(t, err, users.ErrRefused)
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Contains(t, string(text), "$argon2id$v=19$m=64,t=1,p=1$")
	assert.NotContains(t, string(text), password)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing is left behind")
}

// Row 37.
func TestWrongPasswordsLockAUserForLongerAndLongerAcrossRestarts(t *testing.T) {
	t.Parallel()
	path := newFile(t)
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path)
		user, err := s.Create(t.Context(), "anna", password, users.Admin)
		require.NoError(t, err)
		wrong := func() {
			_, err := s.Verify(t.Context(), "anna", "wrong")
			require.ErrorIs(t, err, users.ErrRefused)
		}
		locked := func() time.Duration {
			_, err := s.Verify(t.Context(), "anna", password)
			if err == nil {
				return 0
			}
			require.ErrorIs(t, err, users.ErrRefused, "it is not told apart")
			user, err = s.Get(user.ID)
			require.NoError(t, err)
			return time.Until(user.LockedUntil)
		}
		for range 4 {
			wrong()
		}
		assert.Zero(t, locked(), "four are forgiven")
		for range 5 {
			wrong()
		}
		assert.Equal(t, 5, mustGet(t, s, user.ID).Failures)
		for _, seconds := range []int{30, 60, 120, 240, 480, 900, 900, 900} {
			want := time.Duration(seconds) * time.Second
			assert.Equal(t, want, locked())
			s = open(t, path)
			assert.Equal(t, want, locked(), "after a restart")
			wrong()
			assert.Equal(t, want, locked(), "an attempt during the lock does not lengthen it")
			time.Sleep(want)
			wrong()
		}
		time.Sleep(15 * time.Minute)
		assert.Zero(t, locked())
		assert.Zero(t, mustGet(t, s, user.ID).Failures)
	})
}

func mustGet(t *testing.T, s *users.Store, id int) users.User {
	t.Helper()
	user, err := s.Get(id)
	require.NoError(t, err)
	return user
}

// Row 24: a clock that was ahead when a user was locked.
func TestLockIsNeverLongerThanTheLongest(t *testing.T) {
	t.Parallel()
	path := newFile(t)
	s := open(t, path)
	_, err := s.Create(t.Context(), "anna", password, users.Admin)
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	text = bytes.Replace(text, []byte(`"hash"`), []byte(`"failures": 9, "lockedUntil": "2999-01-01T00:00:00Z", "hash"`), 1)
	require.NoError(t, os.WriteFile(path, text, 0o600))
	synctest.Test(t, func(t *testing.T) {
		s := open(t, path)
		_, err := s.Verify(t.Context(), "anna", password)
		require.ErrorIs(t, err, users.ErrRefused)
		time.Sleep(15 * time.Minute)
		_, err = s.Verify(t.Context(), "anna", password)
		require.NoError(t, err)
	})
}

func TestAnotherPasswordEndsALock(t *testing.T) {
	t.Parallel()
	s := open(t, newFile(t))
	user, err := s.Create(t.Context(), "anna", password, users.Admin)
	require.NoError(t, err)
	for range 5 {
		_, err = s.Verify(t.Context(), "anna", "wrong")
		require.ErrorIs(t, err, users.ErrRefused)
	}
	require.ErrorIs(t, s.SetPassword(t.Context(), user.ID, "short"), users.ErrWeakPassword)
	require.NoError(t, s.SetPassword(t.Context(), user.ID, password+"2"))
	_, err = s.Verify(t.Context(), "anna", password+"2")
	require.NoError(t, err)
	_, err = s.Verify(t.Context(), "anna", password)
	require.ErrorIs(t, err, users.ErrRefused)
}

// Row 38.
func TestFirstUserHasAGeneratedPasswordThatMustBeChanged(t *testing.T) {
	t.Parallel()
	path := newFile(t)
	s := open(t, path)
	first, err := s.CreateFirst(t.Context())
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(first), 20)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.NotContains(t, string(text), first)
	user, err := s.Verify(t.Context(), "admin", first)
	require.NoError(t, err)
	assert.True(t, user.MustChange)
	assert.Equal(t, users.Admin, user.Role)
	_, err = s.Verify(t.Context(), "admin", "admin")
	require.ErrorIs(t, err, users.ErrRefused)
	require.NoError(t, s.SetPassword(t.Context(), user.ID, password))
	assert.False(t, mustGet(t, s, user.ID).MustChange)
	again, err := open(t, path).CreateFirst(t.Context())
	require.NoError(t, err)
	assert.Empty(t, again, "once")
}

func TestUsersAreChangedAndNeverTheLastAdminAway(t *testing.T) {
	t.Parallel()
	s := open(t, newFile(t))
	anna, err := s.Create(t.Context(), "anna", password, users.Admin)
	require.NoError(t, err)
	ben, err := s.Create(t.Context(), "ben", password, users.Viewer)
	require.NoError(t, err)
	_, err = s.Create(t.Context(), "ANNA", password, users.Viewer)
	require.ErrorIs(t, err, users.ErrExists)
	_, err = s.Create(t.Context(), "a b", password, users.Viewer)
	require.ErrorIs(t, err, users.ErrName)
	_, err = s.Create(t.Context(), "c", password, "root")
	require.ErrorIs(t, err, users.ErrRole)
	_, err = s.Create(t.Context(), "c", "elevenbytes", users.Viewer)
	require.ErrorIs(t, err, users.ErrWeakPassword)

	require.ErrorIs(t, s.SetRole(anna.ID, users.Viewer), users.ErrLastAdmin)
	require.ErrorIs(t, s.Delete(anna.ID), users.ErrLastAdmin)
	require.ErrorIs(t, s.SetRole(ben.ID, "root"), users.ErrRole)
	require.NoError(t, s.SetRole(ben.ID, users.Admin))
	require.NoError(t, s.Delete(anna.ID))
	require.ErrorIs(t, s.Delete(anna.ID), users.ErrUnknown)
	_, err = s.Verify(t.Context(), "anna", password)
	require.ErrorIs(t, err, users.ErrRefused)
	cleo, err := s.Create(t.Context(), "cleo", password, users.Viewer)
	require.NoError(t, err)
	assert.NotEqual(t, anna.ID, cleo.ID, "an ID is never given twice: a session may still have it")
	assert.Equal(t, []users.User{mustGet(t, s, ben.ID), mustGet(t, s, cleo.ID)}, s.List())
}

func TestConfigurationDecidesAboutItsUsersAndNoOthers(t *testing.T) {
	t.Parallel()
	path := newFile(t)
	s := open(t, path)
	ben, err := s.Create(t.Context(), "ben", password, users.Viewer)
	require.NoError(t, err)
	configure := func(list ...users.Configured) {
		s = open(t, path)
		require.NoError(t, s.Configure(t.Context(), list))
	}
	anna := users.Configured{Name: "anna", Role: users.Admin, Password: password}
	configure(anna)
	user, err := s.Verify(t.Context(), "anna", password)
	require.NoError(t, err)
	assert.True(t, user.Configured)
	require.ErrorIs(t, s.SetPassword(t.Context(), user.ID, password+"2"), users.ErrConfigured)
	require.ErrorIs(t, s.SetRole(user.ID, users.Viewer), users.ErrConfigured)
	require.ErrorIs(t, s.Delete(user.ID), users.ErrConfigured)
	for range 5 {
		_, _ = s.Verify(t.Context(), "anna", "wrong")
	}
	configure(anna)
	_, err = s.Verify(t.Context(), "anna", password)
	require.ErrorIs(t, err, users.ErrRefused, "a restart forgets no wrong passwords")
	anna.Password, anna.Role = password+"3", users.Operator
	configure(anna)
	user, err = s.Verify(t.Context(), "anna", anna.Password)
	require.NoError(t, err)
	assert.Equal(t, users.Operator, user.Role)
	configure(users.Configured{Name: "Ben", Role: users.Operator, Password: password + "4"})
	_, err = s.Verify(t.Context(), "anna", anna.Password)
	require.ErrorIs(t, err, users.ErrRefused, "who is in the configuration no more is gone")
	user, err = s.Verify(t.Context(), "ben", password+"4")
	require.NoError(t, err)
	assert.Equal(t, ben.ID, user.ID)
}

// mirthOld is Mirth's hash before 4.4, mirthNew the one since.
func mirthOld(password string) string {
	sum := sha256.Sum256([]byte("saltsalt" + password))
	for range 999 {
		sum = sha256.Sum256(sum[:])
	}
	return base64.StdEncoding.EncodeToString(append([]byte("saltsalt"), sum[:]...))
}

func mirthNew(t *testing.T, password string) string {
	t.Helper()
	key, err := pbkdf2.Key(sha256.New, password, []byte("saltsalt"), 600_000, 32)
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(append([]byte("saltsalt"), key...))
}

func TestHashesOfMirthAreAcceptedAndReplaced(t *testing.T) {
	t.Parallel()
	path := newFile(t)
	list := []users.Configured{
		{Name: "old", Role: users.Admin, Hash: mirthOld("admin")},
		{Name: "new", Role: users.Admin, Hash: mirthNew(t, "admin") + "\r\n"},
	}
	s := open(t, path)
	require.NoError(t, s.Configure(t.Context(), list))
	_, err := s.Verify(t.Context(), "new", "Admin")
	require.ErrorIs(t, err, users.ErrRefused)
	for _, c := range list {
		_, err = s.Verify(t.Context(), c.Name, "admin")
		require.NoError(t, err, c.Name)
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(string(text), "$argon2id$"))

	s = open(t, path)
	require.NoError(t, s.Configure(t.Context(), list))
	again, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(text), string(again), "a restart does not bring the weak ones back")
	for _, c := range list {
		assert.NotContains(t, string(again), strings.TrimSpace(c.Hash))
		_, err = s.Verify(t.Context(), c.Name, "admin")
		require.NoError(t, err, c.Name)
	}
}

func TestFileThatIsDamagedIsRefusedAndNotQuoted(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no JSON": "Q7",
		"empty":   "",
		"a role":  `{"nextId":1,"users":[{"id":1,"name":"Q7","role":"root","hash":"x"}]}`,
		"an ID":   `{"nextId":1,"users":[{"id":2,"name":"Q7","role":"admin","hash":"x"}]}`,
		"a hash":  `{"nextId":1,"users":[{"id":1,"name":"a","role":"admin","hash":"Q7"}]}`,
		"null":    `{"nextId":1,"users":[null]}`,
	} {
		path := newFile(t)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := users.Open(path, cheap)
		require.ErrorContains(t, err, path, name)
		assert.NotContains(t, err.Error(), "Q7", name)
	}
}

func TestNobodyIsLetInWhereTheFileCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.Mkdir(dir, 0o700))
	s := open(t, filepath.Join(dir, "users.json"))
	_, err := s.Create(t.Context(), "anna", password, users.Admin)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir))
	for _, name := range []string{"anna", "nobody"} {
		_, err = s.Verify(t.Context(), name, password)
		require.Error(t, err)
		require.NotErrorIs(t, err, users.ErrRefused, "%s: it is written whether there is such a user or not", name)
	}
	_, err = s.Create(t.Context(), "ben", password, users.Viewer)
	require.Error(t, err)
	assert.Len(t, s.List(), 1, "what is not on disk does not count")
}
