package dicomtls

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const (
	defaultMaxObjectBytes = 16 << 30
	defaultMinFreeBytes   = 256 << 20

	// Names of files that are being written. No UID begins with a dot.
	partPrefix, partSuffix = ".incoming-", ".part"
	objectSuffix           = ".dcm"
)

// A FileStore is a [StoreHandler] that keeps each object as a DICOM file (PS3.10)
// of Dir, named by its SOP Instance UID: preamble, file meta information, and the
// data set as it came, byte for byte.
//
// It answers success when the file, whole and under its name, has reached the
// disk: written to a name that nobody takes for an object, synced, renamed, and
// the directory synced. Whatever goes wrong before leaves nothing behind, and a
// crash only what Open removes. The data set is checked while it passes through:
// see [Scan].
//
//	0117  the SOP Instance UID is none
//	A700  the disk is full or cannot be written, the object is too large, or
//	      Stored failed: another try may help
//	A900  the data set is of another SOP class or instance than was said
//	C000  the data set does not hold together, or does not say what it is
//	0111  the instance is there already, with another content (DuplicateReject)
//
// Dir must be set; every other zero field has a default. A Dir belongs to one
// FileStore at a time. Fields must not be changed after the first call of a
// method; the methods are safe for concurrent use.
type FileStore struct {
	// Dir is where the files are; it is made (mode 0700) where it is missing.
	Dir string
	// Duplicates says what becomes of an instance that is there already. Zero:
	// DuplicateSuffix.
	Duplicates DuplicatePolicy
	// MaxObjectBytes limits a data set. If zero, 16 GiB; negative means no limit.
	MaxObjectBytes int64
	// MinFreeBytes is how much must be free on the file system for an object to be
	// begun, where the system tells. If zero, 256 MiB; negative means none.
	MinFreeBytes int64
	// Unchecked stores data sets without looking into them: broken ones, and those
	// that are not what the command said.
	Unchecked bool
	// Stored, unless nil, is called when an object is on disk and before success
	// is answered, by several associations at once. If it returns an error, A700
	// is answered; the file stays, and the sender's next try calls Stored again.
	Stored func(ctx context.Context, o StoredObject) error
	// Logger gets what could not be stored, and why; never a UID or anything else
	// of the object. nil: nothing is logged.
	Logger *slog.Logger

	opening sync.Once
	openErr error // of opening

	naming sync.Mutex // held while a name is looked for and taken
}

// StoredObject is an object that a FileStore has on disk.
type StoredObject struct {
	Path string
	Meta FileMeta
	// Bytes is the size of the data set, not of the file.
	Bytes int64
	// Duplicate is set if the same data set was there already: nothing was written.
	Duplicate bool
	// Association is how the object came.
	Association *AssociationInfo
}

// DuplicatePolicy says what a FileStore does with an object whose SOP Instance
// UID it has already. Whichever it is, an object whose data set is the same to the
// byte, as after a lost response, is kept once and answered with success.
type DuplicatePolicy string

// The policies.
const (
	// DuplicateSuffix, or the empty string, keeps both: the second gets a name
	// that ends in -2.dcm.
	DuplicateSuffix DuplicatePolicy = "suffix"
	// DuplicateOverwrite keeps the later one.
	DuplicateOverwrite DuplicatePolicy = "overwrite"
	// DuplicateReject keeps the first, and answers 0111, duplicate SOP instance.
	DuplicateReject DuplicatePolicy = "reject"
)

// statusDuplicateInstance is Duplicate SOP Instance (PS3.7 C.5.6).
const statusDuplicateInstance Status = 0x0111

// storeError is why an object was not stored.
type storeError struct {
	status  Status
	comment string // for the peer: says nothing of the object
	err     error  // nil: the comment says it all
}

func (e *storeError) Error() string {
	if e.err == nil {
		return e.comment
	}
	return e.comment + ": " + e.err.Error()
}

func (e *storeError) Unwrap() error { return e.err }

// Open makes Dir where it is missing and removes what a crash left there. Call it
// before listening, to learn at once that the directory cannot be used; ServeStore
// does it otherwise. Later calls return what the first one did.
func (s *FileStore) Open() error {
	s.opening.Do(func() { s.openErr = s.open() })
	return s.openErr
}

func (s *FileStore) open() error {
	if s.Dir == "" {
		return errors.New("dicomtls: FileStore.Dir is missing")
	}
	switch s.Duplicates {
	case "", DuplicateSuffix, DuplicateOverwrite, DuplicateReject:
	default:
		return fmt.Errorf("dicomtls: FileStore.Duplicates %q is unknown: use suffix, overwrite or reject", string(s.Duplicates))
	}
	if err := makeDir(s.Dir); err != nil {
		return fmt.Errorf("dicomtls: FileStore: %w", err)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("dicomtls: FileStore: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partPrefix) && strings.HasSuffix(e.Name(), partSuffix) {
			if err := os.Remove(filepath.Join(s.Dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("dicomtls: FileStore: %w", err)
			}
		}
	}
	return nil
}

// ServeStore stores the object of r.
func (s *FileStore) ServeStore(ctx context.Context, r *StoreRequest) Status {
	err := s.store(ctx, r)
	if err == nil {
		return StatusSuccess
	}
	failed, ok := errors.AsType[*storeError](err)
	if !ok {
		// The association is gone, and nobody waits for the answer.
		return StatusProcessingFailure
	}
	r.Comment = failed.comment
	if s.Logger != nil {
		s.Logger.WarnContext(ctx, "object not stored", "status", failed.status.String(), "reason", failed.comment, "error", withoutPaths(failed.err))
	}
	return failed.status
}

// store stores one object. An error that is no *storeError is that of r.Body.
func (s *FileStore) store(ctx context.Context, r *StoreRequest) error {
	if err := s.Open(); err != nil {
		return &storeError{StatusOutOfResources, "the store cannot be used", err}
	}
	if !validUID(r.SOPInstanceUID) {
		return &storeError{status: StatusInvalidObjectInstance, comment: "the SOP Instance UID is not a UID"}
	}
	meta := FileMeta{SOPClassUID: r.SOPClassUID, SOPInstanceUID: r.SOPInstanceUID, TransferSyntaxUID: r.TransferSyntaxUID}
	if r.Association != nil && validAE(r.Association.CallingAE) {
		meta.SourceAETitle = r.Association.CallingAE
	}
	start, err := meta.AppendTo(make([]byte, 0, 512))
	if err != nil {
		return &storeError{StatusDataSetMismatch, "a UID of the request is not a UID", err}
	}
	if err := s.checkSpace(); err != nil {
		return err
	}
	part, err := os.CreateTemp(s.Dir, partPrefix+"*"+partSuffix) // mode 0600
	if err != nil {
		return &storeError{StatusOutOfResources, "the disk cannot be written", err}
	}
	// Gone already if it has its name. What cannot be removed, Open removes.
	defer func() { _ = os.Remove(part.Name()) }()
	size, err := s.receive(part, start, r)
	if err != nil {
		return err
	}
	return s.commit(ctx, part.Name(), StoredObject{Meta: meta, Bytes: size, Association: r.Association}, int64(len(start)))
}

// checkSpace refuses an object that would hardly fit, before it is read.
func (s *FileStore) checkSpace() error {
	least := s.MinFreeBytes
	if least == 0 {
		least = defaultMinFreeBytes
	}
	if least < 0 {
		return nil
	}
	if free, known := freeBytes(s.Dir); known && free < uint64(least) {
		return &storeError{status: StatusOutOfResources, comment: "not enough space on the disk"}
	}
	return nil
}

// receive writes start and the object's data set to part, checks it on the way,
// and syncs and closes the file. It returns the size of the data set.
func (s *FileStore) receive(part *os.File, start []byte, r *StoreRequest) (int64, error) {
	in := &spool{body: r.Body, file: part, limit: s.MaxObjectBytes, offset: int64(len(start))}
	if in.limit == 0 {
		in.limit = defaultMaxObjectBytes
	}
	_, err := part.Write(start)
	if err != nil {
		err = &storeError{StatusOutOfResources, "the disk cannot be written", err}
	} else {
		err = s.read(in, r)
	}
	if err == nil && in.broken {
		err = in.bodyErr
	}
	if err == nil && in.size == 0 {
		err = &storeError{status: StatusCannotUnderstand, comment: "the data set is empty"}
	}
	if err == nil {
		err = part.Sync()
	}
	if closing := part.Close(); err == nil {
		err = closing
	}
	_, ours := errors.AsType[*storeError](err)
	switch {
	case err == nil:
		return in.size, nil
	case in.broken:
		return 0, in.bodyErr // whatever that did to the check
	case ours:
		return 0, err
	}
	return 0, &storeError{StatusOutOfResources, "the disk cannot be written", err}
}

// read reads the data set to its end through the checks.
func (s *FileStore) read(in *spool, r *StoreRequest) error {
	var err error
	if s.Unchecked {
		br, _ := scanBuffers.Get().(*bufio.Reader)
		br.Reset(in)
		err = drain(br)
		br.Reset(nil)
		scanBuffers.Put(br)
		return err
	}
	err = Scan(in, r.TransferSyntaxUID, func(class, instance string) error {
		if class == "" && instance == "" {
			return &storeError{status: StatusCannotUnderstand, comment: "the data set does not say what it is"}
		}
		if class != r.SOPClassUID || instance != r.SOPInstanceUID {
			return &storeError{status: StatusDataSetMismatch, comment: "the data set is of another SOP class or instance"}
		}
		return nil
	})
	if broken, ok := errors.AsType[*DataSetError](err); ok {
		return &storeError{StatusCannotUnderstand, "the data set does not hold together", broken}
	}
	return err
}

// spool reads a body and writes what it reads to a file, in pieces as large as
// the reader asks for.
type spool struct {
	// static after construction
	body  io.Reader
	file  *os.File
	limit int64 // of size; negative: none

	offset int64 // where the data set begins in file

	size    int64
	bodyErr error // io.EOF: it is complete
	broken  bool  // bodyErr is another one
}

func (s *spool) Read(p []byte) (int, error) {
	n, idle := 0, 0
	for n < len(p) && s.bodyErr == nil {
		var got int
		got, s.bodyErr = s.body.Read(p[n:])
		n += got
		if idle++; got > 0 {
			idle = 0
		} else if idle == 100 && s.bodyErr == nil {
			s.bodyErr = io.ErrNoProgress
		}
		s.broken = s.bodyErr != nil && !isEnd(s.bodyErr)
	}
	if n == 0 {
		return 0, s.bodyErr
	}
	if s.size += int64(n); s.limit >= 0 && s.size > s.limit {
		return 0, &storeError{status: StatusOutOfResources, comment: "the object is larger than is taken here"}
	}
	if _, err := s.file.Write(p[:n]); err != nil {
		return 0, &storeError{StatusOutOfResources, "the disk cannot be written", err}
	}
	startWriteback(s.file, s.offset+s.size-int64(n), int64(n))
	return n, nil
}
