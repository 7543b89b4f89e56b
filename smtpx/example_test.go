package smtpx_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/carewire/carewire/smtpx"
	"github.com/carewire/carewire/tlsprops"
)

// A result is mailed over STARTTLS, with a report that is not held in memory.
func ExampleSender() {
	sender := &smtpx.Sender{
		Host:       "smtp.example.org",
		Encryption: smtpx.EncryptionTLS, // port 587, STARTTLS or nothing
		TLS:        &tlsprops.TlsProperties{Enabled: true, TrustStorePath: "certs/ca.crt"},
		Auth:       smtpx.Auth{Username: "mirth@example.org", Password: os.Getenv("SMTP_PASSWORD")},
	}
	defer sender.Close()
	message := &smtpx.Message{
		From: "Laboratory <lab@example.org>", To: []string{"ward3@example.org"}, Bcc: []string{"archive@example.org"},
		Subject: "Result", Text: "See the report.",
		Attachments: []smtpx.Attachment{{Path: "/var/spool/reports/4711.pdf"}},
	}
	result, err := sender.Send(context.Background(), message)
	if failed, ok := errors.AsType[*smtpx.SendError](err); ok && failed.Retryable() {
		// Later, and to those who do not have it:
		message.ID, message.Recipients = result.MessageID, result.Remaining()
	}
}

func ExampleMessage_Expand() {
	template := &smtpx.Message{
		From: "mirth@example.org", To: []string{"${contact}"},
		Subject: "Message ${message.id}", HTML: "<p>${text}</p>",
	}
	message, err := template.Expand(map[string]string{
		"contact": "ops@example.org", "message.id": "42", "text": "OBX|1 <5 & ${message.id}",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(message.To[0])
	fmt.Println(message.Subject)
	fmt.Println(message.HTML)
	_, err = template.Expand(map[string]string{"contact": "ops@example.org"})
	fmt.Println(err)
	// Output:
	// ops@example.org
	// Message 42
	// <p>OBX|1 &lt;5 &amp; ${message.id}</p>
	// smtpx: ${message.id} has no value
}

// A server that does not encrypt gets nothing.
func ExampleSender_Send_withoutStartTLS() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		fmt.Fprint(nc, "220 mail.example.org\r\n")
		fmt.Fscanln(nc, new(string), new(string))
		fmt.Fprint(nc, "250-mail.example.org\r\n250 SIZE 1000000\r\n")
		fmt.Fscanln(nc)
	}()
	sender := &smtpx.Sender{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port, Encryption: smtpx.EncryptionTLS}
	defer sender.Close()
	_, err = sender.Send(context.Background(), &smtpx.Message{From: "a@example.org", To: []string{"b@example.org"}})
	fmt.Println(err)
	fmt.Println(errors.Is(err, smtpx.ErrNoStartTLS))
	// Output:
	// smtpx: not sent: the server does not do STARTTLS, which encryption tls demands
	// true
}
