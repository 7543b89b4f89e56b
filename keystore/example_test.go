package keystore_test

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"

	"github.com/carewire/carewire/keystore"
	"github.com/carewire/carewire/tlsprops"
)

// The key store of a Mirth installation, with the two passwords of its
// mirth.properties.
func Example() {
	s, err := keystore.OpenFile("testdata/stores/mirth.jks", keystore.Options{
		Password:    "KqVh3TtYwR8a", // keystore.storepass
		KeyPassword: "Zx81mPnLcD0e", // keystore.keypass
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Format, s.Integrity)
	for _, e := range s.Entries {
		fmt.Println(e.Alias, e.Kind, e.Algorithm, len(e.Chain))
	}
	// Output:
	// JCEKS verified
	// encryption SecretKeyEntry AES 0
	// mirthconnect PrivateKeyEntry RSA 2048 3
}

func ExampleStore_WritePEMFiles() {
	s, err := keystore.OpenFile("testdata/stores/keyplusca.jks", keystore.Options{Password: "changeit"})
	if err != nil {
		fmt.Println(err)
		return
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	names, err := s.WritePEMFiles(filepath.Join(dir, "certs"), keystore.PEMOptions{})
	fmt.Println(names, err)
	// Output: [server.key server.crt ca.crt] <nil>
}

func ExampleStore_TLSCertificate() {
	s, err := keystore.OpenFile("testdata/stores/kinds.jks", keystore.Options{Password: "changeit"})
	if err != nil {
		fmt.Println(err)
		return
	}
	cert, err := s.TLSCertificate("ec256")
	if err != nil {
		fmt.Println(err)
		return
	}
	config := &tls.Config{Certificates: []tls.Certificate{*cert}}
	fmt.Println(len(config.Certificates), cert.Leaf.Subject)
	// Output: 1 CN=ec256
}

// With the decoder, the settings of any connector may name key stores. They are
// read again when they change.
func ExampleDecoder() {
	source, err := tlsprops.Load(tlsprops.TlsProperties{
		Enabled:        true,
		KeyStorePath:   "testdata/stores/jdk25.jks",
		TrustStorePath: "testdata/stores/trust.pkcs12",
		Passphrase:     "changeit",
		Decoder:        keystore.Decoder,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	config, err := source.ServerConfig()
	fmt.Println(config != nil, err)
	// Output: true <nil>
}
