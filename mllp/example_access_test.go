package mllp_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// Who may connect, and in whose name they may send, as it may stand in a
// program's configuration.
func ExampleSenderRule() {
	var cfg struct {
		Allow   mllp.Prefixes
		Senders []mllp.SenderRule
	}
	err := json.Unmarshal([]byte(`{
		"allow": ["10.20.0.0/16", "2001:db8:20::/48"],
		"senders": [
			{"dnsName": "lab.example.org", "applications": ["LAB"], "facilities": ["HOSP1", "HOSP2"]},
			{"commonName": "radiology", "applications": ["RIS", "PACS"], "facilities": ["*"]}
		]
	}`), &cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := &mllp.Server{
		Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil }),
		Allow:   cfg.Allow, Senders: cfg.Senders,
	}
	fmt.Println(srv.Validate())
	srv.TLS = &tlsprops.TlsProperties{
		Enabled: true, KeyStorePath: "server.key", CertStorePath: "server.crt",
		TrustStorePath: "ca.crt", RequireClientCert: true,
	}
	fmt.Println(srv.Validate())
	// Output:
	// mllp: Server.Senders is set, but clients are not asked for a certificate: set requireClientCert in Server.TLS
	// <nil>
}

// What a handler wants to know of a client is worked out once for a connection,
// and found in the context of each of its messages.
func ExampleServer_connContext() {
	type key struct{}
	srv := &mllp.Server{
		ConnContext: func(ctx context.Context, info mllp.ConnInfo) context.Context {
			client := info.RemoteAddr.String()
			if info.Identity != nil {
				client = info.Identity.Subject
			}
			return context.WithValue(ctx, key{}, client)
		},
		Handler: mllp.HandlerFunc(func(ctx context.Context, r *mllp.Request) ([]byte, error) {
			client, _ := ctx.Value(key{}).(string)
			return nil, store(ctx, client, r.Message)
		}),
	}
	fmt.Println(srv.Validate())
	// Output: <nil>
}

func store(context.Context, string, []byte) error { return nil }
