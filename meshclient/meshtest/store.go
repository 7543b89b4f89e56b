package meshtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// After these times a message that nobody acknowledged expires, and is deleted.
const (
	expiry   = 5 * 24 * time.Hour
	deletion = 30 * 24 * time.Hour
)

// A message is one in the store. Its fields are guarded by Server.mu; a blob does
// not change once it is there.
type message struct {
	id, from, to, workflow string
	localID                string
	status                 string // as in tracking
	header                 http.Header
	encoding               string // Content-Encoding
	contentType            string
	n                      int // chunks; of a report 0
	chunks                 map[int]*blob
	at                     time.Time // of its first chunk
	report                 bool
}

// A blob is content as it was sent.
type blob struct {
	data []byte
	file string // if not "", in the place of data
	size int64
}

func (b *blob) open() (io.ReadCloser, error) {
	if b.file != "" {
		return os.Open(b.file)
	}
	return io.NopCloser(bytes.NewReader(b.data)), nil
}

// take stores what r brings, up to limit bytes; errTooLarge if there is more.
func (s *Server) take(r io.Reader, limit int64) (*blob, error) {
	r = io.LimitReader(r, limit+1)
	b := &blob{}
	if s.o.Dir == "" {
		var err error
		if b.data, err = io.ReadAll(r); err != nil {
			return nil, err
		}
		b.size = int64(len(b.data))
	} else {
		f, err := os.CreateTemp(s.o.Dir, "chunk-*")
		if err != nil {
			return nil, err
		}
		b.file = f.Name()
		b.size, err = io.CopyBuffer(struct{ io.Writer }{f}, r, make([]byte, 64<<10))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, errors.Join(err, os.Remove(b.file))
		}
	}
	if b.size > limit {
		return nil, errTooLarge
	}
	return b, nil
}

var errTooLarge = errors.New("meshtest: too large")

// newLocked stores a message under an id of its own. s.mu is held.
func (s *Server) newLocked(m *message) {
	s.number++
	m.at = s.nowLocked()
	m.id = fmt.Sprintf("%s%012d", m.at.Format("20060102150405"), s.number)
	s.messages[m.id] = m
	s.order = append(s.order, m.id)
}

// expire does what time does to messages.
func (s *Server) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.nowLocked()
	for _, id := range slices.Clone(s.order) {
		m := s.messages[id]
		age := now.Sub(m.at)
		if age > deletion {
			delete(s.messages, id)
			s.order = slices.DeleteFunc(s.order, func(o string) bool { return o == id })
			continue
		}
		if age > expiry && m.status == "accepted" {
			m.status = "undeliverable"
			if !m.report {
				s.reportLocked(m, "14", "Message not collected by recipient after 5 days")
			}
		}
	}
}

// reportLocked tells the sender of a message that it was not delivered. s.mu is held.
func (s *Server) reportLocked(m *message, code, why string) {
	h := http.Header{}
	for _, name := range []string{"Mex-Subject", "Mex-Filename", "Mex-Localid", "Mex-Partnerid"} {
		if values := m.header.Values(name); len(values) > 0 {
			h[name] = values
		}
	}
	h.Set("Mex-Linkedmsgid", m.id)
	h.Set("Mex-Statuscode", code)
	h.Set("Mex-Statusdescription", why)
	h.Set("Mex-Statusevent", "SEND")
	s.newLocked(&message{from: "", to: m.from, workflow: m.workflow, status: "accepted", header: h, report: true})
}

// Undeliverable makes a message one that could not be delivered, and sends the
// report of that. It is false if there is no such message.
func (s *Server) Undeliverable(id, code, why string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.messages[id]
	if ok {
		m.status = "undeliverable"
		s.reportLocked(m, code, why)
	}
	return ok
}

// A Message is one that Deliver puts into a mailbox.
type Message struct {
	From, To, WorkflowID string
	Header               http.Header // Mex-Subject, say
	ContentType          string
	ContentEncoding      string   // of all chunks, as they are
	Chunks               [][]byte // one at least
}

// Deliver puts a message into a mailbox, past all rules, and returns its id.
func (s *Server) Deliver(d *Message) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &message{
		from: d.From, to: d.To, workflow: d.WorkflowID, status: "accepted", header: d.Header.Clone(),
		encoding: d.ContentEncoding, contentType: d.ContentType, n: len(d.Chunks), chunks: make(map[int]*blob),
	}
	if m.header == nil {
		m.header = http.Header{}
	}
	for i, c := range d.Chunks {
		m.chunks[i+1] = &blob{data: slices.Clone(c), size: int64(len(c))}
	}
	s.newLocked(m)
	return m.id
}

// Status returns what tracking would say of a message, "" if there is none.
func (s *Server) Status(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.messages[id]; m != nil {
		return m.status
	}
	return ""
}

// Waiting returns the ids of the messages in a mailbox's inbox, the oldest first.
func (s *Server) Waiting(mailbox string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waitingLocked(mailbox, "")
}

// waitingLocked returns those that a filter lets through. s.mu is held.
func (s *Server) waitingLocked(mailbox, filter string) []string {
	ids := []string{}
	for _, id := range s.order {
		if m := s.messages[id]; m.to == mailbox && m.status == "accepted" && lets(filter, m.workflow) {
			ids = append(ids, id)
		}
	}
	return ids
}

// lets tells whether a workflow filter lets a workflow through.
func lets(filter, workflow string) bool {
	if filter == "" {
		return true
	}
	filter, not := strings.CutPrefix(filter, "!")
	middle, after := strings.CutPrefix(filter, "*")
	middle, before := strings.CutSuffix(middle, "*")
	var fits bool
	switch {
	case after && before:
		fits = strings.Contains(workflow, middle)
	case before:
		fits = strings.HasPrefix(workflow, middle)
	case after:
		fits = strings.HasSuffix(workflow, middle)
	default:
		fits = workflow == filter
	}
	return fits != not
}

func (s *Server) boxes() []string { return slices.Sorted(maps.Keys(s.o.Mailboxes)) }
