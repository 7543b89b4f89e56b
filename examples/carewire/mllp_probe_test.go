package main

import (
	"context"
	"encoding/json"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// good runs a receiver that accepts everything, until the test ends.
func good(t *testing.T, props *tlsprops.TlsProperties) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &mllp.Server{TLS: props, Handler: mllp.HandlerFunc(func(context.Context, *mllp.Request) ([]byte, error) { return nil, nil })}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(context.Background(), ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return ln.Addr().String()
}

func TestProbeOfAListenerPrintsALineForEachScenario(t *testing.T) {
	r := carewire(t, "mllp", "probe", good(t, nil), "--only", "truncated,plain", "--only", "two-msh")
	assert.Equal(t, exitOK, r.status)
	assert.Empty(t, r.err)
	assert.Equal(t, `ok       truncated             AE 1, AA 2
ok       plain                 AA 1
ok       two-msh               AR 1
3 scenarios: 3 ok, 0 differ, 0 BAD
`, r.out)
}

func TestProbeOfABadListenerIsStatus1(t *testing.T) {
	merges := serve(t, func(conn net.Conn) {
		for {
			var text []byte
			for !strings.HasSuffix(string(text), "\x1c\r") {
				b := make([]byte, 1)
				if _, err := conn.Read(b); err != nil {
					return
				}
				text = append(text, b[0])
			}
			var h mllp.Header
			_ = h.Parse(text[1:strings.IndexByte(string(text), '\r')])
			frame, err := mllp.AppendFrame(nil, []byte("MSH|^~\\&|CANARY\rMSA|AA|"+string(h.ControlID)+"|CANARY\r"))
			if err != nil || write(conn, frame) != nil {
				return
			}
		}
	})
	r := carewire(t, "mllp", "probe", merges, "--only", "plain,truncated,no-control-id", "--timeout", "2s")
	assert.Equal(t, exitNo, r.status)
	assert.Empty(t, r.err)
	assert.Equal(t, `ok       plain                 AA 1
BAD      truncated             AA 1; expected a refusal of the first and AA for the second, or a closed connection: ACKNOWLEDGED A MESSAGE THAT DID NOT ARRIVE: its sender forgets it
differs  no-control-id         AA -; expected a refusal with an empty MSA-2: acknowledges it: a sender cannot tell what was
3 scenarios: 1 ok, 1 differ, 1 BAD
`, r.out)
	r = carewire(t, "mllp", "probe", merges, "--only", "plain,no-control-id")
	assert.Equal(t, exitOK, r.status, "what differs loses nothing")
}

func TestProbeOfAListenerPrintsJSONForScripts(t *testing.T) {
	r := carewire(t, "mllp", "probe", good(t, nil), "--json", "--only", "plain")
	require.Equal(t, exitOK, r.status, r.err)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	require.Len(t, lines, 2)
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &line))
	for key, want := range map[string]any{"name": "plain", "grade": "ok", "came": "AA 1", "expected": "AA"} {
		assert.Equal(t, want, line[key], key)
	}
	assert.Contains(t, line, "rule")
	assert.Contains(t, line, "sent")
	assert.Contains(t, line, "ms")
	assert.Regexp(t, regexp.MustCompile(`^\{"summary":\{"ok":1,"differs":0,"bad":0,"seconds":[0-9.e-]+\}\}$`), lines[1])
}

func TestProbeOfAListenerWithMutualTLS(t *testing.T) {
	ca := newPKI(t)
	server, client := ca.Server("127.0.0.1").Write(ca.dir, "server"), ca.Client("probe").Write(ca.dir, "client")
	addr := good(t, &tlsprops.TlsProperties{
		Enabled: true, KeyStorePath: server.Key, CertStorePath: server.Cert, TrustStorePath: ca.file, RequireClientCert: true,
	})
	only := []string{"mllp", "probe", addr, "--only", "plain,plaintext", "--timeout", "10s", "--tls"}
	r := carewire(t, append(only, "--ca", ca.file, "--cert", client.Cert, "--key", client.Key)...)
	assert.Equal(t, exitOK, r.status, r.err)
	assert.Regexp(t, regexp.MustCompile(`^ok       plain +AA 1\nok       plaintext +(a TLS alert, )?(closed|reset)\n2 scenarios: 2 ok, 0 differ, 0 BAD\n$`), r.out)

	other := testpki.NewCA(t, "Other CA").Write(t.TempDir(), "ca.crt")
	r = carewire(t, append(only, "--ca", other, "--cert", client.Cert, "--key", client.Key)...)
	assert.Equal(t, exitNo, r.status, "a listener that cannot be verified is sent nothing")
	assert.Empty(t, r.out)
	assert.Contains(t, r.err, "certificate")

	r = carewire(t, append(only, "--ca", ca.file, "--only", "tls-hello")...)
	assert.Equal(t, exitUsage, r.status)
	assert.Contains(t, r.err, "runs only without --tls")
}

func TestProbeListsItsScenariosWithoutAListener(t *testing.T) {
	r := carewire(t, "mllp", "probe", "--list")
	assert.Equal(t, exitOK, r.status)
	assert.Contains(t, r.out, "truncated\n    rule      never AA for what did not arrive whole")
	assert.Contains(t, r.out, "\n16-mib\n", "those of --large too")
	r = carewire(t, "mllp", "probe", "--list", "--json", "--only", "plain")
	assert.Equal(t, exitOK, r.status)
	assert.Regexp(t, regexp.MustCompile(`^\{"name":"plain","rule":"[^"]+","sent":"[^"]+","expected":"AA"\}\n$`), r.out)
	r = carewire(t, "mllp", "probe", "--help")
	assert.Contains(t, r.out, "THE LISTENER FILES WHAT IT IS SENT")
}

func TestAProbeThatCannotBeginSaysWhy(t *testing.T) {
	for name, tt := range map[string]struct {
		args   []string
		status int
	}{
		"no listener":         {nil, exitUsage},
		"no port":             {[]string{"localhost"}, exitUsage},
		"an unknown scenario": {[]string{"localhost:1", "--only", "nothing"}, exitUsage},
		"one of --large":      {[]string{"localhost:1", "--only", "16-mib"}, exitUsage},
		"no timeout":          {[]string{"localhost:1", "--timeout", "0s"}, exitUsage},
		"no connections":      {[]string{"localhost:1", "--conns", "0"}, exitUsage},
		"TLS without --tls":   {[]string{"localhost:1", "--name", "x"}, exitUsage},
		"production":          {[]string{"localhost:1", "--processing-id", "P"}, exitUsage},
		"nobody listens":      {[]string{"127.0.0.1:0"}, exitNo},
	} {
		t.Run(name, func(t *testing.T) {
			r := carewire(t, append([]string{"mllp", "probe"}, tt.args...)...)
			assert.Equal(t, tt.status, r.status)
			assert.Empty(t, r.out)
			assert.Regexp(t, regexp.MustCompile(`^carewire: [^\n]+\n$`), r.err)
		})
	}
}

func TestAnInterruptedProbeSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr := serve(t, func(conn net.Conn) {
		cancel() // the answer does not come
		speak(conn, "")
	})
	r := carewireUntil(ctx, nil, "mllp", "probe", addr)
	assert.Equal(t, exitNo, r.status)
	assert.Equal(t, "carewire: interrupted\n", r.err)
	assert.Empty(t, r.out)
}
