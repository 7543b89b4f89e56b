package tlsprops_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/tlsprops"
)

// failure ends an Example as a testing.TB ends a test.
type failure struct{}

func (failure) Helper()                           {}
func (failure) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// A listener that demands client certificates, and a client that has one.
func Example() {
	dir, err := os.MkdirTemp("", "certs")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ca := testpki.NewCA(failure{}, "Hospital CA")
	ca.Write(dir, "ca.crt")
	ca.Server("hl7.hospital.org").Write(dir, "server")
	ca.Client("ward 7").Write(dir, "client")

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	listener, err := tlsprops.Load(tlsprops.TlsProperties{
		Enabled:           true,
		KeyStorePath:      filepath.Join(dir, "server.key"),
		CertStorePath:     filepath.Join(dir, "server.crt"),
		TrustStorePath:    filepath.Join(dir, "ca.crt"),
		RequireClientCert: true,
	})
	if err != nil {
		panic(err)
	}
	serverConfig, err := listener.ServerConfig()
	if err != nil {
		panic(err)
	}
	watching := make(chan struct{})
	go func() { defer close(watching); listener.Watch(ctx) }() // certificates rotate without a restart

	client, err := tlsprops.Load(tlsprops.TlsProperties{
		Enabled:        true,
		KeyStorePath:   filepath.Join(dir, "client.key"),
		CertStorePath:  filepath.Join(dir, "client.crt"),
		TrustStorePath: filepath.Join(dir, "ca.crt"),
	})
	if err != nil {
		panic(err)
	}
	if err := client.Refresh(ctx); err != nil { // before every connection
		panic(err)
	}
	clientConfig, err := client.ClientConfig("hl7.hospital.org")
	if err != nil {
		panic(err)
	}

	near, far := net.Pipe()
	server := serve(far, serverConfig)
	conn, err := connect(near, clientConfig)
	if err != nil {
		panic(err)
	}
	fmt.Println("the server is", conn.ConnectionState().PeerCertificates[0].Subject.CommonName)
	fmt.Println("the client is", (<-server).state.PeerCertificates[0].Subject.CommonName)
	_ = near.Close()
	cancel()
	<-watching
	// Output:
	// the server is hl7.hospital.org
	// the client is ward 7
}

// A misspelt setting is an error, not a default.
func ExampleTlsProperties_UnmarshalJSON() {
	var p tlsprops.TlsProperties
	fmt.Println(json.Unmarshal([]byte(`{"enabled": true, "rejectUnauthorised": false}`), &p))
	// Output: tlsprops: unknown field "rejectUnauthorised": correct the TLS settings
}

// An error names the setting and says what to do.
func ExampleTlsProperties_ValidateFor() {
	p := tlsprops.TlsProperties{
		Enabled:           true,
		KeyStorePath:      "/etc/mirth/certs/server.key",
		CertStorePath:     "/etc/mirth/certs/server.crt",
		RequireClientCert: true,
	}
	fmt.Println(p.ValidateFor(tlsprops.Listener))
	p.MinVersion = "TLSv1.1"
	fmt.Println(p.Validate())
	// Output:
	// tlsprops: trustStorePath: is missing, but client certificates are asked for: set it to the CA that issues them (trustSystemRoots would let in everyone with a public certificate)
	// tlsprops: minVersion TLSv1.1: nothing below TLS 1.2 is spoken, because RFC 8996 forbids it: use TLSv1.2 or TLSv1.3, and a TLS proxy beside a peer that cannot
}
