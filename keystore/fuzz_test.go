package keystore_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

// Under this few iterations a file costs a millisecond.
var fuzzOptions = keystore.Options{Password: storePassword, KeyPassword: keyPassword, MaxIterations: 20_000, MaxBytes: 1 << 20}

// fuzzOpen holds Open to what it promises of any file: a documented error or a
// store that can be used, the same each time, and what can be written can be
// read.
func fuzzOpen(t *testing.T, data []byte, o keystore.Options) {
	original := bytes.Clone(data)
	s, err := keystore.Open(data, o)
	require.Equal(t, original, data, "the file is not modified")
	if err != nil {
		require.Nil(t, s)
		require.True(t, isTyped(err), "%T %v", err, err)
		require.NotContains(t, err.Error(), storePassword)
		return
	}
	s.Warnings()
	_, _ = s.CertPool()
	for _, e := range s.Entries {
		if e.Err != nil {
			require.NotContains(t, e.Err.Error(), keyPassword)
		}
		_, _ = s.TLSCertificate(e.Alias)
	}
	var out bytes.Buffer
	if s.WritePEM(&out, keystore.PEMOptions{}) != nil {
		return
	}
	again, err := keystore.Open(out.Bytes(), keystore.Options{MaxBytes: -1})
	if err != nil {
		require.True(t, isTyped(err)) // a certificate that is none
		return
	}
	require.LessOrEqual(t, len(again.PrivateKeys()), len(s.PrivateKeys()))
}

func addStores(f *testing.F, patterns ...string) {
	f.Helper()
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join("testdata", "stores", pattern))
		require.NoError(f, err)
		for _, file := range files {
			f.Add(golden(f, "stores/"+filepath.Base(file)))
		}
	}
}

func FuzzJKS(f *testing.F) {
	addStores(f, "*.jks")
	f.Add(javaStore{version: 1, password: storePassword}.bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		o := fuzzOptions
		fuzzOpen(t, data, o)
		o.NoPassword = true // past the digest, which fuzzing does not get right
		fuzzOpen(t, data, o)
	})
}

func FuzzJCEKS(f *testing.F) {
	addStores(f, "*.jceks", "mirth.jks")
	f.Fuzz(func(t *testing.T, data []byte) {
		o := fuzzOptions
		o.NoPassword = true
		fuzzOpen(t, data, o)
	})
}

func FuzzPKCS12(f *testing.F) {
	addStores(f, "*.p12", "*.pkcs12")
	f.Add(pfx(f, safe(f, keyBag(f, pki(f, "ec256.key"), bagAttributes{alias: "x", localKeyID: "y"}), certBag(f, pki(f, "ec256.crt"), bagAttributes{trusted: true}))))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := fuzzOptions
		fuzzOpen(t, data, o)
		o.NoPassword = true
		fuzzOpen(t, data, o)
	})
}

func FuzzPEM(f *testing.F) {
	addStores(f, "*.pem", "*.der", "*.p7b")
	for _, name := range []string{"ec256.key", "ec256.crt", "rsa.key", "negative.crt"} {
		f.Add(golden(f, "pki/"+name))
		f.Add(pki(f, name))
	}
	f.Add(golden(f, "../../tlsprops/testdata/pem/rsa-traditional-aes256.pem"))
	f.Fuzz(func(t *testing.T, data []byte) { fuzzOpen(t, data, fuzzOptions) })
}

func FuzzDetect(f *testing.F) {
	addStores(f, "*")
	f.Fuzz(func(t *testing.T, data []byte) {
		format := keystore.Detect(data)
		_, err := keystore.Open(data, keystore.Options{NoPassword: true, MaxIterations: 1, MaxBytes: 1 << 20})
		if format == keystore.FormatUnknown {
			require.Error(t, err)
		}
	})
}
