package keystore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

func TestAWrongStorePasswordIsAPasswordErrorOfTheStore(t *testing.T) {
	for _, file := range []string{"kinds.jks", "jdk25.jceks", "mirth.jks", "jdk25.pkcs12", "o-default.p12", "o-legacy.p12", "bc.pkcs12", "secrets.jceks", "trust.jks", "trust.pkcs12"} {
		for _, password := range []string{"", "Changeit", "changeit ", "pässwörd", "p😀w"} {
			_, err := keystore.Open(golden(t, "stores/"+file), keystore.Options{Password: password})
			var wrong *keystore.PasswordError
			require.ErrorAs(t, err, &wrong, file)
			assert.True(t, wrong.Store)
			assert.ErrorIs(t, err, keystore.ErrIncorrectPassword)
			assert.EqualError(t, err, "keystore: incorrect password, or the file was altered")
		}
	}
}

func TestAKeyWithAnotherPasswordLeavesTheOtherEntriesReadable(t *testing.T) {
	for _, file := range []string{"keypass.jks", "keypass.jceks", "keypass.pkcs12"} {
		s := opened(t, file, options)
		locked, err := s.Entry("ec256")
		require.NoError(t, err)
		_, err = locked.PKCS8()
		var wrong *keystore.PasswordError
		require.ErrorAs(t, err, &wrong, file)
		assert.Equal(t, "ec256", wrong.Alias)
		assert.False(t, wrong.Store)
		assert.Len(t, locked.Chain, 3, "its certificates need no password")
		assert.Contains(t, s.Warnings(), `"ec256": keystore: incorrect password for the key "ec256", or it was altered`)
		_, err = s.TLSCertificate("ec384")
		assert.NoError(t, err, file)
	}
}

func TestTheKeyPasswordIsLookedForInOrder(t *testing.T) {
	for _, file := range []string{"keypass.jks", "keypass.jceks", "keypass.pkcs12"} {
		for name, o := range map[string]keystore.Options{
			"by alias, in any case": {KeyPasswords: map[string]string{"EC256": keyPassword}},
			"of all keys":           {KeyPassword: keyPassword},
			"by alias before all":   {KeyPasswords: map[string]string{"ec256": keyPassword}, KeyPassword: "no"},
			"as one of more":        {MorePasswords: []string{"no", keyPassword}},
		} {
			o.Password = storePassword
			s := opened(t, file, o)
			assert.ElementsMatch(t, []string{ec256, ec384}, describe(t, s), "%s %s", file, name)
		}
	}
}

func TestWithoutAPasswordJavaStoresShowTheirCertificatesUnchecked(t *testing.T) {
	for _, file := range []string{"keyplusca.jks", "keyplusca.jceks"} {
		s := opened(t, file, keystore.Options{NoPassword: true})
		assert.Equal(t, keystore.IntegrityUnchecked, s.Integrity)
		assert.Contains(t, s.Warnings(), "the integrity of the file is not checked, as there is no password")
		assert.Len(t, s.Roots(), 2)
		e, err := s.Entry("server")
		require.NoError(t, err)
		assert.Len(t, e.Chain, 3)
		_, err = e.PKCS8()
		assert.ErrorIs(t, err, keystore.ErrPasswordRequired)

		s = opened(t, file, keystore.Options{NoPassword: true, KeyPassword: storePassword})
		_, err = s.TLSCertificate("server")
		assert.NoError(t, err, "the key's password is another matter")
	}
}

func TestWithoutAPasswordPKCS12ShowsWhatIsNotEncrypted(t *testing.T) {
	none := keystore.Options{NoPassword: true}
	_, err := keystore.Open(golden(t, "stores/trust.pkcs12"), none)
	assert.ErrorIs(t, err, keystore.ErrPasswordRequired)

	s := opened(t, "passwordless-trust.pkcs12", none)
	assert.Len(t, s.Roots(), 2)
	assert.Equal(t, keystore.IntegrityNone, s.Integrity)

	s = opened(t, "o-default.p12", none) // the key is a bag of its own
	assert.Equal(t, keystore.IntegrityUnchecked, s.Integrity)
	_, err = s.TLSCertificate("")
	assert.ErrorIs(t, err, keystore.ErrPasswordRequired)
	assert.Contains(t, s.Warnings(), "an encrypted part is not read, as there is no password")

	s = opened(t, "o-keybag.p12", none)
	_, err = s.TLSCertificate("server")
	assert.NoError(t, err, "nothing in it is encrypted")
}

// Row upon row of special passwords is in the golden stores; here are those that
// no golden store has.
func TestAPasswordIsTakenAsItIs(t *testing.T) {
	long := ""
	for i := range 300 {
		long += string(rune('a' + i%26))
	}
	for _, password := range []string{long, " leading", "trailing ", "new\nline", "line\n", "tab\t", "\x00", "日本語🔑", "\xe4\xf6"} {
		spelled := password
		if password == "\xe4\xf6" {
			spelled = "äö" // bytes that are not UTF-8 are ISO 8859-1, as with openssl
		}
		data := javaStore{password: spelled, entries: [][]byte{keyEntry("a", jksProtect(t, pki(t, "ec256.key"), spelled), pki(t, "ec256.crt"))}}.bytes()
		s, err := keystore.Open(data, keystore.Options{Password: password})
		require.NoError(t, err, "%q", password)
		_, err = s.TLSCertificate("a")
		assert.NoError(t, err, "%q", password)
		for _, other := range []string{password + " ", password + "\n", ""} {
			_, err = keystore.Open(data, keystore.Options{Password: other})
			assert.ErrorIs(t, err, keystore.ErrIncorrectPassword, "%q for %q", other, password)
		}
	}
}

func TestAJCEKSKeyPasswordThatIsNotASCIIIsIncorrectAtOnce(t *testing.T) {
	s := opened(t, "mirth.jks", keystore.Options{Password: "KqVh3TtYwR8a", KeyPassword: "pässwörd", MaxIterations: 400_000})
	for _, e := range s.Entries {
		// The two keys of 200,000 iterations have spent nothing on that password:
		// they did on the store's.
		assert.ErrorIs(t, e.Err, keystore.ErrIncorrectPassword, e.Alias)
	}
}

func TestNoErrorAndNothingPrintedHoldsAPasswordOrAKey(t *testing.T) {
	const secret = "s3cr3t-password"
	o := keystore.Options{Password: secret, KeyPassword: secret, KeyPasswords: map[string]string{"a": secret}, MorePasswords: []string{secret}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		assert.NotContains(t, fmt.Sprintf(verb, o), secret)
		assert.NotContains(t, fmt.Sprintf(verb, &o), secret)
	}
	key := pki(t, "ec256.key")
	data := javaStore{password: secret, entries: [][]byte{keyEntry("a", jksProtect(t, key, secret), pki(t, "ec384.crt"))}}.bytes()
	s, err := keystore.Open(data, o)
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, v := range []any{s, *s, s.Entries, s.Entries[0], *s.Entries[0]} {
			text := fmt.Sprintf(verb, v)
			assert.NotContains(t, text, secret)
			assert.NotContains(t, text, hexOf(key[40:60]), verb)
			assert.NotContains(t, text, strings.Trim(fmt.Sprintf("%d", key[40:60]), "[]"), verb)
		}
	}
	_, err = s.TLSCertificate("a")
	require.ErrorIs(t, err, keystore.ErrKeyMismatch)
	for i := range data {
		bad := append([]byte(nil), data...)
		bad[i] ^= 0x40
		if _, err := keystore.Open(bad, o); err != nil {
			assert.NotContains(t, err.Error(), secret)
		}
	}
}
