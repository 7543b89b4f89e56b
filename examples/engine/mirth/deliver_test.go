package mirth_test

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/engine"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
	"github.com/carewire/carewire/examples/engine/mirth"
	"github.com/carewire/carewire/mllp"
)

const message = "MSH|^~\\&|WARD|NORTH|LAB|NORTH|20260101120000||ADT^A01|M1|P|2.5\rPID|1||4711\r"

// freePort returns a port of loopback on which nobody listens.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// asJSON is XML as the REST API of Mirth 4 gives it to who accepts JSON: attributes have
// an @, what repeats is a list, text beside attributes is $, and what reads as a number
// or as true is one.
func asJSON(t *testing.T, text string) string {
	t.Helper()
	dec := xml.NewDecoder(strings.NewReader(text))
	var element func(xml.StartElement) any
	element = func(start xml.StartElement) any {
		fields, said := map[string]any{}, ""
		for _, a := range start.Attr {
			fields["@"+a.Name.Local] = a.Value
		}
		for {
			token, err := dec.Token()
			require.NoError(t, err)
			switch token := token.(type) {
			case xml.StartElement:
				name, value := token.Name.Local, element(token)
				switch before := fields[name].(type) {
				case []any:
					fields[name] = append(before, value)
				default:
					if _, there := fields[name]; there {
						value = []any{before, value}
					}
					fields[name] = value
				}
			case xml.CharData:
				said += string(token)
			case xml.EndElement:
				var primitive any = said
				if strings.TrimSpace(said) == "" {
					primitive = nil
				}
				if json.Valid([]byte(said)) && !strings.ContainsAny(said, "\"[{") {
					primitive = json.RawMessage(said)
				}
				switch {
				case len(fields) == 0:
					return primitive
				case primitive != nil:
					fields["$"] = primitive
				}
				return fields
			}
		}
	}
	token, err := dec.Token()
	require.NoError(t, err)
	start := token.(xml.StartElement)
	encoded, err := json.Marshal(map[string]any{start.Name.Local: element(start)})
	require.NoError(t, err)
	return string(encoded)
}

func TestAnImportedChannelRunsAndDelivers(t *testing.T) {
	for name, export := range map[string]func(port, receiver int) string{
		"Open Integration Engine, XML": func(port, receiver int) string {
			return channelXML("5ba097b6-56f6-4802-82d6-c7a830a3aaf3", "ADT", tcpListener(port), tcpSender("To the lab", receiver), fileWriter("Archive", "archive"))
		},
		"Open Integration Engine, XML of the REST API as JSON": func(port, receiver int) string {
			return asJSON(t, channelXML("5ba097b6-56f6-4802-82d6-c7a830a3aaf3", "ADT", tcpListener(port), tcpSender("To the lab", receiver), fileWriter("Archive", "archive")))
		},
		"Node.js, JSON": channelJSON,
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 10)
			ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			require.NoError(t, err)
			receiver := &mllp.Server{Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				got <- string(r.Message)
				return nil, nil
			})}
			served := make(chan struct{})
			go func() {
				defer close(served)
				receiver.Serve(context.Background(), ln)
			}()
			t.Cleanup(func() { receiver.Close(); <-served })

			port := freePort(t)
			res := run(t, mirth.Options{}, export(port, ln.Addr().(*net.TCPAddr).Port))
			require.True(t, res.Complete(), res.Findings)
			dir := t.TempDir()
			cfg, err := load(t, dir, res.YAML)
			require.NoError(t, err, "%s", res.YAML)

			st, err := sqlite.Open(t.Context(), cfg.DataDir, &sqlite.Options{Reserve: -1})
			require.NoError(t, err)
			t.Cleanup(func() { st.Close() })
			e := engine.New(cfg, st, engine.Options{})
			e.StartDestinations()
			require.NoError(t, e.StartSources(t.Context()))
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				assert.NoError(t, e.StopSources(ctx))
				e.StopDestinations(ctx)
			})

			conn, err := new(mllp.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", itoa(port)))
			require.NoError(t, err)
			defer conn.Close()
			reply, err := conn.Send(t.Context(), []byte(message))
			require.NoError(t, err)
			assert.Contains(t, string(reply.Raw), "MSA|AA|M1")
			select {
			case delivered := <-got:
				assert.Equal(t, message, delivered)
			case <-time.After(time.Minute):
				t.Fatal("the message was not delivered")
			}
			if !strings.Contains(name, "XML") {
				return
			}
			require.Eventually(t, func() bool {
				files, err := filepath.Glob(filepath.Join(dir, "archive", "*"))
				if err != nil || len(files) == 0 {
					return false
				}
				content, err := os.ReadFile(files[0])
				return err == nil && string(content) == message
			}, time.Minute, 5*time.Millisecond)
		})
	}
}
