package dicomtls_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/carewire/carewire/dicomtls"
)

// seedDataSets are data sets that hold together, in the three plain encodings.
func seedDataSets(f *testing.F) {
	f.Helper()
	f.Add(byte(0), implicit().header(0x00081140, "", undefined).delimiter(item, undefined).delimiter(itemEnd, 0).delimiter(sequenceEnd, 0).Bytes())
	f.Add(byte(1), explicit().header(0x00081140, "SQ", 16).delimiter(item, 8).element(0x00081150, "UI", "").element(pixelData, "OW", "abcd").Bytes())
	f.Add(byte(2), (&builder{big: true}).uids(ctStorage, anInstance).element(0x00280010, "US", "ab").Bytes())
	f.Add(byte(1), explicit().header(0x00091010, "UN", undefined).delimiter(sequenceEnd, 0).Bytes())
	f.Add(byte(1), explicit().header(pixelData, "OB", undefined).delimiter(item, 0).delimiter(sequenceEnd, 0).Bytes())
	f.Add(byte(3), deflated(explicit().Bytes()))
}

// FuzzScan: nothing that is scanned panics; a data set cut anywhere is not taken
// for a whole one unless what is left is one; how it arrives does not matter.
func FuzzScan(f *testing.F) {
	seedDataSets(f)
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		syntax := native[int(which)%len(native)]
		_, _, whole := scan(data, syntax)
		slow := dicomtls.Scan(io.MultiReader(bytes.NewReader(data[:len(data)/2]), bytes.NewReader(data[len(data)/2:])), syntax, func(string, string) error { return nil })
		if (whole == nil) != (slow == nil) {
			t.Fatalf("in one piece %v, in two %v", whole, slow)
		}
		if broken, ok := errors.AsType[*dicomtls.DataSetError](whole); whole != nil && !ok {
			t.Fatalf("an error of another kind: %v, %v", whole, broken)
		}
	})
}

// FuzzConvert: what was converted holds together in its new syntax, and from
// then on converting there and back changes nothing.
func FuzzConvert(f *testing.F) {
	seedDataSets(f)
	const ile, ele, ebe = dicomtls.ImplicitVRLittleEndian, dicomtls.ExplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		from := []string{ile, ele, ebe}[int(which)%3]
		same := func(a []byte, by ...string) {
			b := a
			for i := range by[1:] {
				next, err := convert(b, by[i], by[i+1])
				if err != nil {
					if by[i+1] == ebe || by[i] == ebe {
						return // half a word cannot be turned around
					}
					t.Fatalf("%v: %v", by[:i+2], err)
				}
				b = next
			}
			if !bytes.Equal(a, b) {
				t.Fatalf("%v:\n% x\n% x", by, a, b)
			}
		}
		out, err := convert(data, from, ele)
		if from == ele {
			out, err = convert(data, ele, dicomtls.DeflatedExplicitVRLittleEndian)
			if err == nil {
				out, err = convert(out, dicomtls.DeflatedExplicitVRLittleEndian, ele)
			}
		}
		if err != nil {
			return
		}
		if _, _, err := scan(out, ele); err != nil {
			if class, _, again := scan(data, from); again == nil {
				t.Fatalf("%s: %v\n% x\n% x", class, err, data, out)
			}
			return // a UID that is too long, which converting does not look at
		}
		same(out, ele, ebe, ele)
		same(out, ele, dicomtls.DeflatedExplicitVRLittleEndian, ele)
		plain, err := convert(out, ele, ile)
		if err != nil {
			return
		}
		// Once without VRs, what the dictionary says is all that there is.
		plainer, err := convert(plain, ile, ele)
		if err != nil {
			return // a value that is no sequence under the tag of one
		}
		if plain, err = convert(plainer, ele, ile); err != nil {
			t.Fatal(err)
		}
		same(plain, ile, ele, ile)
		same(plain, ile, ebe, ile)
	})
}

// FuzzReadFileMeta: what is read never panics, and a header that is written from
// it is read as the same.
func FuzzReadFileMeta(f *testing.F) {
	meta := dicomtls.FileMeta{SOPClassUID: ctStorage, SOPInstanceUID: anInstance, TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian, SourceAETitle: "MODALITY"}
	b, err := meta.AppendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(b, explicit().Bytes()...))
	f.Add(b[128:])
	f.Add(b[132:])
	f.Add(explicit().Bytes())
	f.Add(implicit().Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		meta, size, err := dicomtls.ReadFileMeta(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			if _, ok := errors.AsType[*dicomtls.MetaError](err); !ok {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if size < 0 || size > int64(len(data)) {
			t.Fatalf("a header of %d bytes in %d", size, len(data))
		}
		written, err := meta.AppendTo(nil)
		if err != nil {
			return // it has UIDs that are none
		}
		again, size, err := dicomtls.ReadFileMeta(bufio.NewReader(bytes.NewReader(written)))
		if meta.ImplementationClassUID == "" {
			meta.ImplementationClassUID, meta.ImplementationVersion = again.ImplementationClassUID, again.ImplementationVersion
		}
		if err != nil || again != meta || size != int64(len(written)) {
			t.Fatalf("%+v became %+v: %v", meta, again, err)
		}
	})
}

// FuzzReadDataSet: the parser behind the scan neither panics nor runs away.
func FuzzReadDataSet(f *testing.F) {
	seedDataSets(f)
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		meta := dicomtls.FileMeta{SOPClassUID: ctStorage, SOPInstanceUID: anInstance, TransferSyntaxUID: native[int(which)%len(native)]}
		file, err := meta.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _ = dicomtls.ReadDataSet(bytes.NewReader(append(file, data...)))
	})
}
