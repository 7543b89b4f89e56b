package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/tlsprops"
)

// dicomTLS are the flags of a DICOM command about TLS.
type dicomTLS struct {
	Mode         string   `enum:"notls,3des,aes,bcp195" default:"notls" placeholder:"MODE" help:"notls; bcp195, today's profile; aes, that and the retired AES profile, for older peers and Mirth; 3des, for equipment that has nothing else. Default: ${default}."`
	CA           string   `name:"ca" placeholder:"FILE" help:"Authorities to trust (PEM, JKS or PKCS#12). A listener with it demands a certificate of every client."`
	Cert         string   `placeholder:"FILE" help:"Own certificate (PEM), with its chain."`
	Key          string   `xor:"key" placeholder:"FILE" help:"Private key of the certificate (PEM)."`
	Keystore     string   `xor:"key" placeholder:"FILE" help:"Key and certificate in one file (JKS, PKCS#12 or PEM), in place of --cert and --key."`
	StorepassEnv string   `placeholder:"VAR" help:"Environment variable with the password of the stores."`
	KeypassEnv   string   `placeholder:"VAR" help:"Environment variable with the password of the key, where it differs."`
	Verification string   `enum:",full,chain-only,pinned" default:"" placeholder:"HOW" help:"full; chain-only, which does not check the name in the peer's certificate; or pinned, which checks --pin alone. Default: full."`
	Pin          []string `placeholder:"PIN" help:"Public key that the peer must have: sha256/ and base64."`
	Name         string   `placeholder:"NAME" help:"Name to find in the server's certificate, in place of the host's."`
}

// properties are the flags in the library's words, for one side.
func (f *dicomTLS) properties(role tlsprops.Role) (*dicomtls.Properties, error) {
	storePW, err := secretFrom("--storepass-env", f.StorepassEnv)
	if err != nil {
		return nil, err
	}
	keyPW, err := secretFrom("--keypass-env", f.KeypassEnv)
	if err != nil {
		return nil, err
	}
	p := &dicomtls.Properties{
		TLS:          dicomtls.DicomTlsMode(f.Mode),
		KeyStore:     cmp.Or(f.Keystore, f.Key),
		CertStore:    f.Cert,
		KeyPW:        keyPW,
		TrustStore:   f.CA,
		Verification: tlsprops.VerifyMode(f.Verification),
		Pins:         f.Pin,
		ServerName:   f.Name,
	}
	if p.KeyStore != "" {
		p.KeyStorePW = storePW
	}
	if p.TrustStore != "" {
		p.TrustStorePW = storePW
	}
	if p.TLS.Enabled() {
		switch role {
		case tlsprops.Listener:
			p.NoClientAuth = f.CA == "" && len(f.Pin) == 0
		case tlsprops.Client:
			p.NoClientAuth = p.KeyStore == ""
		}
	}
	if err := p.Check(role); err != nil {
		return nil, unusableDicom(err)
	}
	return p, nil
}

// secretFrom returns a password from the environment, which other users cannot
// see as they can the command line.
func secretFrom(flag, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	secret, ok := os.LookupEnv(name)
	if !ok {
		return "", unusable("%s: there is no variable %s in the environment", flag, name)
	}
	return secret, nil
}

// dicomFlagOf names the flag behind a setting of the library, for error messages.
var dicomFlagOf = map[string]string{
	"tls": "--mode", "keyStore": "--keystore or --key", "certStore": "--cert", "keyStorePW": "--storepass-env", "keyPW": "--keypass-env",
	"trustStore": "--ca", "trustStorePW": "--storepass-env", "verification": "--verification", "pins": "--pin", "serverName": "--name",
}

// unusableDicom turns the library's refusal of a setting into one of the flag.
func unusableDicom(err error) error {
	if field, ok := errors.AsType[*dicomtls.FieldError](err); ok && dicomFlagOf[field.Field] != "" {
		return unusable("%s: %w", dicomFlagOf[field.Field], err)
	}
	return &exitError{status: exitUsage, err: err}
}

// dicomPeer are the flags of a command that makes associations.
type dicomPeer struct {
	Addr    string `required:"" placeholder:"HOST:PORT" help:"SCP to associate with."`
	Called  string `default:"ANY-SCP" placeholder:"TITLE" help:"AE title of the SCP (default: ${default})."`
	Calling string `default:"CAREWIRE" aliases:"aet" placeholder:"TITLE" help:"AE title of this side (default: ${default})."`
	dicomTLS
	Timeout time.Duration `default:"60s" placeholder:"SPAN" help:"How long to wait for each response (default: ${default})."`
}

// dialer makes a dialer of the flags.
func (f *dicomPeer) dialer(s *streams) (*dicomtls.Dialer, error) {
	if _, _, err := net.SplitHostPort(f.Addr); err != nil {
		return nil, unusable("--addr %q is not HOST:PORT", f.Addr)
	}
	if f.Timeout <= 0 {
		return nil, unusable("--timeout must be more than 0")
	}
	p, err := f.properties(tlsprops.Client)
	if err != nil {
		return nil, err
	}
	if !p.TLS.Enabled() && !isLoopback(f.Addr) {
		s.note("with --mode notls the objects travel in the clear")
	}
	return &dicomtls.Dialer{
		AETitle: f.Calling, CalledAE: f.Called, TLS: p, ResponseTimeout: f.Timeout, CommitTimeout: f.Timeout,
	}, nil
}

// dicomFailure is the error of a request, with a hint where one is known, as an
// exit status.
func dicomFailure(err error) error {
	if _, ok := errors.AsType[*dicomtls.FieldError](err); ok {
		return unusableDicom(err)
	}
	if hint := dicomtls.TLSHint(err); hint != "" {
		return fmt.Errorf("%w (%s)", err, hint)
	}
	return err
}

// dicomEchoCmd is `carewire dicom echo`.
type dicomEchoCmd struct {
	dicomPeer
	Repeat int  `default:"1" placeholder:"N" help:"Echo N times on one association (default: ${default})."`
	JSON   bool `name:"json" help:"Print one JSON object for each echo."`
}

// echoed is what became of one echo.
type echoed struct {
	Milliseconds   float64 `json:"ms"`
	Transport      string  `json:"transport"`
	Implementation string  `json:"implementation,omitempty"` // of the peer
}

// Run echoes, and fails with the first echo that does.
func (c *dicomEchoCmd) Run(ctx context.Context, s *streams) error {
	if c.Repeat < 1 {
		return unusable("--repeat must be at least 1")
	}
	d, err := c.dialer(s)
	if err != nil {
		return err
	}
	a, err := d.DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return dicomFailure(err)
	}
	defer a.Close()
	for range c.Repeat {
		began := time.Now()
		if err := a.Echo(ctx); err != nil {
			return dicomFailure(err)
		}
		line := echoed{
			Milliseconds: milliseconds(time.Since(began)), Transport: dicomTransport(a.Info()),
			Implementation: a.Info().ImplementationVersionName,
		}
		if c.JSON {
			_ = s.printJSON(line) // to a reader that has gone nothing can be said
			continue
		}
		fmt.Fprintf(s.out, "0000 %s %s %s %.3f ms\n", c.Called, line.Transport, cmp.Or(line.Implementation, "(unnamed)"), line.Milliseconds)
	}
	return dicomFailureOrNil(a.Release(ctx))
}

func dicomFailureOrNil(err error) error {
	if err == nil {
		return nil
	}
	return dicomFailure(err)
}

// dicomTransport says how an association is secured.
func dicomTransport(info *dicomtls.AssociationInfo) string {
	if info.TLS == nil {
		return "DICOM"
	}
	return "DICOM-TLS " + tlsSummary(info.TLS)
}
