package mllp_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/mllp"
)

// pythonPeer speaks release 2, FRAME, RAW and enhanced mode with Python's sockets.
// Debian has no program that does: python3-hl7 knows MLLP release 1 in original
// mode alone, and nothing else in main speaks MLLP. So this was written for these
// tests, from the standards and not from package mllp, in another language; it shows
// what an independent reading of them expects, not what a product does.
const pythonPeer = `
import socket, sys

mode, role, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
START, END = {"frame": (b"<SOM>", b"<EOM>"), "raw": (b"", b"\n")}.get(mode, (b"\x0b", b"\x1c\r"))
buf = b""

def say(text):
    sock.sendall(START + text + END)

def hear():
    global buf
    while END not in buf:
        more = sock.recv(7)  # small, so that everything comes in pieces
        if not more:
            sys.exit("the other side has ended")
        buf += more
    text, buf = buf.split(END, 1)
    assert text.startswith(START), text
    return text[len(START):]

def expect(text):
    got = hear()
    assert got == text, got

def msa(text):
    for segment in text.split(b"\r"):
        if segment.startswith(b"MSA|"):
            return segment.split(b"|")[1:3]
    raise AssertionError(text)

def msh(kind, id, rest=b""):
    return b"MSH|^~\\&|A|B|C|D|20250102030405||" + kind + b"|" + id + b"|P|2.5" + rest + b"\r"

if role == "send":
    sock = socket.create_connection(("127.0.0.1", port))
    for n in (b"P1", b"P2", b"P3"):
        say(msh(b"ADT^A01", n, b"|||AL|AL" if mode == "enhanced" else b"") + b"PID|1\r")
        if mode == "r2":
            expect(b"\x06")
        if mode == "enhanced":
            assert msa(hear()) == [b"CA", n]
        assert msa(hear()) == [b"AA", n]
        if mode == "r2":
            say(b"\x06")
    if mode == "r2":  # as if the 06 had got lost
        for _ in range(2):
            say(msh(b"ADT^A01", b"P4"))
            expect(b"\x06")
            assert msa(hear()) == [b"AA", b"P4"]
        say(b"\x06")
else:
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    sock, _ = server.accept()
    for n in range(3):
        text = hear()
        id = text.split(b"\r")[0].split(b"|")[9]
        if mode == "r2" and n == 0:
            say(b"\x15")  # not committed: the same comes again
            expect(text)
        if mode == "r2":
            say(b"\x06")
        if mode == "enhanced":
            say(msh(b"ACK", b"C" + id) + b"MSA|CA|" + id + b"\r")
        say(msh(b"ACK", b"R" + id) + b"MSA|AA|" + id + b"\r")
        if mode == "r2":
            expect(b"\x06")
print("done")
`

var pythonModes = map[string]mllp.Framing{
	"r2": release2, "frame": frameOf("<SOM>", "<EOM>"), "raw": raw(mllp.DelimitNewline), "enhanced": {},
}

func TestPythonSendsInEveryFraming(t *testing.T) {
	python := interop.Need(t, "python3")
	for mode, f := range pythonModes {
		t.Run(mode, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			ids := make(chan string, 10)
			srv := &mllp.Server{Framing: f, Enhanced: mode == "enhanced", Handler: mllp.HandlerFunc(func(_ context.Context, r *mllp.Request) ([]byte, error) {
				ids <- string(r.Header.ControlID)
				return nil, nil
			})}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(t.Context(), ln) }()
			_, port, err := net.SplitHostPort(ln.Addr().String())
			require.NoError(t, err)
			out, err := exec.CommandContext(t.Context(), python, "-c", pythonPeer, mode, "send", port).CombinedOutput()
			srv.Close()
			<-served
			require.NoError(t, err, "%s", out)
			assert.Equal(t, "done\n", string(out))
			close(ids)
			var got []string
			for id := range ids {
				got = append(got, id)
			}
			want := []string{"P1", "P2", "P3"}
			if mode == "r2" {
				want = append(want, "P4") // once, though it came twice
			}
			assert.Equal(t, want, got)
		})
	}
}

func TestPythonReceivesInEveryFraming(t *testing.T) {
	python := interop.Need(t, "python3")
	for mode, f := range pythonModes {
		t.Run(mode, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), python, "-c", pythonPeer, mode, "receive", "0")
			var failure strings.Builder
			cmd.Stderr = &failure
			pipe, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			out := bufio.NewReader(pipe)
			port, err := out.ReadString('\n')
			require.NoError(t, err)
			c, err := (&mllp.Dialer{Framing: f, Enhanced: mode == "enhanced"}).DialContext(t.Context(), "tcp", "127.0.0.1:"+strings.TrimSpace(port))
			require.NoError(t, err)
			for _, id := range []string{"M1", "M2", "M3"} {
				msg := "MSH|^~\\&|A|B|C|D|20250102030405||ADT^A01|" + id + "|P|2.5\rPID|1\r"
				if mode == "enhanced" {
					msg = asking(id, "AL", "AL")
				}
				reply, err := c.Send(t.Context(), []byte(msg))
				require.NoError(t, err)
				assert.Equal(t, mllp.AA, reply.Ack.Code)
				assert.Equal(t, id, reply.Ack.ControlID)
				if mode == "enhanced" {
					assert.Equal(t, mllp.CA, reply.Commit)
				}
			}
			rest, err := io.ReadAll(out)
			require.NoError(t, err)
			require.NoError(t, cmd.Wait(), "%s", &failure)
			assert.Equal(t, "done\n", string(rest))
			c.Close()
		})
	}
}
