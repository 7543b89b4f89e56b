package smtpx

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	// maxReplyLine is more than the 512 octets of RFC 5321 section 4.5.3.1.5,
	// for servers that are generous with words.
	maxReplyLine = 4096
	// maxReplyLines bounds a reply; the longest, to EHLO, has some twenty lines.
	maxReplyLines = 128
)

// ErrProtocol is in the error of a server that does not speak SMTP: a reply that
// is none, too long, or to a command that was not sent. The connection is closed.
var ErrProtocol = errors.New("smtpx: the server does not keep to SMTP")

// Reply is what the server answered, without its words: those may quote the
// message or name the recipient.
type Reply struct {
	Code     int    // three digits (RFC 5321 section 4.2); 0: there was no reply
	Enhanced string // the enhanced status code (RFC 3463), such as "5.1.1"; "" if there was none
}

// String returns "550 5.1.1" or "550"; "" for no reply.
func (r Reply) String() string {
	switch {
	case r.Code == 0:
		return ""
	case r.Enhanced == "":
		return strconv.Itoa(r.Code)
	}
	return strconv.Itoa(r.Code) + " " + r.Enhanced
}

// Temporary tells whether the same command may succeed later (RFC 5321 section
// 4.2.1): the code begins with 4.
func (r Reply) Temporary() bool { return r.Code/100 == 4 }

func (r Reply) ok() bool { return r.Code/100 == 2 }

// answer is a reply with its lines, if they were wanted.
type answer struct {
	Reply
	lines []string
}

// readAnswer reads one reply, with its lines if words is true: to keep them for
// nothing would give a server with many words our memory. Its errors are those of the reader, or wrap
// ErrProtocol; none holds what the server sent. io.EOF stands for a connection
// that ended between two replies.
func readAnswer(br *bufio.Reader, words bool) (answer, error) {
	var a answer
	for n := range maxReplyLines {
		line, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return answer{}, fmt.Errorf("%w: a reply line of more than %d bytes", ErrProtocol, maxReplyLine)
		case errors.Is(err, io.EOF) && (n > 0 || len(line) > 0):
			return answer{}, io.ErrUnexpectedEOF
		case err != nil:
			return answer{}, err
		}
		code, text, more, ok := parseLine(line)
		if !ok || n > 0 && code != a.Code {
			return answer{}, fmt.Errorf("%w: a line that is no reply", ErrProtocol)
		}
		a.Code = code
		if n == 0 {
			a.Enhanced = enhanced(code, text)
		}
		if words {
			a.lines = append(a.lines, string(text))
		}
		if !more {
			return a, nil
		}
	}
	return answer{}, fmt.Errorf("%w: a reply of more than %d lines", ErrProtocol, maxReplyLines)
}

// parseLine takes "250-text\r\n", "250 text\r\n" and "250\r\n". A lone LF at the
// end is let pass: what it ends is a reply, never mail.
func parseLine(line []byte) (code int, text []byte, more, ok bool) {
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !digit(line[1]) || !digit(line[2]) {
		return 0, nil, false, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, nil, false, true
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, nil, false, false
	}
	return code, line[4:], line[3] == '-', true
}

// enhanced returns the status code at the beginning of text, if it is one that
// goes with code (RFC 2034 section 4): its words are digits and dots alone, so
// that it may be logged.
func enhanced(code int, text []byte) string {
	word, _, _ := bytes.Cut(text, []byte(" "))
	parts := bytes.Split(word, []byte("."))
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != code/100 {
		return ""
	}
	for _, part := range parts[1:] {
		if len(part) < 1 || len(part) > 3 {
			return ""
		}
		for _, b := range part {
			if !digit(b) {
				return ""
			}
		}
	}
	return string(word)
}

func digit(b byte) bool { return b >= '0' && b <= '9' }
