package mllp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// opensslServer runs openssl s_server with args on a port of its own and answers
// message M1. It returns the address.
func opensslServer(t *testing.T, args ...string) string {
	t.Helper()
	openssl := interop.Need(t, "openssl")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	cmd := exec.CommandContext(ctx, openssl, append([]string{"s_server", "-accept", "127.0.0.1:0"}, args...)...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	address, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			if addr, ok := strings.CutPrefix(line, "ACCEPT "); ok {
				address <- strings.TrimSpace(addr)
				break
			}
			if err != nil {
				return
			}
		}
		var seen bytes.Buffer
		for {
			b, err := lines.ReadByte()
			if err != nil {
				return
			}
			seen.WriteByte(b)
			if bytes.HasSuffix(seen.Bytes(), []byte("\x1C\r")) {
				io.WriteString(in, answer(mllp.AA, "M1"))
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		cmd.Wait()
	})
	select {
	case addr := <-address:
		return addr
	case <-ended:
		t.Fatal("openssl s_server did not start")
		return ""
	}
}

func TestOpenSSLAsReceiver(t *testing.T) {
	interop.Need(t, "openssl")
	ca, dir := testpki.NewCA(t, "CA"), t.TempDir()
	trust, server, client := ca.Write(dir, "ca.crt"), ca.Server().Write(dir, "server"), ca.Client("sender").Write(dir, "client")
	pair := []string{"-cert", server.Cert, "-key", server.Key}
	mutual := slices.Concat(pair, []string{"-CAfile", trust, "-Verify", "1", "-verify_return_error"})
	with := &tlsprops.TlsProperties{Enabled: true, TrustStorePath: trust, KeyStorePath: client.Key, CertStorePath: client.Cert}
	without := &tlsprops.TlsProperties{Enabled: true, TrustStorePath: trust}

	for name, tt := range map[string]struct {
		args    []string
		tls     *tlsprops.TlsProperties
		option  string
		version uint16
	}{
		"TLS 1.2":         {pair, without, "-tls1_2", tls.VersionTLS12},
		"TLS 1.3":         {pair, without, "-tls1_3", tls.VersionTLS13},
		"mutual, TLS 1.2": {mutual, with, "-tls1_2", tls.VersionTLS12},
		"mutual, TLS 1.3": {mutual, with, "-tls1_3", tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			d := &mllp.Dialer{TLS: tt.tls}
			c, err := d.DialContext(t.Context(), "tcp", opensslServer(t, slices.Concat(tt.args, []string{tt.option})...))
			require.NoError(t, err)
			defer c.Close()
			state, _ := c.ConnectionState()
			assert.Equal(t, tt.version, state.Version)
			reply, err := c.Send(t.Context(), adt("M1"))
			require.NoError(t, err)
			assert.Equal(t, mllp.AA, reply.Ack.Code)
		})
	}

	t.Run("no client certificate, TLS 1.2", func(t *testing.T) {
		d := &mllp.Dialer{TLS: without}
		_, err := d.DialContext(t.Context(), "tcp", opensslServer(t, slices.Concat(mutual, []string{"-tls1_2"})...))
		assert.False(t, failed(t, err, mllp.NotSent).Retryable())
	})
	t.Run("no client certificate, TLS 1.3", func(t *testing.T) {
		d := &mllp.Dialer{TLS: without}
		c, err := d.DialContext(t.Context(), "tcp", opensslServer(t, slices.Concat(mutual, []string{"-tls1_3"})...))
		require.NoError(t, err, "TLS 1.3 tells a client only later")
		defer c.Close()
		_, err = c.Send(t.Context(), adt("M1"))
		require.ErrorIs(t, err, mllp.ErrPeerRejectedCertificate)
		var e interface{ Retryable() bool }
		require.ErrorAs(t, err, &e)
		assert.False(t, e.Retryable())
	})
	t.Run("a name that the certificate has not", func(t *testing.T) {
		elsewhere := *without
		elsewhere.SniServerName = "elsewhere.example"
		_, err := (&mllp.Dialer{TLS: &elsewhere}).DialContext(t.Context(), "tcp", opensslServer(t, pair...))
		assert.False(t, failed(t, err, mllp.NotSent).Retryable())
	})
}

func TestAClientWithoutTheCertificateThatOpenSSLWantsIsFaulty(t *testing.T) {
	interop.Need(t, "openssl")
	ca, dir := testpki.NewCA(t, "CA"), t.TempDir()
	trust, server := ca.Write(dir, "ca.crt"), ca.Server().Write(dir, "server")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		addr := opensslServer(t, "-cert", server.Cert, "-key", server.Key, "-CAfile", trust, "-Verify", "1", "-verify_return_error", version)
		c := &mllp.Client{Addr: addr, Dialer: &mllp.Dialer{TLS: &tlsprops.TlsProperties{Enabled: true, TrustStorePath: trust}}}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err := c.Send(ctx, adt("M1"))
		var e interface {
			Retryable() bool
			MaybeDelivered() bool
		}
		require.ErrorAs(t, err, &e, version)
		assert.False(t, e.Retryable(), version)
		_, err = c.Send(ctx, adt("M2")) // at once, whichever way the first has learnt of it
		assert.False(t, failed(t, err, mllp.NotSent).Retryable(), version)
		require.ErrorIs(t, err, mllp.ErrUnreachable, version)
		assert.Equal(t, mllp.StateFaulty, c.Health().State, version)
		require.NoError(t, c.Close())
		cancel()
	}
}
