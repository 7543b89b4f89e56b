package dicomtls

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// An Object is what an Association stores with its peer. The data set comes from
// Open, and is not held in memory.
type Object struct {
	SOPClassUID, SOPInstanceUID string
	TransferSyntaxUID           string // of the data set as Open gives it
	// Size is the length of the data set in bytes. Zero: it is not known, and the
	// end of the reader is the end of the data set. Else it is an error if the
	// reader gives more or less. A data set has an even length (PS3.5 7.1); one
	// that is deflated is made even with a NUL (PS3.5 A.5).
	Size int64
	// Open returns the data set, without preamble and without group 0002. It may
	// be called more than once, each time from the beginning. Reads are not
	// interrupted at the end of a context.
	Open func() (io.ReadCloser, error)
	// Name is what errors call the object, such as a file's path. May be empty.
	Name string
	// Priority is for the peer. The zero value is medium.
	Priority Priority
}

// FileObject makes an Object of a DICOM file (PS3.10). It reads the file meta
// information, or the beginning of the data set for a UID that is missing there,
// and the data set when the object is sent.
func FileObject(path string) (Object, error) {
	f, err := os.Open(path)
	if err != nil {
		return Object{}, fmt.Errorf("dicomtls: %w", err)
	}
	defer f.Close()
	meta, start, err := ReadFileMeta(bufio.NewReader(f))
	if err != nil {
		return Object{}, fmt.Errorf("dicomtls: %s: %w", path, err)
	}
	if err := meta.complete(f, start); err != nil {
		return Object{}, fmt.Errorf("dicomtls: %s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return Object{}, fmt.Errorf("dicomtls: %w", err)
	}
	return Object{
		SOPClassUID: meta.SOPClassUID, SOPInstanceUID: meta.SOPInstanceUID, TransferSyntaxUID: meta.TransferSyntaxUID,
		Size: info.Size() - start, Name: path,
		Open: func() (io.ReadCloser, error) {
			f, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			if _, err := f.Seek(start, io.SeekStart); err != nil {
				f.Close()
				return nil, err
			}
			return f, nil
		},
	}, nil
}

// check returns why the object cannot be sent.
func (o *Object) check() error {
	switch {
	case !validUID(o.SOPClassUID):
		return o.bad("the SOP Class UID is missing or is no UID")
	case !validUID(o.SOPInstanceUID):
		return o.bad("the SOP Instance UID is missing or is no UID")
	case !validUID(o.TransferSyntaxUID):
		return o.bad("the Transfer Syntax UID is missing or is no UID")
	case o.Open == nil:
		return o.bad("Open is nil")
	case o.Size < 0:
		return o.bad("Size is negative")
	case o.Size%2 != 0 && !o.deflated():
		return o.bad("its length is odd")
	}
	return nil
}

func (o *Object) deflated() bool {
	enc, known := encodingOf(o.TransferSyntaxUID)
	return known && enc.deflated
}

func (o *Object) bad(why string) error { return o.named(fmt.Errorf("%w: %s", ErrBadObject, why)) }

// named adds the object's name to an error.
func (o *Object) named(err error) error {
	if o.Name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", o.Name, err)
}

// A source cuts a data set into fragments.
type source struct {
	o     *Object
	r     io.Reader
	left  int64         // of Size; -1: not known
	ahead *bufio.Reader // r, if the size is not known
}

func newSource(o *Object, r io.Reader) *source {
	s := &source{o: o, r: r, left: o.Size}
	if o.Size == 0 {
		s.left, s.ahead = -1, bufio.NewReaderSize(r, 64<<10)
	}
	return s
}

// fragment fills p, whose length is even, or what is left of the data set, and
// says whether this is the end. What it returns has an even length.
func (s *source) fragment(p []byte) (n int, last bool, err error) {
	if s.left < 0 {
		n, err = io.ReadFull(s.ahead, p)
		if err == nil {
			_, err = s.ahead.Peek(1)
		}
		last = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		switch {
		case err != nil && !last:
			return 0, false, s.o.named(err)
		case n == 0:
			return 0, false, s.o.bad("its data set is empty")
		case n%2 == 0:
			return n, last, nil
		}
		return s.pad(p, n)
	}
	want := int(min(s.left, int64(len(p))))
	if n, err = io.ReadFull(s.r, p[:want]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrSourceChanged
		}
		return 0, false, s.o.named(err)
	}
	if s.left -= int64(n); s.left > 0 {
		return n, false, nil
	}
	var more [1]byte
	if _, err := io.ReadFull(s.r, more[:]); !errors.Is(err, io.EOF) {
		if err == nil {
			err = ErrSourceChanged
		}
		return 0, false, s.o.named(err)
	}
	if n%2 == 0 {
		return n, true, nil
	}
	return s.pad(p, n)
}

// pad makes the end of a data set even: p has room for it, since its length is.
func (s *source) pad(p []byte, n int) (int, bool, error) {
	if !s.o.deflated() {
		return 0, false, s.o.bad("its length is odd")
	}
	p[n] = 0
	return n + 1, true, nil
}

// A Proposal is a presentation context that is to be negotiated.
type Proposal struct {
	AbstractSyntax   string   // a SOP class
	TransferSyntaxes []string // of which the peer takes one; none: Explicit and Implicit VR Little Endian

	// provider proposes the roles the other way round: this side is the SCP.
	provider bool
}

// Propose returns what has to be proposed to send objects as they are: for each
// SOP class and transfer syntax a context, so that the peer cannot choose between
// them; and for uncompressed ones Implicit VR Little Endian besides, which
// everyone must take (PS3.5 10.1), and Explicit.
func Propose(objects []Object) []Proposal {
	var all []Proposal
	for i := range objects {
		o := &objects[i]
		for _, uid := range o.syntaxes() {
			if !slices.ContainsFunc(all, func(p Proposal) bool {
				return p.AbstractSyntax == o.SOPClassUID && p.TransferSyntaxes[0] == uid
			}) {
				all = append(all, Proposal{AbstractSyntax: o.SOPClassUID, TransferSyntaxes: []string{uid}})
			}
		}
	}
	return all
}

// syntaxes returns the transfer syntaxes in which the object can be sent.
func (o *Object) syntaxes() []string {
	list := []string{o.TransferSyntaxUID}
	for _, uid := range ownSyntaxes {
		if uid != o.TransferSyntaxUID && CanConvert(o.TransferSyntaxUID, uid) {
			list = append(list, uid)
		}
	}
	return list
}

// converted returns the object in another transfer syntax.
func (o *Object) converted(to string) *Object {
	c := *o
	c.TransferSyntaxUID, c.Size = to, 0
	c.Open = func() (io.ReadCloser, error) {
		src, err := o.Open()
		if err != nil {
			return nil, err
		}
		r, w := io.Pipe()
		conv := &conversion{PipeReader: r, done: make(chan struct{})}
		go func() {
			defer close(conv.done)
			defer src.Close() // what matters was read
			err := Convert(w, src, o.TransferSyntaxUID, to)
			if _, broken := errors.AsType[*DataSetError](err); broken {
				err = fmt.Errorf("%w: %w", ErrBadObject, err)
			}
			_ = w.CloseWithError(err) // which never fails
		}()
		return conv, nil
	}
	return &c
}

// A conversion is a data set that is being converted while it is read.
type conversion struct {
	*io.PipeReader

	done chan struct{} // closed when the converting goroutine has ended
}

func (c *conversion) Close() error {
	err := c.PipeReader.Close()
	<-c.done
	return err
}

// bytesReader is a data set in memory.
func bytesReader(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// BytesObject makes an Object of a data set in memory, which must not be
// modified until it has been sent.
func BytesObject(class, instance, transferSyntax string, data []byte) Object {
	return Object{
		SOPClassUID: class, SOPInstanceUID: instance, TransferSyntaxUID: transferSyntax,
		Size: int64(len(data)), Open: bytesReader(data),
	}
}
