package httpsender

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A Part is one field of a form that is sent as multipart/form-data (RFC 7578).
type Part struct {
	Name     string // of the field; must not be empty
	FileName string // "": it is not a file
	// Body is what it holds. Its ContentType, if any, becomes that of the part;
	// for a file without one it is application/octet-stream.
	Body *Body
}

// Multipart returns the Body of a form in parts, multipart/form-data. The parts
// are opened one after the other while they are sent. Its length is known if that
// of all parts is.
func Multipart(parts ...Part) (*Body, error) {
	m := &multipart{boundary: rand.Text(), parts: parts}
	size := int64(len(m.ending()))
	for i, p := range parts {
		switch {
		case p.Name == "":
			return nil, fmt.Errorf("httpsender: part %d has no name", i+1)
		case p.Body == nil:
			return nil, fmt.Errorf("httpsender: part %d has no body", i+1)
		case strings.ContainsAny(p.Body.ContentType, "\r\n"):
			return nil, fmt.Errorf("httpsender: the content type of part %d has a line break in it", i+1)
		case p.Body.encoding != "":
			return nil, fmt.Errorf("httpsender: part %d is compressed: compress the whole form instead", i+1)
		}
		if size >= 0 && p.Body.size >= 0 {
			size += int64(len(m.heading(i))) + p.Body.size
		} else {
			size = -1
		}
	}
	return &Body{ContentType: "multipart/form-data; boundary=" + m.boundary, size: size, open: func() (io.ReadCloser, error) {
		return &multipartReader{m: m}, nil
	}}, nil
}

type multipart struct {
	boundary string
	parts    []Part
}

// heading returns what stands before the body of part i.
func (m *multipart) heading(i int) string {
	p := m.parts[i]
	var b strings.Builder
	if i > 0 {
		b.WriteString("\r\n")
	}
	b.WriteString("--" + m.boundary + "\r\nContent-Disposition: form-data; name=\"" + formName.Replace(p.Name) + `"`)
	contentType := p.Body.ContentType
	if p.FileName != "" {
		b.WriteString(`; filename="` + formName.Replace(p.FileName) + `"`)
		if contentType == "" {
			contentType = "application/octet-stream"
		}
	}
	if contentType != "" {
		b.WriteString("\r\nContent-Type: " + contentType)
	}
	b.WriteString("\r\n\r\n")
	return b.String()
}

func (m *multipart) ending() string {
	if len(m.parts) == 0 {
		return "--" + m.boundary + "--\r\n"
	}
	return "\r\n--" + m.boundary + "--\r\n"
}

// formName escapes a name as browsers do (WHATWG HTML, multipart/form-data
// encoding algorithm).
var formName = strings.NewReplacer(`"`, "%22", "\r", "%0D", "\n", "%0A")

// A multipartReader reads heading, body, heading, body, ending. It has at most
// one part open.
type multipartReader struct {
	m    *multipart
	next int           // the part after the present one
	text string        // what is left of a heading, or of the ending
	body io.ReadCloser // of the present part, read after text; nil: none
	end  bool          // text is the ending, or what is left of it
}

func (r *multipartReader) Read(p []byte) (int, error) {
	for {
		if r.text != "" {
			n := copy(p, r.text)
			r.text = r.text[n:]
			return n, nil
		}
		if r.body != nil {
			n, err := r.body.Read(p)
			if err == io.EOF { //nolint:errorlint // a reader's io.EOF comes as it is
				err = r.Close()
			}
			if n > 0 || err != nil || len(p) == 0 {
				return n, err
			}
			continue
		}
		if err := r.advance(); err != nil {
			return 0, err
		}
	}
}

// advance goes on to the next part, or to the ending.
func (r *multipartReader) advance() error {
	switch {
	case r.end:
		return io.EOF
	case r.next == len(r.m.parts):
		r.end, r.text = true, r.m.ending()
		return nil
	}
	body, err := r.m.parts[r.next].Body.Open()
	if err != nil {
		return err
	}
	if body == nil {
		return errors.New("httpsender: the body of a part is nil")
	}
	r.text, r.body = r.m.heading(r.next), body
	r.next++
	return nil
}

// Close closes the part that is open.
func (r *multipartReader) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	return body.Close()
}
