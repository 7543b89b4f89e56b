package meshclient

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/carewire/carewire/httpsender"
)

// ReceiveState is how far the receiving of a message in chunks has come. It holds
// no secret, and survives encoding/json.
type ReceiveState struct {
	MessageID string `json:"messageId"`
	Chunks    int    `json:"chunks"`         // in all
	Next      int    `json:"next"`           // the first that was not written
	Offset    int64  `json:"offset"`         // bytes that were written before it
	Checksum  string `json:"checksum"`       // as the sender wrote it
	Hash      []byte `json:"hash,omitempty"` // the inner state of the checksum up to Offset
}

// ReceiveOptions are for messages in chunks. The zero value receives from the
// beginning.
type ReceiveOptions struct {
	// Checkpoint, if not nil, is called after each chunk that was written, but for
	// the last. When it has made durable what was written, and then the state, a
	// program that starts again can go on from there. Its error ends Receive.
	Checkpoint func(ReceiveState) error
	// Resume goes on after what was written before: the writer must be where
	// Offset says, and what is beyond it must be gone. nil: from the beginning.
	Resume *ReceiveState
	// IgnoreChecksum takes messages that are not what their sender's checksum
	// says.
	IgnoreChecksum bool
}

// Receive writes the content of a message to w, decompressed, and returns what
// the server says of it. The message stays in the inbox until Acknowledge. If the
// Info has a Report, there is no content, and nothing was written.
//
// A chunk that breaks off is fetched again, and is written from where it broke off
// if what comes before is the same. After an error w may hold a part of the
// message. The error is an *Error; one of w or of Checkpoint is in it.
func (c *Client) Receive(ctx context.Context, messageID string, w io.Writer, o *ReceiveOptions) (*Info, error) {
	if o == nil {
		o = &ReceiveOptions{}
	}
	r := &receiving{c: c, w: w, o: o, state: ReceiveState{MessageID: messageID, Next: 1}}
	info, err := r.run(ctx)
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			e = &Error{outcome: httpsender.Rejected, cause: err}
		}
		e.Op, e.MessageID = "receive", messageID
		if e.outcome == httpsender.Unknown {
			e.outcome = httpsender.Retryable // nothing was sent
		}
		return nil, e
	}
	return info, nil
}

// A receiving is one call of Receive.
type receiving struct {
	c     *Client
	w     io.Writer
	o     *ReceiveOptions
	state ReceiveState
	info  *Info
	sum   hash.Hash // of the whole; nil: its checksum is of no known form
	want  string
}

func (r *receiving) run(ctx context.Context) (*Info, error) {
	if r.state.MessageID == "" {
		return nil, local("receive", ErrInvalid, "the message id is missing")
	}
	if err := r.resume(ctx); err != nil {
		return nil, err
	}
	for {
		if err := r.chunk(ctx); err != nil {
			return nil, err
		}
		if r.info.Report != nil {
			return r.info, nil
		}
		r.state.Next++
		if r.state.Next > r.state.Chunks {
			break
		}
		if r.o.Checkpoint == nil {
			continue
		}
		state := r.state
		if r.sum != nil {
			state.Hash = saveHash(r.sum)
		}
		if err := r.o.Checkpoint(state); err != nil {
			return nil, &Error{outcome: httpsender.Retryable, cause: fmt.Errorf("storing the state failed: %w", err)}
		}
	}
	r.info.Size = r.state.Offset
	if r.sum != nil && hex.EncodeToString(r.sum.Sum(nil)) != r.want {
		return nil, &Error{kind: []error{ErrChecksum}, outcome: httpsender.Rejected}
	}
	return r.info, nil
}

// resume takes over the state of an earlier call, if there is one.
func (r *receiving) resume(ctx context.Context) error {
	s := r.o.Resume
	if s == nil {
		return nil
	}
	if s.MessageID != r.state.MessageID || s.Chunks > maxChunks || s.Next < 2 || s.Next > s.Chunks || s.Offset < 0 {
		return local("receive", ErrInvalid, "Resume is not the state of this message")
	}
	info, err := r.c.Head(ctx, s.MessageID)
	if err != nil {
		return err
	}
	if info.Chunks != s.Chunks || info.Checksum != s.Checksum || info.Report != nil {
		return badAnswer("receive", http.StatusOK, "the message is not the one whose receiving began")
	}
	r.state, r.info = *s, info
	return r.startSum()
}

// startSum begins the checksum of the whole, or goes on with it.
func (r *receiving) startSum() error {
	if r.o.IgnoreChecksum {
		return nil
	}
	r.sum, r.want = digestOf(r.info.Checksum)
	if r.sum == nil || r.state.Offset == 0 {
		return nil
	}
	if err := restoreHash(r.sum, r.state.Hash); err != nil {
		return local("receive", ErrInvalid, "Resume has no usable Hash: "+err.Error())
	}
	return nil
}

// chunk receives the chunk r.state.Next, in more than one request if need be.
func (r *receiving) chunk(ctx context.Context) error {
	var p piece
	tries := r.c.conf.Retry.MaxAttempts
	switch {
	case tries == 0:
		tries = 4
	case tries < 0:
		tries = 1
	}
	for try := 1; ; try++ {
		err := r.fetch(ctx, &p)
		if err == nil || try >= tries || !p.broke || ctx.Err() != nil {
			return err
		}
		if r.c.conf.Retry.MinBackoff < 0 {
			continue
		}
		select {
		case <-time.After(time.Duration(try) * time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

// A piece is how much of a chunk has been written.
type piece struct {
	n     int64  // bytes
	sum   uint32 // CRC-32C of them
	broke bool   // the last request brought only a part of the rest
}

// fetch makes one request for a chunk.
func (r *receiving) fetch(ctx context.Context, p *piece) error {
	p.broke = false
	i := r.state.Next
	at := path(r.c.conf.Mailbox, "inbox", r.state.MessageID)
	if i > 1 {
		at += "/" + strconv.Itoa(i)
	}
	k := &call{op: "receive", method: http.MethodGet, path: at}
	resp, err := r.c.do(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := r.check(resp, i); err != nil {
		return err
	}
	if r.info.Report != nil {
		return nil
	}
	if p.n > 0 {
		again := crc32.New(castagnoli)
		if _, err := io.CopyN(again, resp.Body, p.n); err != nil && !errors.Is(err, io.EOF) {
			p.broke = true
			return r.c.unanswered(ctx, k, err)
		}
		if again.Sum32() != p.sum {
			return badAnswer("receive", resp.StatusCode, "the chunk is not the same the second time")
		}
	}
	return r.copy(ctx, k, resp.Body, p)
}

// copy writes what is left of a chunk.
func (r *receiving) copy(ctx context.Context, k *call, body io.Reader, p *piece) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if r.state.Offset+int64(n) > r.c.conf.MaxMessageBytes {
				return &Error{
					kind: []error{ErrTooLarge}, outcome: httpsender.Rejected,
					cause: fmt.Errorf("the message has more than MaxMessageBytes (%d)", r.c.conf.MaxMessageBytes),
				}
			}
			if _, err := r.w.Write(buf[:n]); err != nil {
				return &Error{outcome: httpsender.Retryable, cause: fmt.Errorf("writing failed: %w", err)}
			}
			p.sum = crc32.Update(p.sum, castagnoli, buf[:n])
			if r.sum != nil {
				_, _ = r.sum.Write(buf[:n]) // to memory
			}
			p.n += int64(n)
			r.state.Offset += int64(n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			e := r.c.unanswered(ctx, k, err)
			p.broke = e.Retryable() && !errors.Is(e, ErrTooLarge)
			return e
		}
	}
}

// check compares an answer with what is known of the message, which the first
// answer tells.
func (r *receiving) check(resp *http.Response, i int) error {
	status := resp.StatusCode
	at, n, ok := parseRange(resp.Header.Get("Mex-Chunk-Range"))
	if r.info == nil {
		info := parseInfo(resp.Header)
		if info.MessageID == "" {
			info.MessageID = r.state.MessageID
		}
		if info.MessageID != r.state.MessageID {
			return badAnswer("receive", status, "it is another message")
		}
		r.info = &info
		if info.Report != nil {
			return nil
		}
		r.state.Chunks, r.state.Checksum = info.Chunks, info.Checksum
		if err := r.startSum(); err != nil {
			return err
		}
	}
	switch {
	case !ok && resp.Header.Get("Mex-Chunk-Range") != "":
		return badAnswer("receive", status, "its chunk range is not well-formed")
	case ok && (at != i || n != r.state.Chunks):
		return badAnswer("receive", status, fmt.Sprintf("it is chunk %d of %d, and not chunk %d of %d", at, n, i, r.state.Chunks))
	case !ok && (r.state.Chunks > 1 || status == http.StatusPartialContent):
		return badAnswer("receive", status, "it does not say which chunk it is")
	case status == http.StatusPartialContent && i == r.state.Chunks:
		return badAnswer("receive", status, "its status says that there are more chunks than its chunk range does")
	}
	return nil
}
