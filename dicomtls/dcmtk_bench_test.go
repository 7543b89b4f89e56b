package dicomtls_test

import (
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// BenchmarkWithDCMTK stores 200 CT images in one association: DCMTK's pair, with
// Nagle's algorithm off for it, which is the limit to compare with; each of its
// two programs with ours in the place of the other; and the same with DCMTK as it
// comes, Nagle's algorithm on, where our acknowledgements make the difference.
// Directories are in memory where there is one: storescp does not sync.
func BenchmarkWithDCMTK(b *testing.B) {
	const n = 200
	dir := fastDir(b)
	objects, _ := writeFiles(b, dir, n, ctSize/2)
	storescu := func(b *testing.B, addr string) {
		b.Helper()
		host, port, _ := net.SplitHostPort(addr)
		for b.Loop() {
			out, err := dcmtk(b, "storescu", "+sd", "-R", host, port, dir)
			require.NoError(b, err, out)
		}
	}
	ours := func(b *testing.B, addr string) {
		b.Helper()
		for b.Loop() {
			for _, r := range new(dicomtls.Dialer).StoreAll(b.Context(), "tcp", addr, objects, nil) {
				require.NoError(b, r.Err)
			}
		}
	}
	for _, c := range []struct{ name, nodelay string }{{"NODELAY", "1"}, {"default", "0"}} {
		b.Run(c.name, func(b *testing.B) {
			b.Setenv("TCP_NODELAY", c.nodelay)
			if c.nodelay == "1" { // without, 8 s
				b.Run("storescu-storescp", func(b *testing.B) {
					b.SetBytes(n * ctSize)
					storescu(b, scp(b, "storescp", "+B", "-od", fastDir(b)))
				})
			}
			b.Run("storescu-Server", func(b *testing.B) {
				b.SetBytes(n * ctSize)
				storescu(b, listen(b, &dicomtls.Server{Store: &dicomtls.FileStore{Dir: fastDir(b), Duplicates: dicomtls.DuplicateOverwrite}}).addr)
			})
			b.Run("Dialer-storescp", func(b *testing.B) {
				b.SetBytes(n * ctSize)
				ours(b, scp(b, "storescp", "+B", "-od", fastDir(b)))
			})
		})
	}
}

// fastDir is a directory that goes away with the test, in memory if possible.
func fastDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "carewire-") //nolint:usetesting // in memory
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
