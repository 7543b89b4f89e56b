package mllp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/carewire/carewire/mllp"
)

// Frames with bytes of the user's choice, in Mirth's notation.
func ExampleFraming() {
	begin, _ := mllp.ParseFrameBytes("02")
	end, _ := mllp.ParseFrameBytes("<ETX><CR>")
	framing := mllp.Framing{Mode: mllp.ModeFRAME, Start: begin, End: end}

	framed, err := framing.AppendFrame(nil, []byte("MSH|^~\\&|LAB"))
	fmt.Printf("%q %v\n", framed, err)

	messages := framing.NewReader(strings.NewReader("\x02MSH|1\x03\r\n\x02MSH|2\x03\r"), 0)
	for {
		text, err := messages.Next()
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Printf("%s\n", text)
	}

	srv := &mllp.Server{Framing: framing}
	fmt.Println(srv.Transport())
	// Output:
	// "\x02MSH|^~\\&|LAB\x03\r" <nil>
	// MSH|1
	// MSH|2
	// EOF
	// TCP
}

// A sender that ends its message by ending the stream, and a receiver that
// understands it so.
func ExampleFraming_raw() {
	framing := mllp.Framing{Mode: mllp.ModeRAW, Delimiter: mllp.DelimitEOF}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	srv := &mllp.Server{
		Framing: framing,
		Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
			fmt.Printf("received %s\n", r.Header.ControlID)
			return nil, nil
		}),
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()

	conn, err := (&mllp.Dialer{Framing: framing}).DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, err := conn.Send(ctx, []byte("MSH|^~\\&|LAB|||||||MSG1|P|2.5\rPID|1\r"))
	fmt.Println(err)
	conn.Close()
	stop()
	<-served
	if reply != nil {
		fmt.Println(reply.Ack.Code)
	}
	// Output:
	// received MSG1
	// <nil>
	// AA
}

// A document of any size passes through little memory.
func ExampleStreamHandler() {
	srv := &mllp.Server{
		Addr: ":2575",
		// Longer ones are refused with AR; without it, those over 1 GiB.
		MaxStreamBytes: 200 << 20,
		Stream: mllp.StreamHandlerFunc(func(_ context.Context, r *mllp.StreamRequest) ([]byte, error) {
			file := io.Discard // a temporary file, kept only if all went well
			n, err := io.Copy(file, r.Body)
			if err != nil {
				return nil, err // the message did not arrive whole, or could not be stored: never AA
			}
			fmt.Printf("%s: %d bytes\n", r.Header.ControlID, n)
			return nil, nil // AA
		}),
	}
	fmt.Println(srv.Validate())
	// Output: <nil>
}
