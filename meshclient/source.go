package meshclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"io"
	"sync/atomic"

	"github.com/carewire/carewire/httpsender"
)

// A source is the content of a message, of which every chunk is to be what it was
// when the source was made.
type source struct {
	content Content
	plan    plan
	whole   string       // SHA-256 of the content, in hexadecimal; "": nobody needs it
	chunks  []uint32     // CRC-32C of each: it is fast, and against mistakes
	changed atomic.Bool  // a chunk was not what it was
	opened  atomic.Int32 // how many times a chunk was begun to be sent, since it was last 0
}

// castagnoli is the polynomial of CRC-32C, for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newSource reads content once; digest says whether its SHA-256 is needed.
func newSource(ctx context.Context, content Content, p plan, digest bool) (*source, error) {
	s := &source{content: content, plan: p, chunks: make([]uint32, p.n)}
	whole, buf := sha256.New(), make([]byte, 128<<10)
	for i := range p.n {
		one := crc32.New(castagnoli)
		offset, n := p.bounds(i + 1)
		// Both hashes of one read; a cancelled context is noticed in between.
		to := io.Writer(one)
		if digest {
			to = io.MultiWriter(whole, one)
		}
		r := &steady{ctx: ctx, r: io.NewSectionReader(content, offset, n), left: n}
		if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{r}, buf); err != nil {
			return nil, &Error{Op: "send", outcome: httpsender.Rejected, kind: []error{ErrSourceChanged}, cause: err}
		}
		s.chunks[i] = one.Sum32()
	}
	if digest {
		s.whole = hex.EncodeToString(whole.Sum(nil))
	}
	return s, nil
}

// body returns the body of chunk i, from 1.
func (s *source) body(contentType string, i int, zip bool) *httpsender.Body {
	offset, n := s.plan.bounds(i)
	b := httpsender.Func(contentType, n, func() (io.ReadCloser, error) {
		s.opened.Add(1)
		return io.NopCloser(&checked{source: s, want: s.chunks[i-1], left: n, r: io.NewSectionReader(s.content, offset, n)}), nil
	})
	if zip {
		b = httpsender.Gzip(b)
	}
	return b
}

// checked reads a chunk. Its last bytes come only if all of them are what they
// were: without them no server takes the chunk for complete.
type checked struct {
	source *source
	want   uint32
	sum    uint32 // of what was read
	left   int64
	r      io.Reader
}

func (c *checked) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.sum = crc32.Update(c.sum, castagnoli, p[:n])
	c.left -= int64(n)
	switch {
	case c.left == 0 && c.sum != c.want, err == io.EOF && c.left > 0:
		c.source.changed.Store(true)
		return 0, ErrSourceChanged
	case err == io.EOF:
		return n, nil // and next time there is nothing left
	}
	return n, err
}

// steady reads exactly left bytes, as long as ctx lasts.
type steady struct {
	ctx  context.Context //nolint:containedctx // of the one call that it is part of
	r    io.Reader
	left int64
}

func (s *steady) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	s.left -= int64(n)
	if err == io.EOF && s.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
