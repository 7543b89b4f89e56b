package dicomtls

import (
	"bufio"
	"compress/flate"
	"errors"
	"io"
	"sync"
)

const (
	// scanBuffer is how much is read at a time.
	scanBuffer = 256 << 10
	// maxHead is how much of a deflated data set is inflated to find its UIDs:
	// what comes before them is short, and a kilobyte can inflate to a megabyte.
	maxHead = 1 << 20
)

// The elements that say what a data set is.
const (
	tagSOPClassUID    = 0x0008_0016
	tagSOPInstanceUID = 0x0008_0018
)

// scanBuffers are *bufio.Reader of scanBuffer bytes.
var scanBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, scanBuffer) }}

// Scan reads a data set to its end, as C-STORE and Part 10 files carry it, without
// group 0002, and returns nil if it is one: its tags ascend, every length stays
// within what is around it, sequences are nested 256 deep at most, and the last
// element is complete. Values are not looked at. It needs constant memory.
//
// head, unless nil, is called once with the SOP Class UID and SOP Instance UID of
// the data set as soon as both must have come, "" for one that is missing; an
// error that it returns ends the scan, and is what Scan returns.
//
// A deflated data set is inflated only up to the UIDs, within 1 MiB; a transfer
// syntax that is not DICOM's own may be encoded in any way, and is read to its end
// and no more, head not called.
//
// The error is a *[DataSetError], that of head, or that of r.
func Scan(r io.Reader, transferSyntaxUID string, head func(sopClassUID, sopInstanceUID string) error) error {
	br, _ := scanBuffers.Get().(*bufio.Reader)
	defer func() { br.Reset(nil); scanBuffers.Put(br) }()
	br.Reset(r)
	enc, known := encodingOf(transferSyntaxUID)
	switch {
	case !known:
		return drain(br)
	case enc.deflated:
		if head != nil {
			if err := scanDeflatedHead(br, head); err != nil {
				return err
			}
		}
		return drain(br)
	}
	s := scanner{walker: newWalker(br, enc), head: head}
	for {
		done, err := s.step()
		if done || err != nil {
			return err
		}
	}
}

func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, onlyReader{r})
	return err
}

// onlyReader hides what else a reader can do, so that the reads keep their size.
type onlyReader struct{ io.Reader }

// scanDeflatedHead inflates as much of br as has the UIDs.
func scanDeflatedHead(br *bufio.Reader, head func(sopClassUID, sopInstanceUID string) error) error {
	inflated := flate.NewReader(br)
	limited := &io.LimitedReader{R: inflated, N: maxHead}
	s := scanner{walker: newWalker(bufio.NewReader(limited), encoding{}), head: head}
	for s.head != nil {
		done, err := s.step()
		var corrupt flate.CorruptInputError
		switch {
		case s.head == nil && s.headErr != nil:
			return s.headErr
		case errors.As(err, &corrupt):
			return s.fail(0, "is not a deflate stream")
		case errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrTruncated):
			return &DataSetError{Offset: s.offset, Err: ErrTruncated}
		case err != nil && limited.N == 0:
			return s.fail(0, "has no SOP Instance UID in its first %d bytes", maxHead)
		case err != nil:
			return err
		case done:
			return nil
		}
	}
	return nil
}

// scanner walks a data set and finds its UIDs.
type scanner struct {
	*walker

	head            func(sopClassUID, sopInstanceUID string) error // nil once it was called
	headErr         error
	class, instance string
}

// step takes one token. done is the end of the data set.
func (s *scanner) step() (done bool, err error) {
	outermost := s.depth == 0
	t, err := s.next()
	switch {
	case err != nil:
		return false, err
	case s.head == nil || !outermost:
		return t.kind == tokenEnd, nil
	case t.kind == tokenEnd || t.tag > tagSOPInstanceUID:
		head := s.head
		s.head = nil
		s.headErr = head(s.class, s.instance)
		return t.kind == tokenEnd, s.headErr
	case t.tag == tagSOPClassUID:
		s.class, err = s.uid()
	case t.tag == tagSOPInstanceUID:
		s.instance, err = s.uid()
	}
	return false, err
}
