package mllp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/carewire/carewire/mllp"
)

// A receiver that stores a message before it says CA, and has it processed before
// it says AA; and a sender that waits for both.
func ExampleServer_enhanced() {
	srv := &mllp.Server{
		Enhanced: true,
		Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			return nil, nil // stored: CA
		}),
		Application: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			if bytes.Contains(r.Message, []byte("PID|1||4711\r")) {
				return nil, nil // AA
			}
			return nil, &mllp.Nak{Code: mllp.AE, Text: "unknown patient"}
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

	d := &mllp.Dialer{Enhanced: true}
	conn, err := d.DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, patient := range []string{"4711", "4712"} {
		msg := "MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ORU^R01|MSG" + patient + "|P|2.5|||AL|AL\rPID|1||" + patient + "\r"
		reply, err := conn.Send(ctx, []byte(msg))
		switch {
		case errors.Is(err, mllp.ErrNoApplicationAck):
			fmt.Println("stored, and no word from the application") // do not send it again
		case reply != nil:
			fmt.Printf("%s then %s, %q\n", reply.Commit, reply.Ack.Code, reply.Ack.Text)
		}
	}
	conn.Close()
	stop()
	<-ended
	// Output:
	// CA then AA, ""
	// CA then AE, "unknown patient"
}

// Messages of different patients are handled beside each other; those of one
// patient, and those that concern two, such as a merge, are not.
func ExampleServer_key() {
	srv := &mllp.Server{
		Parallel: 8,
		Key: func(r *mllp.Request) []byte {
			if bytes.HasPrefix(r.Header.MessageType, []byte("ADT^A40")) {
				return nil
			}
			_, pid, _ := bytes.Cut(r.Message, []byte("\rPID|"))
			for range 2 {
				_, pid, _ = bytes.Cut(pid, []byte("|"))
			}
			id, _, _ := bytes.Cut(pid, []byte("|"))
			return id
		},
		Replay: &mllp.MemoryReplay{},
		Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) {
			return nil, nil
		}),
	}
	fmt.Println(srv.Validate())
	// Output: <nil>
}

// An application acknowledgement that the receiver sends to a port of ours finds
// its way to the Send that waits for it.
func ExampleCorrelator() {
	var awaited mllp.Correlator
	returns := &mllp.Server{
		Addr:     ":2576",
		Enhanced: true, // answers CA where the acknowledgement asks for it
		Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			if !awaited.Deliver(r.Message) {
				return nil, &mllp.Nak{Code: mllp.AR, Text: "nobody waits for it"}
			}
			return nil, nil
		}),
	}
	d := &mllp.Dialer{Enhanced: true, Correlator: &awaited}
	fmt.Println(returns.Transport(), d.Transport())
	// Output: MLLP MLLP
}

func ExampleSplitBatch() {
	batch := []byte("BHS|^~\\&|LAB\rMSH|^~\\&|LAB||EHR||2025||ADT^A01|1|P|2.5\rPID|1\rMSH|^~\\&|LAB||EHR||2025||ADT^A03|2|P|2.5\rPID|2\rBTS|2\r")
	for part := range mllp.SplitBatch(batch) {
		fmt.Println(part.Segment, len(part.Text))
	}
	// Output:
	// BHS 13
	// MSH 47
	// MSH 47
	// BTS 6
}

func ExampleCharset() {
	msg := []byte("MSH|^~\\&|LAB||EHR||2025||ADT^A01|1|P|2.5||||||8859/1\rPID|1||||M\xfcller\r")
	var h mllp.Header
	if err := h.Parse(msg); err != nil {
		fmt.Println(err)
		return
	}
	set, err := mllp.CharsetAuto.For(&h)
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := set.Decode(msg)
	fmt.Println(set, len(msg), len(text), err)
	_, err = mllp.CharsetASCII.Encode(nil, text, 0)
	fmt.Println(err)
	// Output:
	// 8859/1 69 70 <nil>
	// mllp: not in the character set: ASCII, character at byte 63
}
