package meshclient

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// The limits of MESH, in bytes and chunks. A request may have 100 MB, and every
// chunk but the last must have more than 5 MB.
const (
	maxRequest   = 100_000_000
	minChunk     = 5 << 20
	defaultChunk = 64 << 20
	maxChunks    = 10_000
	maxMessage   = 100_000_000_000
)

// Content is what a message carries: a *bytes.Reader, *strings.Reader or
// *io.SectionReader, for one. It is read in several places at once, and twice at
// least: before it is sent, to find its checksum. If it is not the same when it
// is sent, the message is never completed.
type Content interface {
	io.ReaderAt
	Size() int64 // in bytes
}

// A Message is what Send sends. To, WorkflowID and Content are needed.
//
// Texts must not hold control characters. What is not ASCII in FileName, Subject,
// PartnerID and LocalID is escaped: see UnescapeText.
type Message struct {
	To         string // the recipient's mailbox; up to 100 bytes
	WorkflowID string // up to 300 bytes

	// LocalID is the sender's own id of the message, by which it can be found when
	// an answer was lost. It must not name a patient. Up to 300 bytes; "": a
	// random UUID.
	LocalID     string
	FileName    string // up to 300 bytes; "": the server makes one
	Subject     string // up to 500 bytes
	PartnerID   string // up to 500 bytes; for systems of old
	ContentType string // up to 100 bytes; "": application/octet-stream

	// Checksum goes to the recipient as it is: letters, digits, spaces and :-/ up
	// to 100. "": sha256: and the SHA-256 of Content in hexadecimal.
	Checksum string
	// NoChecksum leaves the checksum out, which MESH does not ask for, and with it
	// the time that SHA-256 takes for a message of one piece. TLS still protects
	// each of the two ways; the recipient cannot tell what was damaged in between.
	NoChecksum bool
	// Compressed and Encrypted tell the recipient so of Content itself. They change
	// nothing here: see Gzip.
	Compressed, Encrypted bool

	Content Content
	// Gzip compresses what is sent, each chunk by itself. The recipient gets
	// Content as it is here.
	Gzip bool
	// ChunkSize is into how large pieces Content is cut, in bytes before
	// compression; what fits into one is not cut at all. 0: 64 MiB. From 5 MiB to
	// a little less than 100 MB.
	ChunkSize int64
	// SmallChunks allows a ChunkSize of less than 5 MiB, for tests: MESH does not.
	SmallChunks bool

	// Checkpoint, if not nil, is called after each chunk that the server has, but
	// for the last. When it has stored the state durably, a program that starts
	// again can go on from there: see Resume. Its error ends Send.
	Checkpoint func(SendState) error
	// Resume goes on with a message whose sending was begun, which needs the same
	// Content, and ignores everything else but Checkpoint. nil: a new message.
	Resume *SendState
}

// header returns the header of the first request, or of the only one.
func (m *Message) header(from string, chunks int, checksum string) (http.Header, error) {
	h := http.Header{}
	for _, f := range []struct {
		name, header, value string
		limit               int
		needed, escaped     bool
	}{
		{"To", "Mex-To", m.To, 100, true, false},
		{"WorkflowID", "Mex-Workflowid", m.WorkflowID, 300, true, false},
		{"LocalID", "Mex-Localid", m.LocalID, 300, true, true},
		{"FileName", "Mex-Filename", m.FileName, 300, false, true},
		{"Subject", "Mex-Subject", m.Subject, 500, false, true},
		{"PartnerID", "Mex-Partnerid", m.PartnerID, 500, false, true},
		{"ContentType", "Mex-Content-Type", m.ContentType, 100, false, false},
		{"Checksum", "Mex-Content-Checksum", checksum, 100, false, false},
	} {
		value := f.value
		if f.escaped {
			value = escapeText(value)
		}
		switch {
		case f.needed && value == "":
			return nil, local("send", ErrInvalid, f.name+" is missing")
		case len(value) > f.limit:
			return nil, local("send", ErrInvalid, fmt.Sprintf("%s has %d bytes, and may have %d", f.name, len(value), f.limit))
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return nil, local("send", ErrInvalid, f.name+" holds a control character")
		case f.needed && strings.HasPrefix(strings.ToLower(value), "http://"):
			return nil, local("send", ErrInvalid, f.name+" begins with http://, which MESH refuses")
		case value != strings.TrimSpace(value):
			return nil, local("send", ErrInvalid, f.name+" begins or ends with a space")
		case value != "":
			h.Set(f.header, value)
		}
	}
	if strings.Trim(checksum, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 :-/") != "" {
		return nil, local("send", ErrInvalid, "Checksum may hold letters, digits, spaces and :-/, not base64")
	}
	h.Set("Mex-From", from)
	for name, on := range map[string]bool{"Mex-Content-Compressed": m.Compressed, "Mex-Content-Encrypted": m.Encrypted} {
		if on {
			h.Set(name, yes(on))
		}
	}
	if chunks > 1 {
		h.Set("Mex-Chunk-Range", fmt.Sprintf("1:%d", chunks))
	}
	return h, nil
}

// A plan says how content is cut. The zero plan is none.
type plan struct {
	size, chunk int64 // of the whole; of every chunk but the last
	n           int
}

// planOf cuts content, or says why it cannot be.
func planOf(size, chunk int64, small, zip bool) (plan, error) {
	if chunk == 0 {
		chunk = defaultChunk
	}
	most := int64(maxRequest)
	if zip {
		most -= maxRequest/1000 + 64 // what does not shrink grows by a few bytes in 64 KiB
	}
	switch {
	case chunk < 0, chunk < minChunk && !small:
		return plan{}, local("send", ErrInvalid, fmt.Sprintf("ChunkSize is %d, and MESH takes chunks from 5 MiB (%d) on", chunk, minChunk))
	case chunk > most:
		return plan{}, local("send", ErrInvalid, fmt.Sprintf("ChunkSize is %d, and may be %d", chunk, most))
	case size <= 0:
		return plan{}, local("send", ErrInvalid, "Content is empty, which MESH does not take")
	case size > maxMessage:
		return plan{}, local("send", ErrTooLarge, "Content has more than 100 GB")
	}
	n := (size + chunk - 1) / chunk
	if n > maxChunks {
		return plan{}, local("send", ErrTooLarge, fmt.Sprintf("Content makes %d chunks, and MESH takes %d: make ChunkSize larger", n, maxChunks))
	}
	return plan{size: size, chunk: chunk, n: int(n)}, nil
}

// bounds returns where chunk i, from 1, begins, and its length.
func (p plan) bounds(i int) (offset, n int64) {
	offset = int64(i-1) * p.chunk
	return offset, min(p.chunk, p.size-offset)
}
