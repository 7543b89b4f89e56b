package smtpx

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"
)

// attach hands the attachments to msg.
func (m *Message) attach(msg *gomail.Msg, out *spool) error {
	direct := m.DKIM == nil && m.SMIME == nil
	var files, inline []*gomail.File
	for i := range m.Attachments {
		a := &m.Attachments[i]
		header, err := a.header()
		if err != nil {
			return fmt.Errorf("smtpx: Message.Attachments[%d]: %w", i, err)
		}
		file := &gomail.File{Name: "attachment", Header: header}
		if direct {
			// go-mail would hold all of what it encodes in memory. It calls this when
			// the headers of the part have gone to out and before anything else does,
			// so the content can go there by itself.
			file.Writer = func(io.Writer) (int64, error) {
				if err := a.encodeTo(out); err != nil {
					return 0, out.fail(fmt.Errorf("smtpx: Message.Attachments[%d]: %w", i, nameless(err)))
				}
				return 0, nil
			}
		} else {
			data, err := a.readAll(out)
			if err != nil {
				return fmt.Errorf("smtpx: Message.Attachments[%d]: %w", i, nameless(err))
			}
			file.Writer = func(w io.Writer) (int64, error) { // S/MIME calls it twice
				n, err := w.Write(data)
				return int64(n), err
			}
		}
		if a.ContentID != "" {
			inline = append(inline, file)
		} else {
			files = append(files, file)
		}
	}
	msg.SetAttachments(files)
	msg.SetEmbeds(inline)
	return nil
}

// readAll reads what is to be signed.
func (a *Attachment) readAll(out *spool) ([]byte, error) {
	r, err := a.content()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(out.wanted(r), maxSigned+1))
	if err == nil && len(data) > maxSigned {
		err = fmt.Errorf("%w to be signed", ErrTooLarge)
	}
	return data, err
}

func (a *Attachment) header() (textproto.MIMEHeader, error) {
	given := 0
	for _, yes := range []bool{a.Data != nil, a.Path != "", a.Open != nil} {
		if yes {
			given++
		}
	}
	if given != 1 {
		return nil, errors.New("exactly one of Data, Path and Open must be set")
	}
	name := a.Name
	if name == "" {
		name = filepath.Base(a.Path)
	}
	name = safeName(name)
	kind := a.ContentType
	if kind == "" {
		kind = mime.TypeByExtension(filepath.Ext(name))
	}
	// A message in a message must not be in base64 (RFC 2046 section 5.2.1), which all
	// attachments are: as a file it may.
	if kind == "" || a.ContentType == "" && strings.HasPrefix(kind, "message/") {
		kind = "application/octet-stream"
	}
	media, params, err := mime.ParseMediaType(kind)
	if err != nil || !strings.Contains(media, "/") || strings.HasPrefix(media, "multipart/") || strings.HasPrefix(media, "message/") {
		return nil, errors.New("ContentType is none that an attachment can have")
	}
	disposition := "attachment"
	header := textproto.MIMEHeader{}
	if id := a.ContentID; id != "" {
		if !printableASCII(id) || strings.ContainsAny(id, "<>") || len(id) > 250 {
			return nil, errors.New("ContentID must be printable ASCII without < and >")
		}
		header.Set("Content-ID", "<"+id+">")
		disposition = "inline"
	}
	header.Set("Content-Type", fold(mime.FormatMediaType(media, params)))
	header.Set("Content-Transfer-Encoding", "base64")
	header.Set("Content-Disposition", fold(mime.FormatMediaType(disposition, map[string]string{"filename": name})))
	for _, values := range header {
		if values[0] == "" {
			return nil, errors.New("ContentType is none that an attachment can have")
		}
	}
	return header, nil
}

// fold puts each parameter on a line of its own.
func fold(value string) string { return strings.ReplaceAll(value, "; ", ";\r\n ") }

// safeName makes a name of a file that no system takes for anything else: no
// path, no device, no hidden file, no control or direction characters, not too
// long for a file system. The extension stays.
func safeName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r),
			strings.ContainsRune(`/\:*?"<>|;`, r):
			return '_'
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, name)
	name = strings.TrimRight(strings.TrimSpace(name), ". ")
	if strings.HasPrefix(name, ".") {
		name = "_" + name[1:]
	}
	const most = 120 // bytes; three times that, percent-encoded, fits a line
	if ext := filepath.Ext(name); len(name) > most && len(ext) <= 16 {
		name = cut(name, most-len(ext)) + ext
	}
	name = cut(name, most)
	base, _, _ := strings.Cut(strings.ToUpper(name), ".")
	if device := strings.TrimRight(base, "0123456789 "); name == "" || base == "CON" || base == "PRN" || base == "AUX" || base == "NUL" ||
		(device == "COM" || device == "LPT") && device != base {
		name = "_" + name
	}
	return name
}

// cut returns at most n bytes of s, whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func (a *Attachment) content() (io.ReadCloser, error) {
	switch {
	case a.Open != nil:
		return a.Open()
	case a.Path != "":
		return os.Open(a.Path)
	}
	return io.NopCloser(bytes.NewReader(a.Data)), nil
}

// nameless returns err without the name of the file that it is about: one that
// comes from a message may tell of a patient.
func nameless(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// encodeTo writes the content to out in base64, in lines of 76 characters.
func (a *Attachment) encodeTo(out *spool) error {
	content, err := a.content()
	if err != nil {
		return err
	}
	defer content.Close()
	r := out.wanted(content)
	const line = 57 // bytes that make 76 characters
	in := make([]byte, line*512)
	encoded := make([]byte, 0, 78*512)
	for {
		n, readErr := fill(r, in)
		encoded = encoded[:0]
		for p := in[:n]; len(p) > 0; {
			chunk := p[:min(line, len(p))]
			encoded = base64.StdEncoding.AppendEncode(encoded, chunk)
			encoded = append(encoded, "\r\n"...)
			p = p[len(chunk):]
		}
		if _, err := out.Write(encoded); err != nil {
			return err
		}
		switch {
		case errors.Is(readErr, io.EOF):
			return nil
		case readErr != nil:
			return readErr
		}
	}
}

// fill reads until p is full or r has an error. io.ReadFull would make one of a
// reader that ends too early, and of one that ends, the same.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}
