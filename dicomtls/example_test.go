package dicomtls_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/carewire/carewire/dicomtls"
)

// secondaryCapture is the SOP class of the examples' objects.
const secondaryCapture = "1.2.840.10008.5.1.4.1.1.7"

// A server that counts what it is sent, and a client that sends it an object.
func Example() {
	srv := &dicomtls.Server{
		AETitles: []string{"ARCHIVE"},
		Store: dicomtls.StoreHandlerFunc(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
			n, err := io.Copy(io.Discard, r.Body) // a FileStore would keep it
			if err != nil {
				return dicomtls.StatusOutOfResources
			}
			fmt.Println(r.Association.CallingAE, "sends", n, "bytes")
			return dicomtls.StatusSuccess
		}),
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error)
	go func() { ended <- srv.Serve(ctx, ln) }()

	// A data set in Explicit VR Little Endian: Modality (0008,0060), "OT".
	object := dicomtls.BytesObject(secondaryCapture, "1.2.3.4", dicomtls.ExplicitVRLittleEndian,
		[]byte("\x08\x00\x60\x00CS\x02\x00OT"))
	dialer := &dicomtls.Dialer{AETitle: "MODALITY", CalledAE: "ARCHIVE"}
	a, err := dialer.DialContext(ctx, "tcp", ln.Addr().String(), dicomtls.Propose([]dicomtls.Object{object})...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	status, err := a.Store(ctx, object)
	fmt.Println(status, err)

	object.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2" // for which nothing was negotiated
	_, err = a.Store(ctx, object)
	if failed, ok := errors.AsType[*dicomtls.SendError](err); ok {
		fmt.Println(failed.Outcome, "- try again:", failed.Retryable())
	}
	fmt.Println(a.Release(ctx))
	stop()
	fmt.Println(<-ended)
	// Output:
	// MODALITY sends 10 bytes
	// 0000 success <nil>
	// not sent - try again: false
	// <nil>
	// dicomtls: server closed
}

// Is the peer alive, and does it know us?
func ExampleAssociation_Echo() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := &dicomtls.Server{CallingAETitles: []string{"MODALITY"}}
	ended := make(chan error)
	go func() { ended <- srv.Serve(context.Background(), ln) }()

	ctx := context.Background()
	for _, title := range []string{"MODALITY", "STRANGER"} {
		dialer := &dicomtls.Dialer{AETitle: title}
		a, err := dialer.DialContext(ctx, "tcp", ln.Addr().String())
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(a.Echo(ctx), a.Release(ctx))
	}
	srv.Close()
	<-ended
	// Output:
	// <nil> <nil>
	// dicomtls: not sent: the peer rejected the association (1,1,3): calling AE title not recognized
}
