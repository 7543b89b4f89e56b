package httpsender

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
)

// A Body is what a request carries, in a form that can be opened again for
// another attempt. It holds no more of it in memory than it was given. A Body is
// safe for concurrent use, and can be part of any number of requests.
type Body struct {
	// ContentType is that of the request; "": the caller sets it, or there is none.
	ContentType string

	size     int64 // -1: not known
	open     func() (io.ReadCloser, error)
	encoding string // Content-Encoding
}

// Bytes returns a Body of b, which must not change as long as it is used.
func Bytes(contentType string, b []byte) *Body {
	return &Body{ContentType: contentType, size: int64(len(b)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}
}

// Section returns a Body of the n bytes of r from offset on. A negative n or
// offset makes a Body that cannot be opened.
func Section(contentType string, r io.ReaderAt, offset, n int64) *Body {
	return &Body{ContentType: contentType, size: n, open: func() (io.ReadCloser, error) {
		if offset < 0 || n < 0 {
			return nil, errors.New("httpsender: Section: the offset or the length is negative")
		}
		return io.NopCloser(io.NewSectionReader(r, offset, n)), nil
	}}
}

// File returns a Body of a file as long as it is now. It is opened for each
// attempt; one that is not as long any more makes the attempt fail.
func File(contentType, path string) (*Body, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("httpsender: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("httpsender: " + path + " is not a regular file")
	}
	return &Body{ContentType: contentType, size: info.Size(), open: func() (io.ReadCloser, error) {
		return os.Open(path) //nolint:gosec // the caller's own path
	}}, nil
}

// Func returns a Body that open opens. It must bring the same bytes each time,
// and may be called by several goroutines. A negative size means that the number
// of bytes is not known; the request is sent in chunks then.
func Func(contentType string, size int64, open func() (io.ReadCloser, error)) *Body {
	return &Body{ContentType: contentType, size: max(-1, size), open: open}
}

// Form returns the Body of a form, application/x-www-form-urlencoded.
func Form(values url.Values) *Body {
	return Bytes("application/x-www-form-urlencoded", []byte(values.Encode()))
}

// Gzip returns b compressed, with Content-Encoding: gzip. It is compressed while
// it is sent, so its length is not known, and it is compressed again for each
// attempt.
func Gzip(b *Body) *Body {
	return &Body{ContentType: b.ContentType, size: -1, encoding: "gzip", open: func() (io.ReadCloser, error) {
		source, err := b.Open()
		if err != nil {
			return nil, err
		}
		z := &gzipReader{source: source}
		z.w = gzip.NewWriter(&z.out)
		return z, nil
	}}
}

// Open returns a reader of the whole body, which the caller closes.
func (b *Body) Open() (io.ReadCloser, error) { return b.open() }

// Len returns the number of bytes, -1 if it is not known.
func (b *Body) Len() int64 { return b.size }

// NewRequest returns a request for Do with a Body, or with none if it is nil. Its
// error does not show the URL.
func NewRequest(ctx context.Context, method, target string, b *Body) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, errors.New("httpsender: the method or the URL is not well-formed")
	}
	if b == nil || b.size == 0 {
		return r, nil
	}
	r.ContentLength = b.size
	r.GetBody = b.Open
	r.Body = &lateBody{open: b.Open}
	if b.ContentType != "" {
		r.Header.Set("Content-Type", b.ContentType)
	}
	if b.encoding != "" {
		r.Header.Set("Content-Encoding", b.encoding)
	}
	return r, nil
}

// A lateBody is opened when it is read. Do does not read it, it uses GetBody; it
// is for those who give the request to something else.
type lateBody struct {
	open func() (io.ReadCloser, error)

	mu     sync.Mutex
	rc     io.ReadCloser // guarded by mu; nil: not opened
	closed bool          // guarded by mu
}

func (b *lateBody) Read(p []byte) (int, error) {
	rc, err := b.opened()
	if err != nil {
		return 0, err
	}
	return rc.Read(p)
}

func (b *lateBody) opened() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, os.ErrClosed
	}
	if b.rc == nil {
		rc, err := b.open()
		if err != nil {
			return nil, err
		}
		b.rc = rc
	}
	return b.rc, nil
}

func (b *lateBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed = true; b.rc == nil {
		return nil
	}
	return b.rc.Close()
}

// A gzipReader compresses what it reads, a piece at a time and without a
// goroutine.
type gzipReader struct {
	source io.ReadCloser
	w      *gzip.Writer // to out
	out    bytes.Buffer
	piece  [16 << 10]byte
	ended  bool
}

func (z *gzipReader) Read(p []byte) (int, error) {
	for z.out.Len() == 0 {
		if z.ended {
			return 0, io.EOF
		}
		z.out.Reset()
		n, err := z.source.Read(z.piece[:])
		_, _ = z.w.Write(z.piece[:n]) // to memory
		if err == io.EOF {            //nolint:errorlint // a reader's io.EOF comes as it is
			z.ended = true
			err = z.w.Close()
		}
		if err != nil {
			return 0, err
		}
	}
	return z.out.Read(p)
}

func (z *gzipReader) Close() error { return z.source.Close() }
