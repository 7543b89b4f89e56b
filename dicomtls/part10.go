package dicomtls

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	preambleBytes = 128
	magic         = "DICM"
	// maxMetaBytes bounds the file meta information, of which the standard's own
	// elements come to less than 1 KiB; (0002,0102) may hold anything.
	maxMetaBytes = 1 << 20
	// maxMetaValue is the longest value that is kept. All kept ones are UIDs and
	// shorter names.
	maxMetaValue = 128
)

// FileMeta is the file meta information of a DICOM file (PS3.10 7.1), as far as
// it matters here: group 0002, in which a file says what it holds.
type FileMeta struct {
	SOPClassUID            string // (0002,0002)
	SOPInstanceUID         string // (0002,0003)
	TransferSyntaxUID      string // (0002,0010) of the data set that follows
	ImplementationClassUID string // (0002,0012) of who wrote the file; empty: this package's
	ImplementationVersion  string // (0002,0013), 16 characters at most
	SourceAETitle          string // (0002,0016) of the file's origin
}

// A MetaError says that a file cannot be read as a DICOM file.
type MetaError struct {
	Tag uint32 // gggg<<16 | eeee; 0 if none is to blame
	Err error
}

// Error returns "dicomtls: file meta information (gggg,eeee): reason".
func (e *MetaError) Error() string {
	at := ""
	if e.Tag != 0 {
		at = fmt.Sprintf(" (%04X,%04X)", e.Tag>>16, e.Tag&0xFFFF)
	}
	return fmt.Sprintf("dicomtls: file meta information%s: %v", at, e.Err)
}

// Unwrap returns the reason.
func (e *MetaError) Unwrap() error { return e.Err }

// The elements of the file meta information.
const (
	tagMetaLength          = 0x0002_0000
	tagMetaVersion         = 0x0002_0001
	tagMetaSOPClass        = 0x0002_0002
	tagMetaSOPInstance     = 0x0002_0003
	tagMetaTransferSyntax  = 0x0002_0010
	tagMetaImplementation  = 0x0002_0012
	tagMetaImplementationV = 0x0002_0013
	tagMetaSourceAE        = 0x0002_0016
)

// AppendTo appends preamble, prefix and file meta information to b: what comes
// before the data set in a file. It is an error if a UID has not the form of one,
// or a name is too long.
func (m *FileMeta) AppendTo(b []byte) ([]byte, error) {
	class, version := m.ImplementationClassUID, m.ImplementationVersion
	if class == "" {
		class, version = implementationClassUID, implementationVersion
	}
	for _, uid := range []struct {
		tag   uint32
		value string
	}{
		{tagMetaSOPClass, m.SOPClassUID},
		{tagMetaSOPInstance, m.SOPInstanceUID},
		{tagMetaTransferSyntax, m.TransferSyntaxUID},
		{tagMetaImplementation, class},
	} {
		if !validUID(uid.value) {
			return b, &MetaError{Tag: uid.tag, Err: errors.New("is not a UID")}
		}
	}
	if len(version) > 16 {
		return b, &MetaError{Tag: tagMetaImplementationV, Err: errors.New("has more than 16 characters")}
	}
	if m.SourceAETitle != "" && !validAE(m.SourceAETitle) {
		return b, &MetaError{Tag: tagMetaSourceAE, Err: errors.New("is not an AE title")}
	}
	start := len(b)
	b = append(b, make([]byte, preambleBytes)...)
	b = append(b, magic...)
	b = appendMeta(b, tagMetaLength, vrUL, "\x00\x00\x00\x00")
	first := len(b)
	// OB has a length of 32 bits after two reserved bytes.
	b = append(b, 2, 0, 1, 0, 'O', 'B', 0, 0, 2, 0, 0, 0, 0, 1)
	b = appendMeta(b, tagMetaSOPClass, vrUI, m.SOPClassUID)
	b = appendMeta(b, tagMetaSOPInstance, vrUI, m.SOPInstanceUID)
	b = appendMeta(b, tagMetaTransferSyntax, vrUI, m.TransferSyntaxUID)
	b = appendMeta(b, tagMetaImplementation, vrUI, class)
	if version != "" {
		b = appendMeta(b, tagMetaImplementationV, 'S'<<8|'H', version)
	}
	if m.SourceAETitle != "" {
		b = appendMeta(b, tagMetaSourceAE, 'A'<<8|'E', m.SourceAETitle)
	}
	binary.LittleEndian.PutUint32(b[start+preambleBytes+len(magic)+8:], uint32(len(b)-first))
	return b, nil
}

// appendMeta appends an element with a length of 16 bits. Odd UIDs are padded
// with NUL, other text with a space.
func appendMeta(b []byte, tag uint32, v vr, value string) []byte {
	if len(value)%2 == 1 {
		if v == vrUI {
			value += "\x00"
		} else {
			value += " "
		}
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(tag>>16))
	b = binary.LittleEndian.AppendUint16(b, uint16(tag))
	b = append(b, byte(v>>8), byte(v))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// ReadFileMeta reads the beginning of a DICOM file from r and leaves r at the
// first byte of the data set. size is how many bytes that was, from where r was.
//
// What real files lack is made up for where it can be: without preamble, or
// without file meta information, or without a transfer syntax in it, the syntax
// is told from the first element, explicit or implicit, little or big endian, and
// the UIDs that are missing stay empty; Scan finds those of the data set. A wrong
// or missing length of the group is not heeded. Nothing says so of a deflated
// data set, and it is not recognised.
//
// r must have a buffer of 512 bytes or more. The error is a *[MetaError] or that
// of r.
func ReadFileMeta(r *bufio.Reader) (meta FileMeta, size int64, err error) {
	m := metaReader{r: r}
	start, err := r.Peek(preambleBytes + len(magic))
	switch {
	case err == nil && string(start[preambleBytes:]) == magic:
		m.discard(preambleBytes + len(magic))
	case err != nil && !errors.Is(err, io.EOF):
		return FileMeta{}, 0, err
	case len(start) >= len(magic) && string(start[:len(magic)]) == magic:
		m.discard(len(magic))
	}
	if err := m.read(); err != nil {
		return FileMeta{}, m.size, err
	}
	if m.meta.TransferSyntaxUID == "" {
		if m.meta.TransferSyntaxUID, err = m.guess(); err != nil {
			return FileMeta{}, m.size, err
		}
	}
	return m.meta, m.size, nil
}

// metaReader reads the elements of group 0002.
type metaReader struct {
	r    *bufio.Reader
	meta FileMeta
	size int64
	end  int64 // offset of the end by (0002,0000); 0 if that is missing
	last uint32
}

func (m *metaReader) discard(n int) {
	skipped, _ := m.r.Discard(n) // what is missing is found by the next Peek
	m.size += int64(skipped)
}

func (m *metaReader) fail(tag uint32, text string) error {
	return &MetaError{Tag: tag, Err: errors.New(text)}
}

// read reads elements as long as they are of group 0002. The length of the group
// decides only where a deflated data set begins, whose first bytes may be any.
func (m *metaReader) read() error {
	for {
		deflated := m.meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
		if deflated && m.size == m.end {
			return nil
		}
		b, err := m.r.Peek(8)
		if len(b) < 8 && !errors.Is(err, io.EOF) {
			return err
		}
		if len(b) < 2 || binary.LittleEndian.Uint16(b) != 2 {
			return nil
		}
		if len(b) < 8 {
			return m.fail(0, "ends within an element")
		}
		if err := m.element(b); err != nil {
			return err
		}
		if m.size > maxMetaBytes {
			return m.fail(0, fmt.Sprintf("is longer than %d bytes", maxMetaBytes))
		}
	}
}

// element reads one element, of which b are the first 8 bytes.
func (m *metaReader) element(b []byte) error {
	tag := uint32(2)<<16 | uint32(binary.LittleEndian.Uint16(b[2:]))
	v := vr(b[4])<<8 | vr(b[5])
	if !v.letters() {
		return m.fail(tag, "has no VR: file meta information is Explicit VR Little Endian")
	}
	if tag <= m.last && m.last != 0 {
		return m.fail(tag, "is out of order")
	}
	m.last = tag
	size, length := 8, int64(binary.LittleEndian.Uint16(b[6:]))
	if v.long() {
		size = 12
		long, err := m.r.Peek(size)
		if err != nil {
			return m.ends(tag, err)
		}
		length = int64(binary.LittleEndian.Uint32(long[8:]))
	}
	if length > maxMetaBytes {
		return m.fail(tag, fmt.Sprintf("is longer than %d bytes", maxMetaBytes))
	}
	m.discard(size)
	if length > maxMetaValue {
		n, err := m.r.Discard(int(length))
		m.size += int64(n)
		if err != nil {
			return m.ends(tag, err)
		}
		return nil
	}
	value, err := m.r.Peek(int(length))
	if err != nil {
		return m.ends(tag, err)
	}
	if tag == tagMetaLength && length == 4 {
		m.end = m.size + length + int64(binary.LittleEndian.Uint32(value))
	}
	m.keep(tag, value)
	m.discard(int(length))
	return nil
}

func (m *metaReader) ends(tag uint32, err error) error {
	if errors.Is(err, io.EOF) {
		return m.fail(tag, "ends within an element")
	}
	return err
}

func (m *metaReader) keep(tag uint32, value []byte) {
	text := strings.Trim(string(value), " \x00")
	switch tag {
	case tagMetaSOPClass:
		m.meta.SOPClassUID = text
	case tagMetaSOPInstance:
		m.meta.SOPInstanceUID = text
	case tagMetaTransferSyntax:
		m.meta.TransferSyntaxUID = text
	case tagMetaImplementation:
		m.meta.ImplementationClassUID = text
	case tagMetaImplementationV:
		m.meta.ImplementationVersion = text
	case tagMetaSourceAE:
		m.meta.SourceAETitle = text
	}
}

// guess tells the transfer syntax from the first element of the data set, whose
// group is one of the lowest and whose VR, if it has one, is two letters.
func (m *metaReader) guess() (string, error) {
	b, err := m.r.Peek(8)
	if len(b) < 8 {
		if errors.Is(err, io.EOF) {
			return "", m.fail(0, "is missing, and no data set follows: not a DICOM file")
		}
		return "", err
	}
	// No data set has a first group above this one: 0008 is in all but a few.
	possible := func(group uint16) bool { return group != 0 && group != 2 && group <= 0x00FF }
	explicit := vr(b[4])<<8 | vr(b[5])
	little, length := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint32(b[4:])
	switch {
	case possible(little) && explicit.letters():
		return ExplicitVRLittleEndian, nil
	case possible(little) && (length < 1<<24 || length == undefinedLength):
		return ImplicitVRLittleEndian, nil
	case possible(binary.BigEndian.Uint16(b)) && explicit.letters():
		return ExplicitVRBigEndian, nil
	}
	return "", m.fail(0, "is missing, and what is there is no data set: not a DICOM file")
}

// errFound ends a scan that has found what it was for.
var errFound = errors.New("found")

// complete takes UIDs that the file meta information lacks from the data set,
// which begins at start in f. One that is nowhere stays empty.
func (m *FileMeta) complete(f io.ReadSeeker, start int64) error {
	if m.SOPClassUID != "" && m.SOPInstanceUID != "" {
		return nil
	}
	if _, err := f.Seek(start, io.SeekStart); err != nil {
		return err
	}
	err := Scan(f, m.TransferSyntaxUID, func(class, instance string) error {
		m.SOPClassUID, m.SOPInstanceUID = cmp.Or(m.SOPClassUID, class), cmp.Or(m.SOPInstanceUID, instance)
		return errFound
	})
	if errors.Is(err, errFound) {
		return nil
	}
	return err
}
