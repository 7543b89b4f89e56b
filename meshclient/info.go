package meshclient

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Info is what the server says of a message in the header of an answer. Texts are
// as they came: FileName, Subject and Recipient may name patients, and FileName
// is no name to give to a file.
type Info struct {
	MessageID   string
	Sender      string
	Recipient   string
	WorkflowID  string
	LocalID     string
	PartnerID   string
	FileName    string
	Subject     string
	ContentType string // the sender's own, if it gave one
	Checksum    string // as the sender wrote it
	// Compressed and Encrypted are what the sender said of the content. The
	// server sets Compressed on its own account too: it says nothing of what
	// Receive writes.
	Compressed, Encrypted bool
	Chunks                int // 0: a report
	Size                  int64
	Timestamp             time.Time // zero: not known
	// Report is not nil if this is not a message, but the news that one could not
	// be delivered.
	Report *Report
}

// A Report tells that a message was not delivered. It is addressed to the sender,
// so that Info's Recipient is this mailbox, not the one that was not reached.
type Report struct {
	LinkedMessageID string // of the message that was not delivered
	Code            string // "14" says that it was not collected in time
	Event           string
	Description     string
	Status          string // SUCCESS or ERROR
	Timestamp       time.Time
}

// parseInfo reads the header of an answer, whose lengths the Sender bounds.
func parseInfo(h http.Header) Info {
	i := Info{
		MessageID: h.Get("Mex-Messageid"), Sender: h.Get("Mex-From"), Recipient: h.Get("Mex-To"),
		WorkflowID: h.Get("Mex-Workflowid"), LocalID: h.Get("Mex-Localid"), PartnerID: h.Get("Mex-Partnerid"),
		FileName: h.Get("Mex-Filename"), Subject: h.Get("Mex-Subject"),
		ContentType: h.Get("Mex-Content-Type"), Checksum: h.Get("Mex-Content-Checksum"),
		Compressed: flag(h.Get("Mex-Content-Compressed")), Encrypted: flag(h.Get("Mex-Content-Encrypted")),
		Timestamp: parseTime(h.Get("Mex-Statustimestamp")),
	}
	if i.ContentType == "" {
		i.ContentType = h.Get("Content-Type")
	}
	if strings.EqualFold(h.Get("Mex-Messagetype"), "REPORT") {
		i.Report = &Report{
			LinkedMessageID: h.Get("Mex-Linkedmsgid"), Code: h.Get("Mex-Statuscode"), Event: h.Get("Mex-Statusevent"),
			Description: h.Get("Mex-Statusdescription"), Status: h.Get("Mex-Statussuccess"), Timestamp: i.Timestamp,
		}
		return i
	}
	i.Chunks = 1
	if _, n, ok := parseRange(h.Get("Mex-Chunk-Range")); ok && n > 0 {
		i.Chunks = n
	} else if n, err := strconv.Atoi(h.Get("Mex-Total-Chunks")); err == nil && n > 0 && n <= maxChunks {
		i.Chunks = n
	}
	return i
}

// parseRange reads a chunk range: 2:5 is the second of five. A report has 1:0.
func parseRange(s string) (i, n int, ok bool) {
	first, last, found := strings.Cut(strings.TrimSpace(s), ":")
	if !found || len(first) > 9 || len(last) > 9 {
		return 0, 0, false
	}
	i, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	if n, err = strconv.Atoi(last); err != nil || i < 1 || n < 0 || i > n && n != 0 || n > maxChunks {
		return 0, 0, false
	}
	return i, n, true
}

// flag reads what clients have written for yes.
func flag(s string) bool {
	switch strings.ToUpper(strings.TrimSpace(s)) {
	case "Y", "YES", "TRUE", "1":
		return true
	}
	return false
}

// yes writes a flag as MESH likes it, and nothing for no.
func yes(b bool) string {
	if b {
		return "Y"
	}
	return ""
}

// parseTime reads the forms in which MESH writes times, all in UTC. What is none
// of them is the zero time.
func parseTime(s string) time.Time {
	if len(s) > 40 {
		return time.Time{}
	}
	for _, layout := range []string{"20060102150405", "2006-01-02T15:04:05", time.RFC3339, "200601021504", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, strings.TrimSpace(s)); err == nil { // fractions are read without being asked for
			return t.UTC()
		}
	}
	return time.Time{}
}

// escapeText returns a text as it goes into a header: as it is if it is ASCII,
// and otherwise escaped as in a form, which is how NHS's own uploader writes it.
func escapeText(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return url.QueryEscape(s)
		}
	}
	return s
}

// UnescapeText returns a FileName or Subject as it was before a sender escaped
// it, which carewire's do with everything that is not ASCII. What is not escaped
// text beyond ASCII comes back as it is.
func UnescapeText(s string) string {
	t, err := url.QueryUnescape(s)
	if err != nil || !utf8.ValidString(t) || escapeText(t) == t {
		return s
	}
	return t
}
