package meshtest

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
)

// Bodies that MESH's gateways have been seen to answer errors with.
const (
	HTML = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center></body>\r\n</html>\r\n"
	SOAP = `<?xml version="1.0"?><SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Body>` +
		`<SOAP-ENV:Fault><faultcode>SOAP-ENV:Server</faultcode><faultstring>internal error</faultstring></SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>`
	// NoCertificate is the page that a client without a good certificate gets.
	NoCertificate = "<html>\r\n<head><title>400 No required SSL certificate was sent</title></head>\r\n<body>\r\n" +
		"<center><h1>400 Bad Request</h1></center>\r\n<center>No required SSL certificate was sent</center>\r\n</body>\r\n</html>\r\n"
)

// A Fault is one thing that goes wrong, in the order of Script: the first that
// fits a request is used up by it.
type Fault struct {
	// Op is which requests it is for: ping, handshake, inbox, count, head,
	// download, acknowledge, send, chunk, track, lookup; "": all.
	Op string
	// Chunk is which chunk, where there are any; 0: all.
	Chunk int
	// Skip lets so many requests pass first.
	Skip int
	// Times is for how many requests it is good; 0: one.
	Times int

	// Drop ends the connection before anything of the body is read, DropAfter
	// when what was asked has been done, in the place of the answer.
	Drop, DropAfter bool
	// Truncate cuts off the body of the answer after so many bytes, if it is not
	// 0, and ends the connection.
	Truncate int64
	// Status is that of the answer, if it is not 0, with Header and Body; what was
	// asked is not done, and the token not looked at.
	Status int
	Header http.Header
	Body   string
}

// Script adds faults.
func (s *Server) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		f.Times = max(1, f.Times)
		s.faults = append(s.faults, &f)
	}
}

// faultLocked returns the fault for a request, if there is one. s.mu is held.
func (s *Server) faultLocked(r *Request) *Fault {
	for i, f := range s.faults {
		if f.Op != "" && f.Op != r.Op || f.Chunk != 0 && f.Chunk != r.Chunk {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times--; f.Times == 0 {
			s.faults = slices.Delete(s.faults, i, i+1)
		}
		return f
	}
	return nil
}

// abort ends a connection: it is how a handler says so.
func abort() { panic(http.ErrAbortHandler) } //nolint:forbidigo // net/http has no other way for HTTP/2

// fail does what a fault says instead of serving, or returns the writer with
// which the request is to be served, and what to do after.
func (f *Fault) apply(w http.ResponseWriter) (out http.ResponseWriter, after func()) {
	switch {
	case f == nil:
		return w, func() {}
	case f.Drop:
		abort()
	case f.DropAfter:
		return &nowhere{header: http.Header{}}, abort
	case f.Status != 0:
		for name, values := range f.Header {
			w.Header()[http.CanonicalHeaderKey(name)] = values
		}
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", contentTypeOf(f.Body))
		}
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body) // whoever is gone does not want it
		return nil, nil
	case f.Truncate != 0:
		return &cutting{ResponseWriter: w, left: f.Truncate}, func() {}
	}
	return w, func() {}
}

func contentTypeOf(body string) string {
	switch {
	case strings.HasPrefix(body, "<html"):
		return "text/html"
	case strings.HasPrefix(body, "<"):
		return "text/xml"
	}
	return "application/json"
}

// nowhere is the writer of an answer that nobody gets.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}

// cutting is the writer of an answer that breaks off.
type cutting struct {
	http.ResponseWriter
	left int64
}

func (c *cutting) Write(p []byte) (int, error) {
	if int64(len(p)) < c.left {
		n, err := c.ResponseWriter.Write(p)
		c.left -= int64(n)
		return n, err
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	c.left = 0
	if err := http.NewResponseController(c.ResponseWriter).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	abort()
	return 0, nil
}
