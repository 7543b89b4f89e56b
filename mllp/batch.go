package mllp

import (
	"bytes"
	"context"
	"iter"
	"strconv"
	"time"
)

// maxBatch bounds the messages of a batch whose answers are collected.
const maxBatch = 10_000

// A BatchPart is a message of a batch, or one of the segments around messages.
type BatchPart struct {
	// Segment is MSH for a message, FHS, BHS, BTS or FTS for a segment around
	// messages, and empty for text that belongs to neither.
	Segment string
	Text    []byte // with what ends it
}

// SplitBatch yields the parts of a batch (HL7 2.x, chapter 2, "HL7 batch
// protocol") in their order: FHS, BHS, messages, BTS, FTS. It judges nothing:
// put together again, the parts are batch to the byte. A byte order mark belongs
// to the first part. The text of a part is a part of batch.
func SplitBatch(batch []byte) iter.Seq[BatchPart] {
	return func(yield func(BatchPart) bool) {
		begin, kind := 0, "" // of the part that is open
		for at := 0; at < len(batch); {
			end := at + segmentEnd(batch[at:])
			next := kindOf(batch[at:end])
			for end < len(batch) && (batch[end] == '\r' || batch[end] == '\n') {
				end++
			}
			if next == "" && kind != "MSH" || next != "" {
				// A segment of its own, or the first of a message.
				if at > begin && !yield(BatchPart{kind, batch[begin:at]}) {
					return
				}
				begin, kind = at, next
			}
			at = end
		}
		if begin < len(batch) {
			yield(BatchPart{kind, batch[begin:]})
		}
	}
}

// kindOf returns the name of a segment that SplitBatch splits at.
func kindOf(segment []byte) string {
	segment = bytes.TrimPrefix(segment, utf8BOM)
	for _, kind := range [...]string{"MSH", "FHS", "BHS", "BTS", "FTS"} {
		// A trailer may be a bare name: its count is optional.
		if bytes.HasPrefix(segment, []byte(kind)) && (len(segment) > 3 && isSeparator(segment[3]) || len(segment) == 3 && kind[1] == 'T') {
			return kind
		}
	}
	return ""
}

// judgeBatch returns how many messages a batch has, and, if it is not to be
// taken, why. text is the batch, sep its field separator.
func judgeBatch(text []byte, sep byte) (messages int, wrong string) {
	const malformed = "batch is malformed"
	var (
		last             string
		inBatch, batches int // messages of the batch at hand; batches
	)
	for part := range SplitBatch(text) {
		counted := -1
		switch part.Segment {
		case "FHS":
			if last != "" {
				return 0, malformed
			}
		case "BHS":
			if last == "MSH" || last == "BHS" || last == "FTS" {
				return 0, malformed
			}
			inBatch = 0
			batches++
		case "MSH":
			if last == "BTS" || last == "FTS" {
				return 0, malformed
			}
			if batches == 0 {
				batches = 1 // BHS is optional
			}
			messages++
			inBatch++
		case "BTS":
			if last != "BHS" && last != "MSH" {
				return 0, malformed
			}
			counted = inBatch
		case "FTS":
			if last == "FTS" {
				return 0, malformed
			}
			counted = batches
		default:
			return 0, malformed
		}
		if counted >= 0 {
			claim := bytes.TrimSpace(nth(part.Text[:segmentEnd(part.Text)], sep, 1))
			if n, err := strconv.Atoi(string(claim)); len(claim) > 0 && (err != nil || n != counted) {
				return 0, part.Segment + "-1 is not the number of " + map[string]string{"BTS": "messages", "FTS": "batches"}[part.Segment]
			}
		}
		last = part.Segment
	}
	return messages, ""
}

// splitsBatches tells whether the messages of a batch go to the handler one by
// one.
func (c *config) splitsBatches() bool {
	return c.batches == PolicyPerMessage || c.batches == PolicyBatch || c.batches == PolicyLast
}

// answers are those to the messages of a batch, while they are not sent.
type answers struct {
	n    int
	text []byte
	last AckCode
}

func (a *answers) add(text []byte, code AckCode) {
	a.n++
	a.text = append(a.text, text...)
	if a.text[len(a.text)-1] != '\r' {
		a.text = append(a.text, '\r')
	}
	a.last = code
}

// takeBatch has the handler take the messages of a batch one by one, and answers
// as Server.Batches says.
func (x *exchange) takeBatch(ctx context.Context) error {
	batch, policy := x.r.Message, x.cfg.batches
	head, flags := x.r.Header, x.r.Flags
	refuse := func(text string) error {
		return x.refuse(ctx, refusal{policy: PolicyError, reason: ReasonBatch, text: text})
	}
	n, wrong := judgeBatch(batch, head.FieldSeparator)
	switch {
	case wrong != "":
		return refuse(wrong)
	case n == 0:
		// There is nothing that could be lost.
		_, err := x.send(ctx, &outcome{code: AA})
		return err
	case n > maxBatch && policy == PolicyBatch:
		return refuse("batch has more than 10000 messages")
	}
	var collected answers
	if policy != PolicyPerMessage {
		x.answers = &collected
	}
	var err error
	for part := range SplitBatch(batch) {
		if part.Segment != "MSH" {
			continue
		}
		x.r.Message, x.r.Flags = part.Text, flags
		if policy == PolicyLast {
			collected = answers{text: collected.text[:0]}
		}
		if err = x.takePart(ctx); err != nil {
			break
		}
		if policy == PolicyLast && collected.n > 0 && !collected.last.Accepted() && collected.last != "" {
			break // a later acceptance would hide it
		}
	}
	x.answers = nil
	x.r.Message, x.r.Header, x.r.Flags, x.asked = batch, head, flags, asked{}
	if err != nil || collected.n == 0 {
		return err
	}
	text := collected.text
	if policy == PolicyBatch {
		text = x.batchOfAnswers(&collected)
	}
	frame, err := x.cfg.replies.AppendFrame(nil, text)
	if err != nil {
		return &closeError{reason: ReasonWriteFailed, err: err}
	}
	return x.route(ctx, frame, collected.last, time.Now())
}

// takePart is take for a message of a batch.
func (x *exchange) takePart(ctx context.Context) error {
	if x.parse(ctx, x.r.Message) != nil {
		x.r.Header, x.asked = Header{}, asked{}
		return x.refuse(ctx, refusal{policy: PolicyReject, reason: ReasonNotHL7, text: "not an HL7 message"})
	}
	if x.answers != nil {
		x.asked = asked{} // one frame answers them all
	}
	if len(x.r.Header.ControlID) == 0 && x.r.Flags&IsAck == 0 {
		x.r.Flags |= NoControlID
		if policy := x.cfg.noControlID; policy != PolicyDeliver {
			return x.refuse(ctx, refusal{policy: policy, reason: ReasonNoControlID, text: "MSH-10 is empty"})
		}
	}
	return x.handle(ctx)
}

// batchOfAnswers returns the answers as a batch of their own: with FHS and FTS if
// the batch has them, senders and receivers exchanged, and the batch's own
// control ID in FHS-12 and BHS-12.
func (x *exchange) batchOfAnswers(a *answers) []byte {
	out := make([]byte, 0, len(a.text)+512)
	var sep byte
	hasBHS, trailer := false, ""
	now := time.Now()
	for part := range SplitBatch(x.r.Message) {
		if part.Segment == "MSH" {
			break
		}
		var h Header
		if h.Parse(part.Text) != nil {
			continue
		}
		sep = h.FieldSeparator
		out = append(append(append(out, part.Segment...), sep), h.EncodingChars...)
		for _, field := range [...][]byte{h.ReceivingApplication, h.ReceivingFacility, h.SendingApplication, h.SendingFacility} {
			out = append(append(out, sep), field...)
		}
		out = appendTime(append(out, sep), now)
		out = append(out, sep, sep, sep, sep)
		var id [20]byte
		out = append(out, x.cfg.server.appendID(id[:0])...)
		out = append(append(append(out, sep), h.ControlID...), '\r')
		hasBHS = hasBHS || part.Segment == "BHS"
		if part.Segment == "FHS" {
			trailer = "FTS" + string(sep) + "1\r"
		}
	}
	if !hasBHS {
		out = append(append(append(out, "BHS"...), sep), x.r.Header.EncodingChars...)
		out = append(out, '\r')
	}
	out = append(out, a.text...)
	out = append(append(out, "BTS"...), sep)
	out = append(strconv.AppendInt(out, int64(a.n), 10), '\r')
	return append(out, trailer...)
}
