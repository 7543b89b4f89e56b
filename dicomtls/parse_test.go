package dicomtls_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/suyashkumar/dicom/pkg/tag"

	"github.com/carewire/carewire/dicomtls"
)

// fileOf is a DICOM file of a data set.
func fileOf(t testing.TB, data []byte, syntax string) []byte {
	t.Helper()
	meta := dicomtls.FileMeta{SOPClassUID: ctStorage, SOPInstanceUID: anInstance, TransferSyntaxUID: syntax}
	b, err := meta.AppendTo(nil)
	require.NoError(t, err)
	return append(b, data...)
}

func TestADataSetIsParsedWithoutItsPixels(t *testing.T) {
	pixels := strings.Repeat("pixels", 100_000)
	for syntax, data := range map[string][]byte{
		dicomtls.ExplicitVRLittleEndian:         explicit().element(0x00100010, "PN", "Doe^Jane").element(pixelData, "OW", pixels).Bytes(),
		dicomtls.ImplicitVRLittleEndian:         implicit().element(0x00100010, "", "Doe^Jane").element(pixelData, "", pixels).Bytes(),
		dicomtls.DeflatedExplicitVRLittleEndian: deflated(explicit().element(0x00100010, "PN", "Doe^Jane").element(pixelData, "OW", pixels).Bytes()),
		dicomtls.ExplicitVRBigEndian: (&builder{big: true}).uids(ctStorage, anInstance).element(0x00100010, "PN", "Doe^Jane").
			element(pixelData, "OW", pixels).Bytes(),
	} {
		meta, set, err := dicomtls.ReadDataSet(bytes.NewReader(fileOf(t, data, syntax)))
		require.NoError(t, err, syntax)
		assert.Equal(t, syntax, meta.TransferSyntaxUID)
		name, err := set.FindElementByTag(tag.PatientName)
		require.NoError(t, err, syntax)
		assert.Equal(t, []string{"Doe^Jane"}, name.Value.GetValue())
		px, err := set.FindElementByTag(tag.PixelData)
		require.NoError(t, err)
		assert.NotContains(t, fmt.Sprint(px), "pixels")
	}
}

func TestWhatTheParserCannotBeTrustedWithIsRefusedFirst(t *testing.T) {
	nested := func(b *builder, depth int) []byte {
		for range depth {
			b.header(0x00081140, "SQ", undefined).delimiter(item, undefined)
		}
		for range depth {
			b.delimiter(itemEnd, 0).delimiter(sequenceEnd, 0)
		}
		return b.Bytes()
	}
	// Inside of a value of 64 bits, as the parser, which gives OV 16 bits of
	// length, would see it.
	hidden := nested(new(builder), 1000)
	many := explicit()
	for n := range 120_000 {
		many.element(0x00091000+uint32(n>>8)<<17+uint32(n&0xFF), "UN", "")
	}
	for name, test := range map[string]struct {
		data   []byte
		syntax string
		says   string
	}{
		"nested 1,000 deep":               {nested(explicit(), 1000), dicomtls.ExplicitVRLittleEndian, "nested"},
		"nested 100 deep":                 {nested(explicit(), 100), dicomtls.ExplicitVRLittleEndian, "nested"},
		"nested 1,000 deep, implicit":     {nested(implicit(), 1000), dicomtls.ImplicitVRLittleEndian, "nested"},
		"nested in implicit, with length": {implicit().header(0x00081140, "", uint32(len(nested(&builder{implicit: true}, 100)))+8).delimiter(item, uint32(len(nested(&builder{implicit: true}, 100)))).append(nested(&builder{implicit: true}, 100)), dicomtls.ImplicitVRLittleEndian, "nested"},
		"hidden in another VR":            {explicit().header(0x00091001, "OV", uint32(len(hidden))).append(hidden), dicomtls.ExplicitVRLittleEndian, "parser does not know"},
		"a length of 16 ones":             {explicit().element(0x00091001, "LO", strings.Repeat("x", 0xFFFF)).Bytes(), dicomtls.ExplicitVRLittleEndian, "takes for none"},
		"truncated":                       {explicit().header(0x00100010, "PN", 20).Bytes(), dicomtls.ExplicitVRLittleEndian, "ends too early"},
		"too many elements":               {many.Bytes(), dicomtls.ExplicitVRLittleEndian, "more than 100000 elements"},
		"too much to hold":                {explicit().element(0x00091001, "UN", strings.Repeat("x", 17<<20)).Bytes(), dicomtls.ExplicitVRLittleEndian, "besides pixel data"},
		"two NULs in the place of a VR":   {explicit().element(0x00091001, "\x00\x00", "abcd").Bytes(), dicomtls.ExplicitVRLittleEndian, "parser does not know"},
		"an unknown sequence":             {explicit().header(0x00091001, "UN", undefined).delimiter(sequenceEnd, 0).Bytes(), dicomtls.ExplicitVRLittleEndian, "unknown sequence"},
		"an unknown syntax":               {explicit().Bytes(), "1.3.46.670589.33.1.4.1", "not a transfer syntax of DICOM"},
	} {
		t.Run(name, func(t *testing.T) {
			file := fileOf(t, test.data, test.syntax)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := dicomtls.ReadDataSet(bytes.NewReader(file))
			runtime.ReadMemStats(&after)
			assert.ErrorContains(t, err, test.says)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		})
	}
	_, _, err := dicomtls.ReadDataSet(bytes.NewReader(fileOf(t, nested(explicit(), 15), dicomtls.ExplicitVRLittleEndian)))
	assert.NoError(t, err, "the control")
}

// append adds bytes and returns all.
func (b *builder) append(more []byte) []byte {
	b.Write(more)
	return b.Bytes()
}

func TestMostRealFilesAreParsed(t *testing.T) {
	parsed, refused := 0, 0
	for _, file := range pydicomFiles(t) {
		f, err := os.Open(file)
		require.NoError(t, err)
		if _, _, err := dicomtls.ReadDataSet(f); err != nil {
			t.Logf("%s: %v", filepath.Base(file), err)
			refused++
		} else {
			parsed++
		}
		f.Close()
	}
	assert.Greater(t, parsed, 8*refused)
}
