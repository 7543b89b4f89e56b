package mllp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/carewire/carewire/mllp"
)

// A server that stores messages in memory, and a client that sends it two.
func ExampleServer() {
	var stored [][]byte
	srv := &mllp.Server{
		Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			if !bytes.HasPrefix(r.Header.MessageType, []byte("ADT")) {
				return nil, &mllp.Nak{Code: mllp.AR, Text: "only ADT is taken here"}
			}
			stored = append(stored, bytes.Clone(r.Message)) // r is valid only until we return
			return nil, nil
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

	conn, err := new(mllp.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, msg := range []string{
		"MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ADT^A01|MSG00001|P|2.5\rPID|1||4711\r",
		"MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ORU^R01|MSG00002|P|2.5\rPID|1||4711\r",
	} {
		reply, err := conn.Send(ctx, []byte(msg))
		var se *mllp.SendError
		switch {
		case errors.As(err, &se):
			fmt.Println(se.Outcome, se.Code())
		case err == nil:
			fmt.Println(reply.Ack.Code, reply.Ack.ControlID)
		}
	}
	conn.Close()
	stop()
	fmt.Println(<-ended)
	fmt.Println(len(stored), "stored")
	// Output:
	// AA MSG00001
	// nacked AR
	// mllp: server closed
	// 1 stored
}

// A file of frames, as it is found on many an interface engine's disk.
func ExampleReader() {
	file := []byte("\x0bMSH|^~\\&|A|B|C|D|20250102||ADT^A01|1|P|2.5\r\x1c\r\n\x0bMSH|^~\\&|A|B|C|D|20250102||ADT^A03|2|P|2.5\r\x1c\r\n")
	frames := mllp.NewReader(bytes.NewReader(file), 0)
	for {
		text, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		var h mllp.Header
		if err == nil {
			err = h.Parse(text)
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s\n", h.ControlID, h.MessageType)
	}
	// Output:
	// 1 ADT^A01
	// 2 ADT^A03
}
