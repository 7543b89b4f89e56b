package smtpx

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// spoolMemory is how much of a message stays in memory; a longer one goes to
	// a temporary file.
	spoolMemory = 1 << 20
	// maxLine is the length of a line without its end (RFC 5322 section 2.1.1).
	maxLine = 998
	// defaultMaxMessage is more than any server of a hospital takes.
	defaultMaxMessage = 512 << 20
)

// A spool holds a message as it goes over the wire, before dots are doubled. It
// refuses what a server could take for the end of the message or of a line
// where there is none: CR and LF that do not stand together, NUL, lines too long.
type spool struct {
	// static after construction
	dir   string
	limit int64
	ended func() error // why whoever wants the message wants it no more; nil: they always do

	// owned by the goroutine of Send
	memory   bytes.Buffer
	file     *os.File // nil: all is in memory
	unlinked bool     // the file has no name any more
	size     int64
	line     int  // bytes of the line in hand
	cr       bool // the last byte was CR
	eightBit bool // there are bytes outside of ASCII
	err      error
}

func (s *spool) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if err := s.look(p); err != nil {
		return 0, s.fail(err)
	}
	if s.size += int64(len(p)); s.size > s.limit {
		return 0, s.fail(fmt.Errorf("%w: more than %d bytes", ErrTooLarge, s.limit))
	}
	if s.file == nil && s.size <= spoolMemory {
		return s.memory.Write(p)
	}
	if s.file == nil {
		if err := s.spill(); err != nil {
			return 0, s.fail(err)
		}
	}
	n, err := s.file.Write(p)
	if err != nil {
		return n, s.fail(&spoolError{err})
	}
	return n, nil
}

// fail makes err the fate of the spool: what writes here may lose an error.
func (s *spool) fail(err error) error {
	if s.err == nil {
		s.err = err
	}
	return s.err
}

func (s *spool) look(p []byte) error {
	for _, b := range p {
		switch {
		case b == '\n':
			if !s.cr {
				return errors.New("smtpx: a LF without CR in the message")
			}
			s.line = 0
		case s.cr:
			return errors.New("smtpx: a CR without LF in the message")
		case b == 0:
			return errors.New("smtpx: a NUL in the message")
		case b != '\r':
			if s.line++; s.line > maxLine {
				return fmt.Errorf("smtpx: a line of more than %d bytes in the message", maxLine)
			}
		}
		s.cr = b == '\r'
		s.eightBit = s.eightBit || b >= 0x80
	}
	return nil
}

// spill moves what there is to a file that only this user can read, and that is
// gone with the process where the system allows it.
func (s *spool) spill() error {
	f, err := os.CreateTemp(s.dir, "smtpx-*")
	if err != nil {
		return &spoolError{err}
	}
	s.file = f
	s.unlinked = os.Remove(f.Name()) == nil
	_, err = f.Write(s.memory.Bytes())
	s.memory = bytes.Buffer{}
	if err != nil {
		return &spoolError{err}
	}
	return nil
}

// finish ends the last line.
func (s *spool) finish() error {
	if s.err == nil && (s.line > 0 || s.cr) {
		_, _ = s.Write([]byte("\r\n")) // the error is in s.err
	}
	return s.err
}

// reader returns the message from its start.
func (s *spool) reader() io.Reader {
	if s.file == nil {
		return bytes.NewReader(s.memory.Bytes())
	}
	return io.NewSectionReader(s.file, 0, s.size)
}

// Close gives up the file.
func (s *spool) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	if !s.unlinked {
		err = errors.Join(err, os.Remove(s.file.Name()))
	}
	return err
}

// copyDots writes what r holds to w and doubles the dot at the start of a line
// (RFC 5321 section 4.5.2). Lines end with CRLF.
func copyDots(w io.Writer, r io.Reader, buf []byte) error {
	start := true
	for {
		n, err := r.Read(buf)
		for p := buf[:n]; len(p) > 0; {
			if start && p[0] == '.' {
				if _, err := w.Write([]byte(".")); err != nil {
					return err
				}
			}
			// As far as the next line that begins with a dot, or all of it.
			end := bytes.Index(p, []byte("\n."))
			if end < 0 {
				end = len(p) - 1
			}
			start = p[end] == '\n'
			if _, err := w.Write(p[:end+1]); err != nil {
				return err
			}
			p = p[end+1:]
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &spoolError{err}
		}
	}
}

// wanted returns r, which fails as soon as nobody wants the message any more.
func (s *spool) wanted(r io.Reader) io.Reader {
	if s.ended == nil {
		return r
	}
	return readerFunc(func(p []byte) (int, error) {
		if err := s.ended(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// spoolError is of this machine, and not of the message or of the connection.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return "smtpx: temporary file: " + e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }
