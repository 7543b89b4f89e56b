package mllp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// receiver starts a Server for an example. It refuses the orders among its messages.
func receiver(ctx context.Context) (addr string, stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return "", func() {}
	}
	srv := &mllp.Server{Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
		if string(r.Header.MessageType) == "ORM^O01" {
			return nil, &mllp.Nak{Code: mllp.AR, Text: "no orders here"}
		}
		return nil, nil
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	return ln.Addr().String(), func() { srv.Close(); <-done }
}

func ExampleConn_Send() {
	ctx := context.Background()
	addr, stop := receiver(ctx)
	defer stop()

	var dialer mllp.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	msg := "MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ADT^A01|MSG00001|P|2.5\rPID|1||4711\r"
	reply, err := conn.Send(ctx, []byte(msg))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(reply.Ack.Code, reply.Ack.ControlID)
	// Output: AA MSG00001
}

// What to do with a message that was not acknowledged follows from two
// questions: can another try help, and may the receiver have the message already?
func ExampleSendError() {
	ctx := context.Background()
	addr, stop := receiver(ctx)
	defer stop()
	conn, err := new(mllp.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		fmt.Println(err)
		return
	}

	try := func(msg string) {
		_, err := conn.Send(ctx, []byte(msg))
		if e, ok := errors.AsType[*mllp.SendError](err); ok {
			fmt.Println(e)
			fmt.Printf("%v: retry %v, a retry may make a duplicate %v\n", e.Outcome, e.Retryable(), e.MaybeDelivered())
		}
	}
	try("MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ADT^A01||P|2.5\r")
	try("MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ORM^O01|MSG00002|P|2.5\r")
	conn.Close() // as it closes itself when the receiver does
	try("MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ADT^A01|MSG00003|P|2.5\r")
	// Output:
	// mllp: not sent: the message has no control ID (MSH-10)
	// not sent: retry false, a retry may make a duplicate false
	// mllp: the receiver answered AR
	// nacked: retry false, a retry may make a duplicate false
	// mllp: not sent: the connection was closed: use of closed network connection
	// not sent: retry true, a retry may make a duplicate false
}

// A Dialer with TLS and a client certificate. The files are read again when
// they have changed; no restart is needed for a new certificate.
func ExampleDialer() {
	dialer := &mllp.Dialer{
		TLS: &tlsprops.TlsProperties{
			Enabled:        true,
			TrustStorePath: "/etc/carewire/ca.crt",
			CertStorePath:  "/etc/carewire/client.crt",
			KeyStorePath:   "/etc/carewire/client.key",
		},
		Timeout: time.Minute, // a slow receiver
	}
	fmt.Println(dialer.Transport())
	// Output: MLLPS
}

// A Client finds its receiver again by itself.
func ExampleClient() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	addr, stop := receiver(ctx)
	defer stop()

	client := &mllp.Client{
		Addr:        addr,
		Dialer:      &mllp.Dialer{Timeout: 10 * time.Second},
		MaxAttempts: 5,
		RetryCodes:  []mllp.AckCode{mllp.AE}, // this receiver answers so when its database is busy
		Observe: func(e mllp.Event) {
			if e.Kind == mllp.EventHealth {
				fmt.Println("the receiver is", e.Detail)
			}
		},
	}
	defer client.Close()
	for _, kind := range []string{"ADT^A01", "ORM^O01"} {
		reply, err := client.Send(ctx, []byte("MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||"+kind+"|MSG00001|P|2.5\r"))
		if e, ok := errors.AsType[*mllp.SendError](err); ok {
			fmt.Println(e, "- again later:", e.Retryable(), "- perhaps delivered:", e.MaybeDelivered())
			continue
		}
		fmt.Println(reply.Ack.Code, reply.Outcome())
	}
	fmt.Println(client.Health().State, client.Health().Conns)
	// Output:
	// AA acked
	// mllp: the receiver answered AR - again later: false - perhaps delivered: false
	// ok 1
	// the receiver is closed
}

func ExampleHeader_Parse() {
	var h mllp.Header
	if err := h.Parse([]byte("MSH|^~\\&|LAB|HOSP|EHR|CLINIC|20250102030405||ADT^A01|MSG00001|P|2.5\rPID|1\r")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s from %s, control ID %s\n", h.MessageType, h.SendingApplication, h.ControlID)
	// Output: ADT^A01 from LAB, control ID MSG00001
}
