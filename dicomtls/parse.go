package dicomtls

import (
	"bufio"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"

	"github.com/suyashkumar/dicom"
)

// What ReadDataSet lets the parser have. It needs some hundred bytes for each
// element, sixteen for each value of a few bytes, and for nesting the square of
// the depth.
const (
	maxParseDepth    = 32
	maxParseElements = 100_000
	maxParseBytes    = 16 << 20 // of values, those of pixel data not counted
)

// ErrTooLarge is in the error of ReadDataSet for a data set that is more than it
// gives to the parser.
var ErrTooLarge = errors.New("dicomtls: the data set is too large to be parsed")

// ReadDataSet parses the data set of a DICOM file (PS3.10), without the values of
// pixel data, which are skipped. It is for programs that want to look into an
// object that they have; storing and sending never parse.
//
// The file is first gone through in constant memory, because the parser itself
// takes a truncated file for a whole one, and the memory that a hostile one asks
// for: what [Scan] refuses, more than 32 levels of sequences and items, 100,000
// elements, or 16 MiB of values other than pixel data is an error. So is what
// the parser would read in another way than Scan does: VRs that it does not know,
// and unknown sequences (UN) without a length.
//
// The error is a *[MetaError], a *[DataSetError], ErrTooLarge, that of the parser,
// or that of r.
func ReadDataSet(r io.ReadSeeker) (FileMeta, dicom.Dataset, error) {
	br := bufio.NewReaderSize(r, convertBuffer)
	meta, start, err := ReadFileMeta(br)
	if err != nil {
		return meta, dicom.Dataset{}, err
	}
	enc, known := encodingOf(meta.TransferSyntaxUID)
	if !known {
		return meta, dicom.Dataset{}, &MetaError{Tag: tagMetaTransferSyntax, Err: errors.New("is not a transfer syntax of DICOM")}
	}
	size, err := survey(br, enc)
	if err != nil {
		return meta, dicom.Dataset{}, err
	}
	if _, err := r.Seek(start, io.SeekStart); err != nil {
		return meta, dicom.Dataset{}, err
	}
	set, err := parse(r, enc, size)
	return meta, set, err
}

// survey goes through a data set and returns its size, inflated.
func survey(br *bufio.Reader, enc encoding) (int64, error) {
	if enc.deflated {
		br = bufio.NewReaderSize(flate.NewReader(br), convertBuffer)
	}
	w := newWalker(br, enc)
	w.isSequence = dictionarySequence
	var values int64
	for {
		t, err := w.next()
		if err != nil {
			return 0, err
		}
		if t.kind == tokenEnd {
			return w.offset, nil
		}
		if err := w.parsable(t); err != nil {
			return 0, err
		}
		if t.kind == tokenElement && t.tag != tagPixelData {
			values += int64(t.length)
		}
		switch {
		case w.depth > maxParseDepth:
			return 0, fmt.Errorf("%w: it is nested more than %d deep", ErrTooLarge, maxParseDepth)
		case w.count > maxParseElements:
			return 0, fmt.Errorf("%w: it has more than %d elements", ErrTooLarge, maxParseElements)
		case values > maxParseBytes:
			return 0, fmt.Errorf("%w: it has more than %d bytes besides pixel data", ErrTooLarge, maxParseBytes)
		case enc.deflated && w.offset > maxInflated:
			return 0, fmt.Errorf("%w: it inflates to more than %d bytes", ErrTooLarge, int64(maxInflated))
		}
	}
}

// maxInflated bounds the time that a small file can take by inflating to a large one.
const maxInflated = 1 << 30

// parsable refuses elements of whose length or kind the parser has another idea.
func (w *walker) parsable(t token) error {
	switch {
	case t.vr == 0 && t.kind == tokenSequence && t.length == undefinedLength && dictionaryVR(t.tag, false) != vrSQ && dictionaryVR(t.tag, false) != vrUN,
		t.vr == 0 && t.tag == tagPixelData && t.kind != tokenElement:
		return w.fail(t.tag, "has no length, which its VR does not allow")
	case t.vr == 0 && t.kind == tokenElement && !w.enc().implicit: // two NULs in its place
		return w.fail(t.tag, "has a VR that the parser does not know")
	case t.vr == 0: // items, and Implicit VR
		return nil
	case !t.vr.letters(), t.vr.long() && !parserLong[t.vr]:
		return w.fail(t.tag, "has a VR that the parser does not know")
	case t.kind == tokenEncapsulated && t.vr != vrOB && t.vr != vrOW:
		return w.fail(t.tag, "has fragments, which the parser knows of OB and OW alone")
	case t.vr == vrUN && t.kind == tokenSequence:
		return w.fail(t.tag, "is an unknown sequence, which the parser reads in another encoding")
	case !t.vr.long() && t.length == 0xFFFF:
		return w.fail(t.tag, "is of a length that the parser takes for none")
	case t.tag == tagPixelData && t.vr != vrOB && t.vr != vrOW:
		return w.fail(t.tag, "is pixel data of a VR that it cannot have")
	}
	return nil
}

// parserLong are the VRs that the parser, too, reads with 32 bits of length.
var parserLong = map[vr]bool{
	vrOB: true, vrOD: true, vrOF: true, vrOL: true, vrOW: true, vrSQ: true, vrUC: true, vrUN: true, vrUR: true, vrUT: true,
}

// parse parses a data set that has been found fit for it.
func parse(r io.Reader, enc encoding, size int64) (set dicom.Dataset, err error) {
	// The parser panics on some values that are not what their VR promises.
	defer func() {
		if p := recover(); p != nil {
			set, err = dicom.Dataset{}, errors.New("dicomtls: the parser failed on a value")
		}
	}()
	if enc.deflated {
		r = flate.NewReader(bufio.NewReader(r))
	}
	// Without a header the parser would guess the transfer syntax.
	meta := FileMeta{SOPClassUID: VerificationSOPClass, SOPInstanceUID: VerificationSOPClass, TransferSyntaxUID: ExplicitVRLittleEndian}
	switch {
	case enc.implicit:
		meta.TransferSyntaxUID = ImplicitVRLittleEndian
	case enc.bigEndian:
		meta.TransferSyntaxUID = ExplicitVRBigEndian
	}
	header, err := meta.AppendTo(nil)
	if err != nil {
		return dicom.Dataset{}, err
	}
	p, err := dicom.NewParser(io.MultiReader(bytes.NewReader(header), r), int64(len(header))+size, nil,
		dicom.SkipPixelData(), dicom.AllowUnknownSpecificCharacterSet())
	if err != nil {
		return dicom.Dataset{}, fmt.Errorf("dicomtls: %w", err)
	}
	for {
		e, err := p.Next()
		switch {
		case errors.Is(err, dicom.ErrorEndOfDICOM):
			return set, nil
		case err != nil:
			// Its text may quote a value.
			return dicom.Dataset{}, &parseError{err}
		}
		set.Elements = append(set.Elements, e)
	}
}

// parseError is an error of the parser, whose text is not repeated.
type parseError struct{ err error }

func (e *parseError) Error() string { return "dicomtls: the parser cannot read the data set" }
func (e *parseError) Unwrap() error { return e.err }
