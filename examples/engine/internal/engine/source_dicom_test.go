package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/examples/engine/internal/store"
)

func TestObjectsGoThroughInOrderToTheByteOverOneAssociation(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, nil)
	ch := modality(t, "ct", toDICOM("pacs", pacs.addr))
	st := openStore(t, t.TempDir())
	e := start(t, st, ch)
	objects := images(uids(30))
	stores(t, e.addr("ct"), objects...)
	eventually(t, "all are delivered", func() bool { return e.stats("ct").Sent == 30 })
	assert.Equal(t, uids(30), pacs.received())
	pacs.has(objects...)
	assert.Equal(t, 1, pacs.opened())
	assert.Len(t, dicomFiles(t, ch.Source.DICOM.Dest), 30, "delivered objects are kept")
	status, err := e.Status(t.Context(), "ct")
	require.NoError(t, err)
	assert.Equal(t, "DICOM", status.Listener.Transport)
	assert.True(t, status.Listener.Listening)
}

// Success waits for the file and for the commit of the message.
func TestAnObjectIsAnsweredWhenItsFileAndItsMessageAreSafe(t *testing.T) {
	t.Parallel()
	begun, commit := make(chan store.Intake), make(chan struct{})
	st := &spy{openStore(t, t.TempDir()), func(in store.Intake) error { begun <- in; <-commit; return nil }}
	ch := modality(t, "ct", toFile("archive", t.TempDir()))
	e := start(t, st, ch)
	object := image(ctImage, "1.2.3")
	answered := make(chan []dicomtls.Result, 1)
	go func() { answered <- storeTo(t, e.addr("ct"), object) }()
	in := <-begun
	meta, data := dicomFile(t, filepath.Join(ch.Source.DICOM.Dest, "1.2.3.dcm"))
	assert.Equal(t, "1.2.3", meta.SOPInstanceUID)
	assert.Equal(t, ctImage, meta.SOPClassUID)
	assert.Equal(t, "CT1", meta.SourceAETitle)
	assert.Equal(t, dataSet(ctImage, "1.2.3", []byte("pixels of 1.2.3")), data)
	assert.Equal(t, "1.2.3", in.ControlID)
	assert.JSONEq(t, fmt.Sprintf(`{"channelId":"ct","file":"1.2.3.dcm","sopClassUID":"`+ctImage+`","sopInstanceUID":"1.2.3",
		"transferSyntaxUID":"1.2.840.10008.1.2.1","bytes":%d,"callingAE":"CT1","calledAE":"ENGINE"}`, len(data)), string(in.Raw))
	notes, err := in.Source.Notes()
	require.NoError(t, err)
	assert.Equal(t, "CT1", notes["remoteApplicationEntityTitle"])
	assert.Equal(t, "ENGINE", notes["localApplicationEntityTitle"])
	assert.Equal(t, "127.0.0.1", notes["remoteAddress"])
	assert.NotEmpty(t, notes["remotePort"])
	select {
	case <-answered:
		t.Error("answered before the commit")
	default:
	}
	close(commit)
	require.NoError(t, (<-answered)[0].Err)
}

// An object whose message is not stored is refused for now. Its file does no harm:
// the next try stores the message, once, and no second file.
func TestAnObjectWhoseMessageIsNotStoredIsNeverAcknowledged(t *testing.T) {
	t.Parallel()
	for _, lying := range []bool{false, true} {
		st := &faulty{Store: openStore(t, t.TempDir()), lying: lying}
		out := t.TempDir()
		ch := modality(t, "ct", toFile("archive", out))
		e := start(t, st, ch)
		objects := images(uids(6))
		acked := 0
		for i, o := range objects {
			st.broken.Store(i%2 == 1)
			switch r := storeTo(t, e.addr("ct"), o)[0]; r.Outcome {
			case dicomtls.Stored:
				acked++
			default:
				assert.Equal(t, dicomtls.StatusOutOfResources, r.Status, "which says that another try may help")
			}
		}
		eventually(t, "what was stored is delivered", func() bool { return e.stats("ct").Queued == 0 })
		if lying {
			assert.NotEqual(t, acked, len(dicomFiles(t, out)), "positive control: an early success would be found")
			continue
		}
		assert.Equal(t, 3, acked)
		assert.Len(t, dicomFiles(t, out), 3)
		st.broken.Store(false)
		stores(t, e.addr("ct"), objects[1], objects[3], objects[5])
		eventually(t, "the rest is delivered", func() bool { return e.stats("ct").Sent == 6 })
		assert.Len(t, dicomFiles(t, out), 6)
		assert.Len(t, dicomFiles(t, ch.Source.DICOM.Dest), 6)
	}
}

// What a queue refers to does not change under it.
func TestAnotherObjectOfTheSameUIDReplacesNone(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, nil)
	pacs.down()
	ch := modality(t, "ct", toDICOM("pacs", pacs.addr))
	e := start(t, openStore(t, t.TempDir()), ch)
	var sent []string
	file := filepath.Join(ch.Source.DICOM.Dest, "1.2.3.dcm")
	for i, pixels := range []string{"first!", "second", "first!"} {
		if i == 2 {
			require.NoError(t, os.Chtimes(file, time.Unix(0, 0), time.Unix(0, 0)))
		}
		data := dataSet(ctImage, "1.2.3", []byte(pixels))
		stores(t, e.addr("ct"), dicomtls.BytesObject(ctImage, "1.2.3", dicomtls.ExplicitVRLittleEndian, data))
		sent = append(sent, string(data))
	}
	pacs.up()
	eventually(t, "all are delivered", func() bool { return e.stats("ct").Sent == 3 })
	pacs.mu.Lock()
	defer pacs.mu.Unlock()
	assert.Equal(t, sent, pacs.contents)
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Greater(t, info.ModTime().Unix(), int64(0), "a file that is needed again is not an old one")
}

func TestWhoMaySendObjects(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	ch := modality(t, "ct", toFile("archive", t.TempDir()))
	ch.Source.DICOM.ApplicationEntity = "ENGINE"
	ch.Source.DICOM.CallingApplicationEntities = []string{"CT1", "CT2"}
	ch.Source.DICOM.TLS = p.dicom("server")
	ch.Source.DICOM.Senders = []config.DICOMSender{{Certificate: "cn:Ward 7", ApplicationEntities: []string{"CT1"}}}
	st := &spy{openStore(t, t.TempDir()), func(in store.Intake) error {
		notes, err := in.Source.Notes()
		if err == nil && !strings.Contains(notes["tlsClientSubject"], "Ward 7") {
			err = errors.New("the holder of the certificate is not noted")
		}
		return err
	}}
	e := start(t, st, ch)
	client, anonymous := p.dicom("client"), p.dicom("client")
	anonymous.KeyStore, anonymous.CertStore, anonymous.NoClientAuth = "", "", true
	for name, tt := range map[string]struct {
		dialer *dicomtls.Dialer
		works  bool
	}{
		"as agreed":              {&dicomtls.Dialer{AETitle: "CT1", CalledAE: "ENGINE", TLS: &client}, true},
		"under another's title":  {&dicomtls.Dialer{AETitle: "CT2", CalledAE: "ENGINE", TLS: &client}, false},
		"under an unknown title": {&dicomtls.Dialer{AETitle: "CT3", CalledAE: "ENGINE", TLS: &client}, false},
		"to another title":       {&dicomtls.Dialer{AETitle: "CT1", CalledAE: "ARCHIVE", TLS: &client}, false},
		"without a certificate":  {&dicomtls.Dialer{AETitle: "CT1", CalledAE: "ENGINE", TLS: &anonymous}, false},
		"in the clear":           {&dicomtls.Dialer{AETitle: "CT1", CalledAE: "ENGINE", AssociateTimeout: 5 * time.Second}, false},
	} {
		r := tt.dialer.StoreAll(t.Context(), "tcp", e.addr("ct"), images(uids(1)), nil)
		assert.Equal(t, tt.works, r[0].Err == nil, "%s: %v", name, r[0].Err)
	}
	assert.EqualValues(t, 1, e.stats("ct").Received)
	status, err := e.Status(t.Context(), "ct")
	require.NoError(t, err)
	assert.Equal(t, "DICOM+TLS", status.Listener.Transport)
}

// dicom are the settings of a side of TLS.
func (p *pki) dicom(name string) dicomtls.Properties {
	return dicomtls.Properties{
		TLS: dicomtls.ModeBCP195, KeyStore: filepath.Join(p.dir, name+".key"), CertStore: filepath.Join(p.dir, name+".crt"),
		TrustStore: filepath.Join(p.dir, "ca.crt"),
	}
}

func TestASourceOfObjectsStopsStartsAndFailsWithItsFiles(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	ch := modality(t, "ct", toFile("archive", t.TempDir()))
	ch.Source.DICOM.TLS = p.dicom("server")
	e := start(t, openStore(t, t.TempDir()), ch)
	addr := e.addr("ct")
	client := p.dicom("client")
	d := &dicomtls.Dialer{TLS: &client}
	require.NoError(t, d.StoreAll(t.Context(), "tcp", addr, images(uids(1)), nil)[0].Err)
	require.NoError(t, e.StopChannel(t.Context(), "ct"))
	assert.Error(t, d.StoreAll(t.Context(), "tcp", addr, images(uids(1)), nil)[0].Err)

	require.NoError(t, os.Rename(filepath.Join(p.dir, "ca.crt"), filepath.Join(p.dir, "away")))
	require.ErrorContains(t, e.StartChannel(t.Context(), "ct"), "trustStore")
	assert.Error(t, d.StoreAll(t.Context(), "tcp", addr, images(uids(1)), nil)[0].Err, "and never in plaintext")
	require.NoError(t, os.Rename(filepath.Join(p.dir, "away"), filepath.Join(p.dir, "ca.crt")))
	require.NoError(t, e.StartChannel(t.Context(), "ct"))
	require.NoError(t, d.StoreAll(t.Context(), "tcp", addr, images(uids(2)), nil)[1].Err)
	assert.EqualValues(t, 3, e.stats("ct").Received)
}

// A shutdown lets an object that is arriving be stored and answered.
func TestAShutdownAnswersTheObjectInHand(t *testing.T) {
	t.Parallel()
	begun, commit := make(chan struct{}), make(chan struct{})
	st := &spy{openStore(t, t.TempDir()), func(store.Intake) error { close(begun); <-commit; return nil }}
	e := start(t, st, modality(t, "ct", toFile("archive", t.TempDir())))
	addr := e.addr("ct")
	answered := make(chan []dicomtls.Result, 1)
	go func() { answered <- storeTo(t, addr, image(ctImage, "1.2.3")) }()
	<-begun
	stopped := make(chan struct{})
	go func() { e.stop(); close(stopped) }()
	eventually(t, "the port closes", func() bool {
		a, err := new(dicomtls.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			a.Close()
		}
		return err != nil
	})
	close(commit)
	require.NoError(t, (<-answered)[0].Err)
	<-stopped

	// One that does not end in time is cut off, without an answer.
	begun, hang := make(chan struct{}), make(chan struct{})
	st = &spy{openStore(t, t.TempDir()), func(store.Intake) error { close(begun); <-hang; return errors.New("too late") }}
	e = start(t, st, modality(t, "ct", toFile("archive", t.TempDir())))
	addr = e.addr("ct")
	go func() { answered <- storeTo(t, addr, image(ctImage, "1.2.3")) }()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- e.StopSources(ctx) }()
	assert.Equal(t, dicomtls.Unknown, (<-answered)[0].Outcome)
	close(hang)
	assert.Error(t, <-ended)
}
