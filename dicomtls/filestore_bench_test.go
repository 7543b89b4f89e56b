package dicomtls_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/carewire/carewire/dicomtls"
)

// ct is the data set of a CT slice: 512 x 512 pixels of 16 bits.
func ct(instance string) []byte {
	b := new(builder).uids(ctStorage, instance)
	for n := range uint32(60) { // as many elements as such objects have
		b.element(0x00100010+n<<4, "LO", "a value")
	}
	return b.element(pixelData, "OW", string(bytes.Repeat([]byte{1, 2}, 512*512))).Bytes()
}

// BenchmarkScan reads a CT slice through the scan, and to io.Discard, which is as
// fast as reading can be.
func BenchmarkScan(b *testing.B) {
	data := ct(anInstance)
	b.Run("scan", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if err := dicomtls.Scan(bytes.NewReader(data), dicomtls.ExplicitVRLittleEndian, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare copy", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		buf := make([]byte, 256<<10)
		for b.Loop() {
			if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{bytes.NewReader(data)}, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkFileStore stores CT slices and, in turn, writes, syncs and renames the
// same bytes in a bare loop, without and with the directory synced. The ratios
// are of the loop's time to the store's: 1 is as fast as the loop.
func BenchmarkFileStore(b *testing.B) {
	data := ct(anInstance)
	store := &dicomtls.FileStore{Dir: b.TempDir(), Duplicates: dicomtls.DuplicateOverwrite}
	at := b.TempDir()
	var ours, bare, withDir time.Duration
	b.SetBytes(3 * int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		if status := store.ServeStore(b.Context(), storeOf(data)); status != dicomtls.StatusSuccess {
			b.Fatal(status)
		}
		stored := time.Now()
		if err := bareStore(at, data, false); err != nil {
			b.Fatal(err)
		}
		written := time.Now()
		if err := bareStore(at, data, true); err != nil {
			b.Fatal(err)
		}
		ours, bare, withDir = ours+stored.Sub(began), bare+written.Sub(stored), withDir+time.Since(written)
	}
	b.ReportMetric(float64(bare)/float64(ours), "of-bare-loop")
	b.ReportMetric(float64(withDir)/float64(ours), "of-loop-with-directory")
}

// bareStore writes, syncs and renames a file, and syncs the directory if dir is set.
func bareStore(at string, data []byte, dir bool) error {
	part := filepath.Join(at, "object.part")
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(part, filepath.Join(at, anInstance+".dcm"))
	}
	if err != nil || !dir {
		return err
	}
	d, err := os.Open(at)
	if err == nil {
		err = d.Sync()
		d.Close()
	}
	return err
}

func BenchmarkConvert(b *testing.B) {
	data := ct(anInstance)
	for _, to := range []string{dicomtls.ImplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian} {
		b.Run(to, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := dicomtls.Convert(io.Discard, bytes.NewReader(data), dicomtls.ExplicitVRLittleEndian, to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAScanAllocatesNextToNothing(t *testing.T) {
	data := ct(anInstance)
	r := bytes.NewReader(data)
	n := testing.AllocsPerRun(100, func() {
		r.Reset(data)
		if err := dicomtls.Scan(r, dicomtls.ExplicitVRLittleEndian, nil); err != nil {
			t.Fatal(err)
		}
	})
	if n > 4 {
		t.Errorf("%v allocations for a data set", n)
	}
}
