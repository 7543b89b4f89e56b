package alerts

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"
)

const (
	stateRaised  = "raised"
	stateCleared = "cleared"

	// rememberFor is how long a repeated alert is known to be one. The time between
	// telling and writing it down is far shorter.
	rememberFor = 24 * time.Hour
)

// alert is what people are told, as the JSON of a message. The key text is what chats
// show.
type alert struct {
	Text        string    `json:"text"`
	Alert       string    `json:"alert"` // the kind
	State       string    `json:"state"`
	Channel     string    `json:"channel,omitempty"`
	Destination string    `json:"destination,omitempty"`
	Since       time.Time `json:"since"` // when it was raised first
	At          time.Time `json:"at"`
	Server      string    `json:"server,omitempty"`
	ID          string    `json:"id"` // of what is wrong: the same when it is raised and when it is cleared
	Severity    int       `json:"severity,omitempty"`
}

// message returns the text of the message, indented: some read it as mail.
func (a *alert) message() []byte {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(a); err != nil {
		panic(err) // texts and times can always be encoded
	}
	return text.Bytes()
}

// key tells an alert from every other.
func (a *alert) key() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "alert %q %q %d %d", a.ID, a.State, a.Severity, a.Since.UnixNano()))
	return sum[:]
}
