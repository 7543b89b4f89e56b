package dicomtls_test

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

func readMeta(data []byte) (dicomtls.FileMeta, string, error) {
	r := bufio.NewReader(bytes.NewReader(data))
	meta, size, err := dicomtls.ReadFileMeta(r)
	return meta, string(data[size:]), err
}

func TestAHeaderIsReadAsItWasWritten(t *testing.T) {
	want := dicomtls.FileMeta{
		SOPClassUID: ctStorage, SOPInstanceUID: anInstance, TransferSyntaxUID: "1.2.840.10008.1.2.4.50",
		ImplementationClassUID: "1.2.3", ImplementationVersion: "SOMEONE_1", SourceAETitle: "A MODALITY",
	}
	file, err := want.AppendTo(nil)
	require.NoError(t, err)
	assert.Equal(t, strings.Repeat("\x00", 128)+"DICM", string(file[:132]))
	got, rest, err := readMeta(append(file, "the data set"...))
	require.NoError(t, err)
	assert.Equal(t, want, got)
	assert.Equal(t, "the data set", rest)
	out, err := program(t, "dcmdump", "-q", "+P", "0002,0012", writeTemp(t, append(file, explicit().Bytes()...)))
	assert.NoError(t, err)
	assert.Contains(t, out, "[1.2.3]", "as DCMTK reads it")

	for name, wrong := range map[string]func(*dicomtls.FileMeta){
		"no instance":       func(m *dicomtls.FileMeta) { m.SOPInstanceUID = "" },
		"a path":            func(m *dicomtls.FileMeta) { m.SOPInstanceUID = "../x" },
		"no class":          func(m *dicomtls.FileMeta) { m.SOPClassUID = "CT" },
		"a long version":    func(m *dicomtls.FileMeta) { m.ImplementationVersion = "more than 16 letters" },
		"a title too long":  func(m *dicomtls.FileMeta) { m.SourceAETitle = "more than 16 letters" },
		"an unknown syntax": func(m *dicomtls.FileMeta) { m.TransferSyntaxUID = "JPEG" },
	} {
		m := want
		wrong(&m)
		out, err := m.AppendTo([]byte("before"))
		var broken *dicomtls.MetaError
		assert.ErrorAs(t, err, &broken, name)
		assert.Equal(t, "before", string(out), name)
	}
}

func writeTemp(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.dcm")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

func TestWhatRealFilesLackIsMadeUpFor(t *testing.T) {
	meta := dicomtls.FileMeta{SOPClassUID: ctStorage, SOPInstanceUID: anInstance, TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian}
	file, err := meta.AppendTo(nil)
	require.NoError(t, err)
	data := explicit().Bytes()
	whole := append(slices.Clip(file), data...)
	wrongLength := bytes.Clone(whole)
	wrongLength[128+4+8]++
	elements := new(builder).element(0x00020010, "UI", even(dicomtls.ExplicitVRLittleEndian)).Bytes()
	for name, file := range map[string][]byte{
		"as it should be":        whole,
		"a preamble of its own":  append(bytes.Repeat([]byte("II*\x00"), 32), whole[128:]...),
		"no preamble":            whole[128:],
		"no preamble, no prefix": whole[132:],
		"a wrong group length":   wrongLength,
		"no group length":        append(whole[:132:132], append(elements, data...)...),
		"no header":              data,
	} {
		got, rest, err := readMeta(file)
		require.NoError(t, err, name)
		assert.Equal(t, dicomtls.ExplicitVRLittleEndian, got.TransferSyntaxUID, name)
		assert.Equal(t, string(data), rest, name)
		o, err := dicomtls.FileObject(writeTemp(t, file))
		require.NoError(t, err, name)
		assert.Equal(t, ctStorage, o.SOPClassUID, name)
		assert.Equal(t, anInstance, o.SOPInstanceUID, name)
		assert.Equal(t, int64(len(data)), o.Size, name)
	}
	for syntax, data := range map[string][]byte{
		dicomtls.ImplicitVRLittleEndian: implicit().Bytes(),
		dicomtls.ExplicitVRBigEndian:    (&builder{big: true}).uids(ctStorage, anInstance).Bytes(),
	} {
		got, _, err := readMeta(data)
		require.NoError(t, err)
		assert.Equal(t, syntax, got.TransferSyntaxUID)
	}
	// A deflated data set may begin with any bytes, those of group 0002 too.
	meta.TransferSyntaxUID = dicomtls.DeflatedExplicitVRLittleEndian
	file, err = meta.AppendTo(nil)
	require.NoError(t, err)
	_, rest, err := readMeta(append(file, "\x02\x00\x99\x99 and so on"...))
	require.NoError(t, err)
	assert.Equal(t, "\x02\x00\x99\x99 and so on", rest)
}

func TestWhatIsNoDICOMFileIsAnErrorThatSaysSo(t *testing.T) {
	meta := dicomtls.FileMeta{SOPClassUID: ctStorage, SOPInstanceUID: anInstance, TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian}
	file, err := meta.AppendTo(nil)
	require.NoError(t, err)
	prefix := file[:132:132]
	for name, data := range map[string][]byte{
		"nothing":               {},
		"a text":                []byte("This is a text, and no image at all.\n"),
		"a PNG":                 []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
		"zeros":                 make([]byte, 1000),
		"a preamble alone":      prefix,
		"a header cut short":    file[:len(file)-5],
		"a length of 4 GiB":     append(prefix, "\x02\x00\x01\x00OB\x00\x00\xff\xff\xff\xff"...),
		"a header of 2 MiB":     append(prefix, bytes.Repeat(new(builder).element(0x00020102, "OB", strings.Repeat("x", 60_000)).Bytes(), 40)...),
		"a header without VRs":  append(prefix, "\x02\x00\x10\x00\x12\x00\x00\x001.2.840.10008.1.2\x00"...),
		"an element cut short":  append(prefix, "\x02\x00\x10"...),
		"another cut short":     append(prefix, "\x02\x00\x10\x00UI\x20\x001.2"...),
		"a long one cut short":  append(prefix, "\x02\x00\x02\x01OB\x00\x00"...),
		"nothing after its end": file,
	} {
		_, _, err := readMeta(data)
		if name == "nothing after its end" {
			assert.NoError(t, err, "the control")
			continue
		}
		var broken *dicomtls.MetaError
		assert.ErrorAs(t, err, &broken, name)
	}
}
