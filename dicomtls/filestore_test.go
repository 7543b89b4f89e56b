package dicomtls_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// storeOf is a C-STORE of data under the UIDs that explicit() writes.
func storeOf(data []byte) *dicomtls.StoreRequest {
	return &dicomtls.StoreRequest{
		Association: &dicomtls.AssociationInfo{CallingAE: "MODALITY"},
		SOPClassUID: ctStorage, SOPInstanceUID: anInstance, TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian,
		Body: bytes.NewReader(data),
	}
}

// names lists a directory.
func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// stored returns the header and the data set of a file.
func stored(t testing.TB, path string) (dicomtls.FileMeta, []byte) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	r := bufio.NewReader(f)
	meta, _, err := dicomtls.ReadFileMeta(r)
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return meta, data
}

func TestAnObjectIsAFileOfItsOwnToTheByte(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	var told dicomtls.StoredObject
	store := &dicomtls.FileStore{Dir: dir, Stored: func(_ context.Context, o dicomtls.StoredObject) error { told = o; return nil }}
	data := explicit().element(0x00100010, "PN", "Doe^Jane").Bytes()
	r := storeOf(data)
	// Whatever the pieces in which it comes.
	r.Body = iotest.OneByteReader(bytes.NewReader(data))
	require.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), r))

	path := filepath.Join(dir, anInstance+".dcm")
	meta, got := stored(t, path)
	assert.Equal(t, data, got)
	assert.Equal(t, "MODALITY", meta.SourceAETitle)
	assert.Equal(t, ctStorage, meta.SOPClassUID)
	assert.Equal(t, anInstance, meta.SOPInstanceUID)
	assert.Equal(t, dicomtls.ExplicitVRLittleEndian, meta.TransferSyntaxUID)
	assert.Equal(t, path, told.Path)
	assert.Equal(t, int64(len(data)), told.Bytes)
	assert.Equal(t, []string{anInstance + ".dcm"}, names(t, dir))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "patients' data is the owner's")
}

// What a StoreRequest brings is refused with the status that is right, and
// nothing of it stays.
func TestWhatIsNotStoredLeavesNothingBehind(t *testing.T) {
	good := explicit().element(0x00100010, "PN", "Doe^Jane").Bytes()
	for name, test := range map[string]struct {
		change func(*dicomtls.StoreRequest, *dicomtls.FileStore)
		want   dicomtls.Status
	}{
		"a path for a UID":        {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPInstanceUID = "../../../evil" }, dicomtls.StatusInvalidObjectInstance},
		"the directory for a UID": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPInstanceUID = ".." }, dicomtls.StatusInvalidObjectInstance},
		"an absolute path":        {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPInstanceUID = "/etc/passwd" }, dicomtls.StatusInvalidObjectInstance},
		"a NUL in the UID":        {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPInstanceUID = "1.2\x00.3" }, dicomtls.StatusInvalidObjectInstance},
		"no instance UID":         {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPInstanceUID = "" }, dicomtls.StatusInvalidObjectInstance},
		"a UID of 70 characters":  {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPInstanceUID = strings.Repeat("1", 70) }, dicomtls.StatusInvalidObjectInstance},
		"another instance inside": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPInstanceUID = "1.2.3" }, dicomtls.StatusDataSetMismatch},
		"another class inside":    {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4" }, dicomtls.StatusDataSetMismatch},
		"a class that is no UID":  {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.SOPClassUID = "CT" }, dicomtls.StatusDataSetMismatch},
		"no UIDs inside": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) {
			r.Body = bytes.NewReader(good[len(explicit().Bytes()):])
		}, dicomtls.StatusCannotUnderstand},
		"an element cut short": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.Body = bytes.NewReader(good[:len(good)-3]) }, dicomtls.StatusCannotUnderstand},
		"a header cut short":   {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.Body = bytes.NewReader(good[:len(good)-12]) }, dicomtls.StatusCannotUnderstand},
		"noise": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) {
			r.Body = strings.NewReader("no data set at all")
		}, dicomtls.StatusCannotUnderstand},
		"nothing": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.Body = strings.NewReader("") }, dicomtls.StatusCannotUnderstand},
		"nothing, unchecked": {func(r *dicomtls.StoreRequest, s *dicomtls.FileStore) {
			s.Unchecked, r.Body = true, strings.NewReader("")
		}, dicomtls.StatusCannotUnderstand},
		"more than is taken":       {func(_ *dicomtls.StoreRequest, s *dicomtls.FileStore) { s.MaxObjectBytes = int64(len(good)) - 1 }, dicomtls.StatusOutOfResources},
		"a disk that is too full":  {func(_ *dicomtls.StoreRequest, s *dicomtls.FileStore) { s.MinFreeBytes = 1 << 62 }, dicomtls.StatusOutOfResources},
		"a directory that is none": {func(_ *dicomtls.StoreRequest, s *dicomtls.FileStore) { s.Dir = "/dev/null/objects" }, dicomtls.StatusOutOfResources},
		"an unknown policy":        {func(_ *dicomtls.StoreRequest, s *dicomtls.FileStore) { s.Duplicates = "ignore" }, dicomtls.StatusOutOfResources},
		"a line that dies": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) {
			r.Body = io.MultiReader(bytes.NewReader(good), iotest.ErrReader(io.ErrUnexpectedEOF))
		}, dicomtls.StatusProcessingFailure},
		"a line that closes": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) {
			r.Body = io.MultiReader(bytes.NewReader(good), iotest.ErrReader(fmt.Errorf("the peer closed: %w", io.EOF)))
		}, dicomtls.StatusProcessingFailure},
		"a line that is silent":     {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.Body = silent{} }, dicomtls.StatusProcessingFailure},
		"nothing, then a dead line": {func(r *dicomtls.StoreRequest, _ *dicomtls.FileStore) { r.Body = iotest.ErrReader(errors.New("reset")) }, dicomtls.StatusProcessingFailure},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			store := &dicomtls.FileStore{Dir: filepath.Join(parent, "a", "b", "c"), MinFreeBytes: -1}
			r := storeOf(good)
			test.change(r, store)
			got := store.ServeStore(t.Context(), r)
			assert.Equal(t, test.want, got, "%s", r.Comment)
			assert.LessOrEqual(t, len(r.Comment), 64)
			require.NoError(t, filepath.WalkDir(parent, func(path string, d os.DirEntry, err error) error {
				assert.True(t, err != nil || d.IsDir(), "left behind: %s", path)
				return err
			}))
		})
	}
}

// silent never has anything to read and never says so.
type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestTheSizeLimitIsOfTheDataSetAndIncludesItsLastByte(t *testing.T) {
	data := explicit().Bytes()
	store := &dicomtls.FileStore{Dir: t.TempDir(), MaxObjectBytes: int64(len(data))}
	assert.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), storeOf(data)))
}

func TestUncheckedStoresWhatDoesNotHoldTogether(t *testing.T) {
	store := &dicomtls.FileStore{Dir: t.TempDir(), Unchecked: true}
	require.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), storeOf([]byte("anything"))))
	_, data := stored(t, filepath.Join(store.Dir, anInstance+".dcm"))
	assert.Equal(t, "anything", string(data))
}

func TestAnInstanceThatComesAgain(t *testing.T) {
	first := explicit().element(0x00100010, "PN", "Doe^Jane").Bytes()
	second := explicit().element(0x00100010, "PN", "Roe^Rick").Bytes()
	for policy, want := range map[dicomtls.DuplicatePolicy]struct {
		status dicomtls.Status
		files  map[string][]byte
	}{
		"":                          {dicomtls.StatusSuccess, map[string][]byte{anInstance + ".dcm": first, anInstance + "-2.dcm": second}},
		dicomtls.DuplicateSuffix:    {dicomtls.StatusSuccess, map[string][]byte{anInstance + ".dcm": first, anInstance + "-2.dcm": second}},
		dicomtls.DuplicateOverwrite: {dicomtls.StatusSuccess, map[string][]byte{anInstance + ".dcm": second}},
		dicomtls.DuplicateReject:    {0x0111, map[string][]byte{anInstance + ".dcm": first}},
	} {
		t.Run(string(policy), func(t *testing.T) {
			var told []bool
			store := &dicomtls.FileStore{Dir: t.TempDir(), Duplicates: policy, Stored: func(_ context.Context, o dicomtls.StoredObject) error {
				told = append(told, o.Duplicate)
				return nil
			}}
			require.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), storeOf(first)))
			require.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), storeOf(first)), "a resend")
			assert.Equal(t, []bool{false, policy != dicomtls.DuplicateOverwrite}, told)
			assert.Equal(t, []string{anInstance + ".dcm"}, names(t, store.Dir))
			assert.Equal(t, want.status, store.ServeStore(t.Context(), storeOf(second)))
			assert.Len(t, names(t, store.Dir), len(want.files))
			for name, content := range want.files {
				_, got := stored(t, filepath.Join(store.Dir, name))
				assert.Equal(t, content, got, name)
			}
		})
	}
}

// Bytes of two objects are never in one file, and none is lost.
func TestObjectsOfOneUIDThatComeAtTheSameTimeAreAllKept(t *testing.T) {
	const senders = 8
	store := &dicomtls.FileStore{Dir: t.TempDir()}
	var wg sync.WaitGroup
	for n := range senders {
		for range 2 { // each twice
			wg.Go(func() {
				data := explicit().element(0x00100010, "PN", strings.Repeat(fmt.Sprint(n), 600_000)[:60_000]).Bytes()
				assert.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), storeOf(data)))
			})
		}
	}
	wg.Wait()
	files := names(t, store.Dir)
	require.Len(t, files, senders)
	var seen []byte
	for _, name := range files {
		_, data := stored(t, filepath.Join(store.Dir, name))
		value := data[len(data)-60_000:]
		assert.Equal(t, 60_000, bytes.Count(value, value[:1]), "%s is of one object", name)
		seen = append(seen, value[0])
	}
	slices.Sort(seen)
	assert.Equal(t, "01234567", string(seen))
}

func TestSuccessWaitsForTheProgram(t *testing.T) {
	refuses := true
	store := &dicomtls.FileStore{Dir: t.TempDir(), Stored: func(_ context.Context, o dicomtls.StoredObject) error {
		assert.FileExists(t, o.Path)
		if refuses {
			return errors.New("the queue is full")
		}
		return nil
	}}
	data := explicit().Bytes()
	assert.Equal(t, dicomtls.StatusOutOfResources, store.ServeStore(t.Context(), storeOf(data)))
	refuses = false
	assert.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), storeOf(data)))
	assert.Equal(t, []string{anInstance + ".dcm"}, names(t, store.Dir))
}

func TestOpenRemovesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".incoming-123.part", "1.2.3.dcm", "notes.part", ".incoming-list"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600))
	}
	store := &dicomtls.FileStore{Dir: dir}
	require.NoError(t, store.Open())
	assert.Equal(t, []string{".incoming-list", "1.2.3.dcm", "notes.part"}, names(t, dir))
	assert.ErrorContains(t, (&dicomtls.FileStore{}).Open(), "Dir is missing")
}

func TestTheLogOfAStoreSaysWhyAndNothingOfTheObject(t *testing.T) {
	var log bytes.Buffer
	store := &dicomtls.FileStore{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	data := explicit().element(0x00100010, "PN", "Doe^Jane").header(0x00100020, "LO", 90).Bytes()
	store.ServeStore(t.Context(), storeOf(data))
	assert.Contains(t, log.String(), "C000")
	require.NoError(t, os.Chmod(store.Dir, 0o500))
	require.NoError(t, os.RemoveAll(store.Dir))
	store.ServeStore(t.Context(), storeOf(data))
	assert.Contains(t, log.String(), "A700")
	for _, secret := range []string{"Doe", anInstance, store.Dir} {
		assert.NotContains(t, log.String(), secret)
	}
}

// What a transfer syntax means for pixels is no concern of a store.
func TestObjectsOfEveryTransferSyntaxAreStoredToTheByte(t *testing.T) {
	compressed := explicit().header(pixelData, "OB", undefined).delimiter(item, 0).delimiter(item, 4)
	compressed.WriteString("\xFE\xFF\xDD\xE0") // what looks like a delimiter, in a fragment
	compressed.delimiter(sequenceEnd, 0)
	for name, test := range map[string]struct {
		syntax string
		data   []byte
	}{
		"Implicit VR":     {dicomtls.ImplicitVRLittleEndian, implicit().element(pixelData, "", "abcd").Bytes()},
		"Explicit VR":     {dicomtls.ExplicitVRLittleEndian, explicit().element(pixelData, "OW", "abcd").Bytes()},
		"Big Endian":      {dicomtls.ExplicitVRBigEndian, (&builder{big: true}).uids(ctStorage, anInstance).element(pixelData, "OW", "abcd").Bytes()},
		"Deflated":        {dicomtls.DeflatedExplicitVRLittleEndian, deflated(explicit().Bytes())},
		"JPEG":            {"1.2.840.10008.1.2.4.50", compressed.Bytes()},
		"JPEG lossless":   {"1.2.840.10008.1.2.4.70", compressed.Bytes()},
		"JPEG-LS":         {"1.2.840.10008.1.2.4.80", compressed.Bytes()},
		"JPEG 2000":       {"1.2.840.10008.1.2.4.90", compressed.Bytes()},
		"MPEG-4":          {"1.2.840.10008.1.2.4.102", compressed.Bytes()},
		"HTJ2K":           {"1.2.840.10008.1.2.4.201", compressed.Bytes()},
		"RLE":             {"1.2.840.10008.1.2.5", compressed.Bytes()},
		"a private one":   {"1.2.840.113619.5.2", []byte("in whatever order and form")},
		"another private": {"1.3.46.670589.33.1.4.1", compressed.Bytes()},
	} {
		store := &dicomtls.FileStore{Dir: t.TempDir()}
		r := storeOf(test.data)
		r.TransferSyntaxUID = test.syntax
		assert.Equal(t, dicomtls.StatusSuccess, store.ServeStore(t.Context(), r), "%s: %s", name, r.Comment)
		meta, got := stored(t, filepath.Join(store.Dir, anInstance+".dcm"))
		assert.Equal(t, test.syntax, meta.TransferSyntaxUID, name)
		assert.Equal(t, test.data, got, name)
	}
}
