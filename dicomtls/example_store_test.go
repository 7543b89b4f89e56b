package dicomtls_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/tlsprops"
)

// The settings of the deployment guide. Validate says what cannot be honoured
// before anything is read or listened on.
func ExampleProperties() {
	var p dicomtls.Properties
	err := json.Unmarshal([]byte(`{
		"tls": "aes",
		"keyStore": "/etc/mirth/certs/dicom-keystore.p12",
		"keyStorePW": "changeit",
		"noClientAuth": false
	}`), &p)
	fmt.Println(err)
	fmt.Println(p)
	fmt.Println(p.Validate(tlsprops.Listener))
	// Output:
	// <nil>
	// Properties{tls:aes keyStore:/etc/mirth/certs/dicom-keystore.p12 keyStorePW:[redacted]}
	// dicomtls: trustStore: is missing: name the CAs that issue the peers' certificates; none are built in, and the host's are not used
}

// A server that keeps what it is sent. Success is answered when the file is on
// disk and Stored has returned nil.
func ExampleFileStore() {
	store := &dicomtls.FileStore{
		Dir: "objects",
		Stored: func(_ context.Context, o dicomtls.StoredObject) error {
			fmt.Println(o.Path, o.Bytes)
			return nil
		},
	}
	srv := &dicomtls.Server{
		AETitles: []string{"ARCHIVE"},
		Store:    store,
		TLS:      &dicomtls.Properties{TLS: dicomtls.ModeBCP195, KeyStore: "server.p12", KeyStorePW: os.Getenv("STOREPASS"), TrustStore: "ca.pem"},
	}
	if err := srv.ListenAndServe(context.Background()); err != nil {
		fmt.Println(err)
	}
}

// What a peer does not take can be converted where nothing is lost.
func ExampleConvert() {
	data := []byte("\x10\x00\x10\x00PN\x08\x00Doe^Jane\x28\x00\x10\x00US\x02\x00\x00\x02")
	var out bytes.Buffer
	err := dicomtls.Convert(&out, bytes.NewReader(data), dicomtls.ExplicitVRLittleEndian, dicomtls.ImplicitVRLittleEndian)
	fmt.Printf("%q %v\n", out.String(), err)
	fmt.Println(dicomtls.CanConvert("1.2.840.10008.1.2.4.50", dicomtls.ExplicitVRLittleEndian))
	// Output:
	// "\x10\x00\x10\x00\b\x00\x00\x00Doe^Jane(\x00\x10\x00\x02\x00\x00\x00\x00\x02" <nil>
	// false
}

// An object of a file, looked into. Its pixels are not read.
func ExampleReadDataSet() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	meta := dicomtls.FileMeta{SOPClassUID: "1.2.840.10008.5.1.4.1.1.7", SOPInstanceUID: "1.2.3", TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian}
	file, err := meta.AppendTo(nil)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "1.2.3.dcm"), append(file, "\x08\x00\x60\x00CS\x02\x00OT"...), 0o600)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := os.Open(filepath.Join(dir, "1.2.3.dcm"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	_, set, err := dicomtls.ReadDataSet(f)
	fmt.Println(len(set.Elements), set.Elements[0].Value, err)
	// Output: 1 [OT] <nil>
}

// An archive that vouches for what it has. Requests are kept in Dir until their
// report has been confirmed.
func ExampleCommitter() {
	store := &dicomtls.FileStore{Dir: "objects"}
	commit := &dicomtls.Committer{
		Dir:        "commitments",
		Vouch:      store.Vouch,
		Requestors: map[string]string{"MODALITY": "modality.example.org:104"},
	}
	srv := &dicomtls.Server{AETitles: []string{"ARCHIVE"}, Store: store, Commit: commit}
	ctx := context.Background()
	go func() { _ = commit.Run(ctx) }() // until ctx ends
	if err := srv.ListenAndServe(ctx); err != nil {
		fmt.Println(err)
	}
}
