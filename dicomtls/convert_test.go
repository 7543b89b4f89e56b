package dicomtls_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// native are the syntaxes that are converted into each other.
var native = []string{
	dicomtls.ImplicitVRLittleEndian, dicomtls.ExplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian, dicomtls.DeflatedExplicitVRLittleEndian,
}

func convert(data []byte, from, to string) ([]byte, error) {
	var out bytes.Buffer
	err := dicomtls.Convert(&out, bytes.NewReader(data), from, to)
	return out.Bytes(), err
}

// converted converts data by way of several syntaxes.
func converted(t testing.TB, data []byte, syntaxes ...string) []byte {
	t.Helper()
	for i := range syntaxes[1:] {
		var err error
		data, err = convert(data, syntaxes[i], syntaxes[i+1])
		require.NoError(t, err, "%s to %s", syntaxes[i], syntaxes[i+1])
	}
	return data
}

func TestValuesAreTurnedAroundByTheirVR(t *testing.T) {
	const ele, ebe = dicomtls.ExplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian
	little := explicit().element(0x00280009, "AT", "\x18\x00\x63\x10").element(0x00280010, "US", "\x01\x02").
		element(0x00280106, "SS", "\x01\x02\x03\x04").header(0x00400555, "SQ", 24).delimiter(item, 16).element(0x0040A161, "FD", "12345678").
		element(0x00720078, "UL", "1234").element(0x00720082, "SV", "12345678").element(0x7FE00008, "OF", "12345678").element(0x7FE00010, "OW", "abcdef").
		element(0xFFFCFFFC, "OB", "as is.")
	big := (&builder{big: true}).uids(ctStorage, anInstance).element(0x00280009, "AT", "\x00\x18\x10\x63").element(0x00280010, "US", "\x02\x01").
		element(0x00280106, "SS", "\x02\x01\x04\x03").header(0x00400555, "SQ", 24).delimiter(item, 16).element(0x0040A161, "FD", "87654321").
		element(0x00720078, "UL", "4321").element(0x00720082, "SV", "87654321").element(0x7FE00008, "OF", "43218765").element(0x7FE00010, "OW", "badcfe").
		element(0xFFFCFFFC, "OB", "as is.")
	assert.Equal(t, big.Bytes(), converted(t, little.Bytes(), ele, ebe))
	assert.Equal(t, little.Bytes(), converted(t, big.Bytes(), ebe, ele))
}

func TestWhatHasNoVRGetsThatOfTheDictionary(t *testing.T) {
	in := implicit().element(0x00090010, "", "ACME").element(0x00091001, "", "abcd").element(0x00100010, "", "Doe^Jane").
		element(0x00280103, "", "\x01\x00").element(0x00280106, "", "\xFF\xFE").element(0x60020010, "", "\x05\x00").element(pixelData, "", "abcd")
	want := explicit().element(0x00090010, "LO", "ACME").element(0x00091001, "UN", "abcd").element(0x00100010, "PN", "Doe^Jane").
		element(0x00280103, "US", "\x01\x00").element(0x00280106, "SS", "\xFF\xFE").element(0x60020010, "US", "\x05\x00").element(pixelData, "OW", "abcd")
	assert.Equal(t, want.Bytes(), converted(t, in.Bytes(), dicomtls.ImplicitVRLittleEndian, dicomtls.ExplicitVRLittleEndian))
	assert.Equal(t, in.Bytes(), converted(t, want.Bytes(), dicomtls.ExplicitVRLittleEndian, dicomtls.ImplicitVRLittleEndian))

	long := implicit().element(0x00180010, "", strings.Repeat("x", 70_000)) // LO has 16 bits of length
	out := converted(t, long.Bytes(), dicomtls.ImplicitVRLittleEndian, dicomtls.ExplicitVRLittleEndian)
	assert.Contains(t, string(out[:90]), "UN")
	assert.Equal(t, long.Bytes(), converted(t, out, dicomtls.ExplicitVRLittleEndian, dicomtls.ImplicitVRLittleEndian))
}

func TestLengthsThatWouldBeWrongBecomeDelimiters(t *testing.T) {
	in := implicit().header(0x00081140, "", 24).delimiter(item, 16).element(0x00081150, "", "1.2.3.4\x00").element(0x00100000, "", "\x01\x02\x03\x04")
	want := explicit().header(0x00081140, "SQ", undefined).delimiter(item, undefined).element(0x00081150, "UI", "1.2.3.4\x00").
		delimiter(itemEnd, 0).delimiter(sequenceEnd, 0)
	assert.Equal(t, want.Bytes(), converted(t, in.Bytes(), dicomtls.ImplicitVRLittleEndian, dicomtls.ExplicitVRLittleEndian), "and the group length is gone")
	same := explicit().element(0x00080000+0x0030, "TM", "").header(0x00081140, "SQ", 24).delimiter(item, 16).element(0x00081150, "UI", "1.2.3.4\x00")
	assert.Equal(t, same.Bytes(), converted(t, same.Bytes(), dicomtls.ExplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian, dicomtls.ExplicitVRLittleEndian))
}

func TestAnUnknownSequenceKeepsItsOwnEncoding(t *testing.T) {
	in := explicit().header(0x00091010, "UN", undefined)
	in.Write((&builder{implicit: true}).delimiter(item, undefined).element(0x00091011, "", "abcd").delimiter(itemEnd, 0).Bytes())
	in.delimiter(sequenceEnd, 0)
	const ele = dicomtls.ExplicitVRLittleEndian
	assert.Equal(t, in.Bytes(), converted(t, in.Bytes(), ele, dicomtls.ExplicitVRBigEndian, ele))
	assert.Equal(t, in.Bytes(), converted(t, in.Bytes(), ele, dicomtls.DeflatedExplicitVRLittleEndian, ele))
	want := implicit().header(0x00091010, "", undefined).delimiter(item, undefined).element(0x00091011, "", "abcd").delimiter(itemEnd, 0).delimiter(sequenceEnd, 0)
	assert.Equal(t, want.Bytes(), converted(t, in.Bytes(), ele, dicomtls.ImplicitVRLittleEndian))
}

// Old equipment writes two NULs where it has no VR, and 16 bits of length.
func TestTwoNULsInThePlaceOfAVRStay(t *testing.T) {
	in := explicit().element(0x00091010, "\x00\x00", "abcd").element(0x00100010, "PN", "Doe^Jane")
	const ele = dicomtls.ExplicitVRLittleEndian
	assert.Equal(t, in.Bytes(), converted(t, in.Bytes(), ele, dicomtls.ExplicitVRBigEndian, ele))
	assert.Equal(t, in.Bytes(), converted(t, in.Bytes(), ele, dicomtls.DeflatedExplicitVRLittleEndian, ele))
	want := implicit().element(0x00091010, "", "abcd").element(0x00100010, "", "Doe^Jane")
	assert.Equal(t, want.Bytes(), converted(t, in.Bytes(), ele, dicomtls.ImplicitVRLittleEndian))
}

func TestWhatCannotBeConvertedIsRefused(t *testing.T) {
	const jpeg = "1.2.840.10008.1.2.4.50"
	assert.False(t, dicomtls.CanConvert(jpeg, dicomtls.ExplicitVRLittleEndian))
	assert.False(t, dicomtls.CanConvert(dicomtls.ExplicitVRLittleEndian, jpeg))
	assert.True(t, dicomtls.CanConvert(jpeg, jpeg))
	_, err := convert(explicit().Bytes(), jpeg, dicomtls.ExplicitVRLittleEndian)
	assert.ErrorIs(t, err, dicomtls.ErrNotConvertible)
	encapsulated := explicit().header(pixelData, "OB", undefined).delimiter(item, 0).delimiter(sequenceEnd, 0)
	_, err = convert(encapsulated.Bytes(), dicomtls.ExplicitVRLittleEndian, dicomtls.ImplicitVRLittleEndian)
	assert.ErrorIs(t, err, dicomtls.ErrNotConvertible)
	for name, data := range map[string][]byte{
		"half a word":  explicit().element(0x00280010, "US", "abc").Bytes(),
		"cut short":    explicit().header(0x00280010, "US", 2).Bytes(),
		"out of order": explicit().element(0x00080005, "CS", "").Bytes(),
	} {
		_, err := convert(data, dicomtls.ExplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian)
		var broken *dicomtls.DataSetError
		assert.ErrorAs(t, err, &broken, name)
	}
	dead := errors.New("the line is dead")
	err = dicomtls.Convert(io.Discard, iotest.ErrReader(dead), dicomtls.ExplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian)
	assert.ErrorIs(t, err, dead)
	_, err = convert(deflated(explicit().Bytes())[:20], dicomtls.DeflatedExplicitVRLittleEndian, dicomtls.ExplicitVRLittleEndian)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestADeflatedStreamIsOfEvenLength(t *testing.T) {
	for n := range 8 {
		in := explicit().element(0x00204000, "LT", strings.Repeat("x", 2*n)).Bytes()
		out := converted(t, in, dicomtls.ExplicitVRLittleEndian, dicomtls.DeflatedExplicitVRLittleEndian)
		assert.Zero(t, len(out)%2)
		assert.Equal(t, in, converted(t, out, dicomtls.DeflatedExplicitVRLittleEndian, dicomtls.ExplicitVRLittleEndian))
	}
}

func TestConvertingNeedsLittleMemory(t *testing.T) {
	header := explicit().header(pixelData, "OW", 16<<20).Bytes()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	src := io.MultiReader(bytes.NewReader(header), io.LimitReader(zeros{}, 16<<20))
	require.NoError(t, dicomtls.Convert(io.Discard, src, dicomtls.ExplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian))
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// nativeFiles are the real data sets that are in a convertible syntax and whole.
func nativeFiles(t testing.TB) map[string]struct {
	meta dicomtls.FileMeta
	data []byte
} {
	t.Helper()
	out := make(map[string]struct {
		meta dicomtls.FileMeta
		data []byte
	})
	for _, file := range pydicomFiles(t) {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		r := bufio.NewReader(bytes.NewReader(raw))
		meta, size, err := dicomtls.ReadFileMeta(r)
		if err != nil || !dicomtls.CanConvert(meta.TransferSyntaxUID, dicomtls.ExplicitVRLittleEndian) {
			continue
		}
		if dicomtls.Scan(bytes.NewReader(raw[size:]), meta.TransferSyntaxUID, nil) == nil {
			out[filepath.Base(file)] = struct {
				meta dicomtls.FileMeta
				data []byte
			}{meta, raw[size:]}
		}
	}
	return out
}

func TestRealDataSetsConvertThereAndBack(t *testing.T) {
	const ile, ele, ebe, dfl = dicomtls.ImplicitVRLittleEndian, dicomtls.ExplicitVRLittleEndian, dicomtls.ExplicitVRBigEndian, dicomtls.DeflatedExplicitVRLittleEndian
	files := nativeFiles(t)
	require.Greater(t, len(files), 40)
	for name, f := range files {
		from := f.meta.TransferSyntaxUID
		// Once through Implicit VR, what is retired or a matter of taste is gone.
		plain := converted(t, f.data, from, map[bool]string{true: ele, false: ile}[from == ile], ile)
		assert.Equal(t, plain, converted(t, plain, ile, ele, ile), name)
		assert.Equal(t, plain, converted(t, plain, ile, ebe, dfl, ile), name)
		text := converted(t, plain, ile, ele)
		assert.Equal(t, text, converted(t, text, ele, ebe, ele), name)
		assert.Equal(t, text, converted(t, text, ele, dfl, ebe, ele), name)
	}
}

// DCMTK reads what Convert writes as it reads what its own converter writes.
func TestDCMTKReadsAConvertedObjectAsItsOwn(t *testing.T) {
	flags := map[string]string{dicomtls.ImplicitVRLittleEndian: "+ti", dicomtls.ExplicitVRLittleEndian: "+te", dicomtls.ExplicitVRBigEndian: "+tb", dicomtls.DeflatedExplicitVRLittleEndian: "+td"}
	// Comments, and how sequences and items end, which both are free to choose.
	volatile := regexp.MustCompile(`(?m)^\(0002,.*\n|^#.*\n|^W: .*\n|#.*$|^ *\((fffe,e00d|fffe,e0dd|[0-9a-f]{4},0000)\).*\n|with (un|ex)\w+ length *`)
	dir := t.TempDir()
	compared := 0
	files := nativeFiles(t)
	for i, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		if f.meta.SOPClassUID == "" || f.meta.SOPInstanceUID == "" || len(f.data) > 40<<10 {
			continue
		}
		if i%3 > 0 || raceDetector && i%12 > 0 {
			continue // the programs take their time
		}
		to := native[i/3%len(native)]
		out, err := convert(f.data, f.meta.TransferSyntaxUID, to)
		require.NoError(t, err, "%s to %s", name, to)
		meta := f.meta
		meta.TransferSyntaxUID, meta.ImplementationClassUID, meta.SourceAETitle = to, "", ""
		file, err := meta.AppendTo(nil)
		if err != nil {
			continue // its own UIDs are none
		}
		ours, original, theirs := filepath.Join(dir, "ours.dcm"), filepath.Join(dir, "original.dcm"), filepath.Join(dir, "theirs.dcm")
		require.NoError(t, os.WriteFile(ours, append(file, out...), 0o600))
		meta.TransferSyntaxUID = f.meta.TransferSyntaxUID
		file, err = meta.AppendTo(nil)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(original, append(file, f.data...), 0o600))
		if said, err := program(t, "dcmconv", "-q", flags[to], original, theirs); err != nil {
			t.Logf("dcmconv does not take %s: %s", name, said)
			continue
		}
		a, err := program(t, "dcmdump", "-q", "+L", "+R", "100000", ours)
		require.NoError(t, err, "%s to %s: %s", name, to, a)
		b, err := program(t, "dcmdump", "-q", "+L", "+R", "100000", theirs)
		require.NoError(t, err)
		assert.Equal(t, volatile.ReplaceAllString(b, ""), volatile.ReplaceAllString(a, ""), "%s to %s", name, to)
		compared++
	}
	assert.Positive(t, compared)
}
