package keystore_test

import (
	"bytes"
	"crypto/sha1"
	"io"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/keystore"
)

// Converting the example store of the guide in one process. What it can at least
// cost is a digest over the file.
func BenchmarkConvert(b *testing.B) {
	for _, file := range []string{"keyplusca.jks", "keyplusca.pkcs12", "mirth.jks"} {
		data := golden(b, "stores/"+file)
		b.Run(file, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := keystore.Open(data, goldenOptions(file))
				if err == nil {
					err = s.WritePEM(io.Discard, keystore.PEMOptions{})
				}
				require.NoError(b, err)
			}
		})
	}
	data := golden(b, "stores/keyplusca.jks")
	b.Run("digest alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sha1.Sum(data)
		}
	})
}

// A trust store as large as Java's cacerts.
func BenchmarkOpen150Certificates(b *testing.B) {
	var entries [][]byte
	cert := pki(b, "root.crt")
	for i := range 150 {
		entries = append(entries, trustedEntry("ca"+strconv.Itoa(i), bytes.Clone(cert)))
	}
	data := javaStore{entries: entries, password: storePassword}.bytes()
	b.Run("Open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := keystore.Open(data, options)
			require.NoError(b, err)
		}
	})
	b.Run("digest alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sha1.Sum(data)
		}
	})
}

// A length in the file costs no memory, and an entry not more than itself.
func TestOpeningAllocatesInProportionToTheEntries(t *testing.T) {
	cert := pki(t, "root.crt")
	count := func(n int) float64 {
		var entries [][]byte
		for i := range n {
			entries = append(entries, trustedEntry("ca"+strconv.Itoa(i), cert))
		}
		data := javaStore{entries: entries}.bytes()
		return testing.AllocsPerRun(10, func() {
			if _, err := keystore.Open(data, noPassword); err != nil {
				t.Error(err)
			}
		})
	}
	one, many := count(1), count(101)
	const perEntry = 6 // the entry, its alias and its chain
	require.LessOrEqual(t, (many-one)/100, float64(perEntry))
}
