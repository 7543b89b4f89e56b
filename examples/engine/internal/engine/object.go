package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

// objectNote is the source map's key for the DICOM object that a message refers to:
// the id of the channel that took it in, a slash, and the name of its file there.
// Only a source of type dicom sets it, so that nobody who can send a message can
// make the engine read a file; what the message itself says is for people and for
// programs of others.
const objectNote = "dicomObject"

// objectSuffix is that of the files of a dicomtls.FileStore.
const objectSuffix = ".dcm"

var (
	errObject     = errors.New("it refers to a DICOM object, and MLLP carries HL7")
	errNoObject   = errors.New("it refers to no DICOM object")
	errObjectGone = errors.New("the DICOM object that it refers to is not there any more")
)

// A reference is the content of a message that stands for an object.
type reference struct {
	ChannelID         string `json:"channelId"` // which took the object in
	File              string `json:"file"`      // its name in that channel's directory
	SOPClassUID       string `json:"sopClassUID"`
	SOPInstanceUID    string `json:"sopInstanceUID"`
	TransferSyntaxUID string `json:"transferSyntaxUID"`
	Bytes             int64  `json:"bytes"` // of the data set
	CallingAE         string `json:"callingAE"`
	CalledAE          string `json:"calledAE"`
}

func referenceTo(channel string, o *dicomtls.StoredObject) ([]byte, error) {
	return json.Marshal(reference{
		ChannelID: channel, File: filepath.Base(o.Path),
		SOPClassUID: o.Meta.SOPClassUID, SOPInstanceUID: o.Meta.SOPInstanceUID, TransferSyntaxUID: o.Meta.TransferSyntaxUID,
		Bytes: o.Bytes, CallingAE: o.Association.CallingAE, CalledAE: o.Association.CalledAE,
	})
}

// refersToObject tells whether m stands for a DICOM object.
func refersToObject(m *store.Message) bool {
	if !strings.Contains(m.Source.Text(), `"`+objectNote+`"`) {
		return false // most messages, without decoding the notes
	}
	notes, err := m.Source.Notes()
	return err != nil || notes[objectNote] != "" // openObject says what is wrong
}

// objectPath returns the file of the object that m refers to. It is an error, and
// says nothing about the message, if that channel is not configured any more.
func (e *Engine) objectPath(m *store.Message) (string, error) {
	notes, err := m.Source.Notes()
	if err != nil {
		return "", &unsendableError{err}
	}
	id, name, _ := strings.Cut(notes[objectNote], "/")
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") || filepath.Ext(name) != objectSuffix {
		return "", &unsendableError{errNoObject}
	}
	ch, err := e.channel(id)
	if err != nil || ch.cfg.Source.DICOM == nil {
		return "", &unavailable{fmt.Errorf("the channel %s, which took the DICOM object in, is not configured as it was: its directory is not known", id)}
	}
	return filepath.Join(ch.cfg.Source.DICOM.Directory(e.dataDir, id), name), nil
}

// openObject opens the file of the object that m refers to.
func (e *Engine) openObject(m *store.Message) (*object, error) {
	path, err := e.objectPath(m)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, aboutObject(err)
	}
	return &object{f}, nil
}

// An object is the file of one, whose errors do not show its name: that is a UID,
// which leads to a patient.
type object struct{ file *os.File }

func (o *object) Read(p []byte) (int, error) {
	n, err := o.file.Read(p)
	return n, nameless(err)
}

func (o *object) Close() error { return nameless(o.file.Close()) }

// nameless returns an error of the file system without the name of the file.
func nameless(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("the DICOM object: %s: %w", e.Op, e.Err)
	}
	return err
}

// aboutObject tells apart that an object is gone, for good, and that the disk does
// not give it out, which says nothing about the message.
func aboutObject(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &unsendableError{errObjectGone}
	}
	return &unavailable{nameless(err)}
}
