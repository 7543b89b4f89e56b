package dicomtls_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/interop"
)

const (
	ctStorage  = "1.2.840.10008.5.1.4.1.1.2"
	anInstance = "1.2.826.0.1.3680043.10.9999.1"
)

// builder writes data sets for tests, well formed or not.
type builder struct {
	bytes.Buffer

	implicit, big bool
}

func (b *builder) order() binary.AppendByteOrder {
	if b.big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// header writes a tag and, where v is not empty, a VR, and a length.
func (b *builder) header(tag uint32, v string, length uint32) *builder {
	o := b.order()
	out := o.AppendUint16(o.AppendUint16(nil, uint16(tag>>16)), uint16(tag))
	switch {
	case b.implicit || v == "":
		out = o.AppendUint32(out, length)
	case strings.Contains("OB OD OF OL OV OW SQ SV UC UN UR UT UV", v):
		out = o.AppendUint32(append(append(out, v...), 0, 0), length)
	default:
		out = o.AppendUint16(append(out, v...), uint16(length))
	}
	b.Write(out)
	return b
}

// element writes a whole element.
func (b *builder) element(tag uint32, v, value string) *builder {
	b.header(tag, v, uint32(len(value)))
	b.WriteString(value)
	return b
}

// delimiter writes an item or a delimiter.
func (b *builder) delimiter(tag, length uint32) *builder { return b.header(tag, "", length) }

// uids writes the elements that begin a data set.
func (b *builder) uids(class, instance string) *builder {
	return b.element(0x00080016, "UI", even(class)).element(0x00080018, "UI", even(instance))
}

func even(uid string) string {
	if len(uid)%2 == 1 {
		return uid + "\x00"
	}
	return uid
}

const (
	item        = 0xFFFEE000
	itemEnd     = 0xFFFEE00D
	sequenceEnd = 0xFFFEE0DD
	undefined   = 0xFFFFFFFF
	pixelData   = 0x7FE00010
)

func explicit() *builder { return new(builder).uids(ctStorage, anInstance) }
func implicit() *builder { return (&builder{implicit: true}).uids(ctStorage, anInstance) }

func deflated(b []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.DefaultCompression)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// scan scans data and returns the UIDs that head was told.
func scan(data []byte, syntax string) (class, instance string, err error) {
	err = dicomtls.Scan(bytes.NewReader(data), syntax, func(c, i string) error {
		class, instance = c, i
		return nil
	})
	return class, instance, err
}

func TestAScanFindsTheUIDsOfADataSetInEveryEncoding(t *testing.T) {
	big := (&builder{big: true}).uids(ctStorage, anInstance).element(0x00280010, "US", "\x02\x00").Bytes()
	jpeg := explicit().header(pixelData, "OB", undefined).delimiter(item, 0).delimiter(item, 2)
	jpeg.WriteString("xx")
	jpeg.delimiter(sequenceEnd, 0)
	for syntax, data := range map[string][]byte{
		dicomtls.ImplicitVRLittleEndian:         implicit().element(0x00280010, "US", "\x00\x02").Bytes(),
		dicomtls.ExplicitVRLittleEndian:         explicit().element(0x00280010, "US", "\x00\x02").Bytes(),
		dicomtls.ExplicitVRBigEndian:            big,
		dicomtls.DeflatedExplicitVRLittleEndian: deflated(explicit().element(0x00280010, "US", "\x00\x02").Bytes()),
		"1.2.840.10008.1.2.4.50":                jpeg.Bytes(),
	} {
		class, instance, err := scan(data, syntax)
		require.NoError(t, err, syntax)
		assert.Equal(t, ctStorage, class, syntax)
		assert.Equal(t, anInstance, instance, syntax)
	}
}

func TestAScanAcceptsWhatHoldsTogether(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing after the UIDs": explicit().Bytes(),
		"a sequence of defined length": explicit().header(0x00081140, "SQ", 16).delimiter(item, 8).
			element(0x00081150, "UI", "").Bytes(),
		"a sequence with delimiters": explicit().header(0x00081140, "SQ", undefined).delimiter(item, undefined).
			element(0x00081150, "UI", "1.").delimiter(itemEnd, 0).delimiter(item, 0).delimiter(sequenceEnd, 0).Bytes(),
		"tags that begin again in each item": explicit().header(0x00091000, "SQ", undefined).
			delimiter(item, undefined).element(0x00080005, "CS", "").delimiter(itemEnd, 0).
			delimiter(item, undefined).element(0x00080005, "CS", "").delimiter(itemEnd, 0).delimiter(sequenceEnd, 0).Bytes(),
		"padding at the end":   explicit().element(0xFFFCFFFC, "OB", "\x00\x00\x00\x00").Bytes(),
		"a VR that is to come": append(explicit().Bytes(), 9, 0, 1, 16, 'Z', 'Z', 0, 0, 2, 0, 0, 0, 1, 2),
		"a VR that is none":    append(explicit().Bytes(), 9, 0, 1, 16, '?', '?', 2, 0, 1, 2),
	} {
		_, _, err := scan(data, dicomtls.ExplicitVRLittleEndian)
		assert.NoError(t, err, name)
	}
	unknown := explicit().header(0x00091010, "UN", undefined) // holds implicit VR, PS3.5 6.2.2
	inside := (&builder{implicit: true}).delimiter(item, undefined).element(0x00091011, "", "abcd").delimiter(itemEnd, 0)
	unknown.Write(inside.Bytes())
	_, _, err := scan(unknown.delimiter(sequenceEnd, 0).element(0x00280010, "US", "\x01\x00").Bytes(), dicomtls.ExplicitVRLittleEndian)
	assert.NoError(t, err, "an unknown sequence")
	_, _, err = scan(implicit().header(0x00081140, "", undefined).delimiter(item, undefined).delimiter(itemEnd, 0).
		delimiter(sequenceEnd, 0).Bytes(), dicomtls.ImplicitVRLittleEndian)
	assert.NoError(t, err, "an implicit sequence")
}

func TestAScanRefusesWhatDoesNotHoldTogether(t *testing.T) {
	for name, test := range map[string]struct {
		data []byte
		says string
	}{
		"tags out of order":            {explicit().element(0x00080005, "CS", "").Bytes(), "tags must ascend"},
		"a tag twice":                  {explicit().element(0x00080018, "UI", "").Bytes(), "tags must ascend"},
		"a command element":            {new(builder).element(0x00000002, "UI", "").Bytes(), "group that no data set has"},
		"file meta information":        {new(builder).element(0x00020010, "UI", "").Bytes(), "group that no data set has"},
		"a value cut short":            {explicit().header(0x00100010, "PN", 20).Bytes(), "ends too early"},
		"a header cut short":           {explicit().header(0x00100010, "PN", 0).Bytes()[:explicit().Len()+5], "ends too early"},
		"a long header cut short":      {explicit().header(0x00100010, "OB", 0).Bytes()[:explicit().Len()+10], "ends too early"},
		"a length of 3 GiB":            {explicit().header(0x00100010, "OB", 3<<30).Bytes(), "ends too early"},
		"a sequence without an end":    {explicit().header(0x00081140, "SQ", undefined).Bytes(), "ends too early"},
		"an item without an end":       {explicit().header(0x00081140, "SQ", undefined).delimiter(item, undefined).Bytes(), "ends too early"},
		"an item beyond its sequence":  {explicit().header(0x00081140, "SQ", 8).delimiter(item, 8).element(0x00081150, "UI", "").Bytes(), "longer than the sequence"},
		"an element beyond its item":   {explicit().header(0x00081140, "SQ", 16).delimiter(item, 8).element(0x00081150, "UI", "12").Bytes(), "longer than the sequence"},
		"a header beyond its item":     {explicit().header(0x00081140, "SQ", 12).delimiter(item, 4).element(0x00081150, "UI", "12").Bytes(), "longer than the sequence"},
		"an undefined one in a closed": {explicit().header(0x00081140, "SQ", 24).delimiter(item, undefined).delimiter(itemEnd, 0).delimiter(itemEnd, 0).Bytes(), "where an item should be"},
		"an element in a sequence":     {explicit().header(0x00081140, "SQ", undefined).element(0x00081150, "UI", "").Bytes(), "where an item should be"},
		"a delimiter at the top":       {explicit().delimiter(sequenceEnd, 0).Bytes(), "delimiter"},
		"an item at the top":           {explicit().delimiter(item, 0).Bytes(), "delimiter"},
		"an end in a closed item":      {explicit().header(0x00081140, "SQ", 16).delimiter(item, 8).delimiter(itemEnd, 0).Bytes(), "delimiter"},
		"text of undefined length":     {explicit().header(0x00100010, "UT", undefined).Bytes(), "has no length"},
		"a fragment without length":    {explicit().header(pixelData, "OB", undefined).delimiter(item, undefined).Bytes(), "fragment of no length"},
		"fragments without an end":     {explicit().header(pixelData, "OB", undefined).delimiter(item, 0).Bytes(), "ends too early"},
		"an endless UID":               {new(builder).element(0x00080016, "UI", strings.Repeat("1", 68)).Bytes(), "more than 64 characters"},
		"noise":                        {bytes.Repeat([]byte("not DICOM "), 100), "ends too early"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := scan(test.data, dicomtls.ExplicitVRLittleEndian)
			var broken *dicomtls.DataSetError
			require.ErrorAs(t, err, &broken)
			assert.Contains(t, err.Error(), test.says)
			assert.Equal(t, test.says == "ends too early", errors.Is(err, dicomtls.ErrTruncated))
		})
	}
}

func TestADeflatedDataSetIsInflatedUpToItsUIDsAndNoFurther(t *testing.T) {
	const syntax = dicomtls.DeflatedExplicitVRLittleEndian
	bomb := explicit().header(pixelData, "OW", 8<<20)
	bomb.Write(make([]byte, 8<<20))
	compressed := deflated(bomb.Bytes())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, instance, err := scan(compressed, syntax)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	assert.Equal(t, anInstance, instance)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), "bytes allocated for an object that inflates to 8 MiB")

	late := new(builder).header(0x00080001, "OB", 2<<20)
	late.Write(make([]byte, 2<<20))
	_, _, err = scan(deflated(late.uids(ctStorage, anInstance).Bytes()), syntax)
	assert.ErrorContains(t, err, "no SOP Instance UID in its first 1048576 bytes")
	_, _, err = scan(deflated(explicit().Bytes())[:20], syntax)
	assert.ErrorIs(t, err, dicomtls.ErrTruncated)
	_, _, err = scan([]byte("this is no deflate stream, whatever else it may be"), syntax)
	assert.ErrorContains(t, err, "not a deflate stream")
}

func TestAScanNeedsNoMemoryForNesting(t *testing.T) {
	const depth = 100_000
	for name, test := range map[string]struct {
		builder *builder
		syntax  string
	}{
		"explicit":   {explicit(), dicomtls.ExplicitVRLittleEndian},
		"implicit":   {implicit(), dicomtls.ImplicitVRLittleEndian},
		"big endian": {(&builder{big: true}).uids(ctStorage, anInstance), dicomtls.ExplicitVRBigEndian},
	} {
		b := test.builder
		for range depth {
			b.header(0x00081140, "SQ", undefined).delimiter(item, undefined)
		}
		for range depth {
			b.delimiter(itemEnd, 0).delimiter(sequenceEnd, 0)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := scan(b.Bytes(), test.syntax)
		runtime.ReadMemStats(&after)
		assert.ErrorContains(t, err, "nested more than 256 deep", name)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), name)
	}
	b := explicit() // the control: as deep as it may be
	for range 128 {
		b.header(0x00081140, "SQ", undefined).delimiter(item, undefined)
	}
	for range 128 {
		b.delimiter(itemEnd, 0).delimiter(sequenceEnd, 0)
	}
	_, _, err := scan(b.Bytes(), dicomtls.ExplicitVRLittleEndian)
	assert.NoError(t, err)
}

func TestAScanReturnsTheErrorOfItsReaderAndOfHead(t *testing.T) {
	broken := errors.New("the line is dead")
	data := explicit().element(0x00280010, "US", "\x00\x02").Bytes()
	for _, syntax := range []string{dicomtls.ExplicitVRLittleEndian, dicomtls.DeflatedExplicitVRLittleEndian, "1.3.46.670589.33.1.4.1"} {
		in := data
		if syntax == dicomtls.DeflatedExplicitVRLittleEndian {
			in = deflated(data)
		}
		err := dicomtls.Scan(io.MultiReader(bytes.NewReader(in), iotest.ErrReader(broken)), syntax, nil)
		assert.ErrorIs(t, err, broken, syntax)
	}
	closed := fmt.Errorf("the peer closed: %w", io.EOF)
	err := dicomtls.Scan(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(closed)), dicomtls.ExplicitVRLittleEndian, nil)
	assert.Equal(t, closed, err, "what wraps the end of a file is not the end")
	err = dicomtls.Scan(bytes.NewReader(data), dicomtls.ExplicitVRLittleEndian, func(string, string) error { return broken })
	assert.Equal(t, broken, err)
	_, instance, err := scan([]byte("anything at all"), "1.3.46.670589.33.1.4.1")
	assert.NoError(t, err, "a private syntax, which may be encoded in any way")
	assert.Empty(t, instance)
	class, _, err := scan(new(builder).element(0x00100010, "PN", "").Bytes(), dicomtls.ExplicitVRLittleEndian)
	assert.NoError(t, err)
	assert.Empty(t, class, "a UID that is missing")
}

// pydicomFiles returns the DICOM files of Debian's python3-pydicom.
func pydicomFiles(t testing.TB) []string {
	t.Helper()
	const root = "/usr/lib/python3/dist-packages/pydicom/data/"
	var files []string
	for _, dir := range []string{"test_files", "charset_files"} {
		found, err := filepath.Glob(root + dir + "/*.dcm")
		require.NoError(t, err)
		files = append(files, found...)
	}
	if len(files) == 0 {
		interop.Missing(t, "the files of python3-pydicom are not installed")
	}
	return files
}

func TestRealFilesHoldTogetherUnlessTheyWereBrokenOnPurpose(t *testing.T) {
	brokenOnPurpose := map[string]string{
		"MR_truncated.dcm":     "ends too early",
		"rtplan_truncated.dcm": "ends too early",
		"SC_rgb_jpeg.dcm":      "ends too early", // implicit, though it says explicit: DCMTK cannot read it either
		"no_meta.dcm":          "not a DICOM file",
	}
	for _, file := range pydicomFiles(t) {
		name := filepath.Base(file)
		f, err := os.Open(file)
		require.NoError(t, err)
		r := bufio.NewReader(f)
		meta, _, err := dicomtls.ReadFileMeta(r)
		if err == nil {
			err = dicomtls.Scan(r, meta.TransferSyntaxUID, nil)
		}
		if says := brokenOnPurpose[name]; says != "" {
			assert.ErrorContains(t, err, says, name)
		} else {
			assert.NoError(t, err, name)
		}
		f.Close()
	}
}
