package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/meshclient/meshtest"
)

// meshServer starts a MESH, and returns a function that runs a command of mesh
// for a mailbox of it.
func meshServer(t *testing.T, o meshtest.Options) (server *meshtest.Server, mesh func(mailbox string, args ...string) (status int, stdout, stderr string)) {
	t.Helper()
	server, err := meshtest.New(o)
	require.NoError(t, err)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	for _, mailbox := range []string{"MAILBOX1", "MAILBOX2"} {
		conf, err := server.Config(mailbox)
		require.NoError(t, err)
		require.NoError(t, writeMeshDir(filepath.Join(dir, mailbox), conf))
	}
	return server, func(mailbox string, args ...string) (int, string, string) {
		t.Helper()
		var out, errs strings.Builder
		// The command is the first of args, and its flags come after it.
		args = append([]string{"mesh", args[0], "--base-url", server.URL, "--dir", filepath.Join(dir, mailbox)}, args[1:]...)
		status := run(t.Context(), args, strings.NewReader(""), &out, &errs)
		return status, out.String(), errs.String()
	}
}

// noise is n bytes that do not compress, in a file.
func noise(t *testing.T, n int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	path = filepath.Join(t.TempDir(), "results.bin")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path, content
}

func TestAFileGoesFromOneMailboxToAnother(t *testing.T) {
	_, mesh := meshServer(t, meshtest.Options{})
	status, out, errs := mesh("MAILBOX1", "handshake")
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "MAILBOX1: the server answered")
	status, out, errs = mesh("MAILBOX1", "lookup", "X26", "RESULTS")
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "MAILBOX2\t")

	file, content := noise(t, 100_000)
	status, out, errs = mesh("MAILBOX1", "send", "--to", "MAILBOX2", "--workflow", "RESULTS", "--subject", "SubjectCanary", "--gzip", "--json", file)
	require.Equal(t, exitOK, status, errs)
	assert.NotContains(t, out+errs, "SubjectCanary")
	var sent meshSent
	require.NoError(t, json.Unmarshal([]byte(out), &sent))
	assert.Equal(t, 1, sent.Chunks)

	status, out, _ = mesh("MAILBOX2", "inbox")
	assert.Equal(t, exitOK, status)
	assert.Equal(t, sent.MessageID+"\n", out)
	to := filepath.Join(t.TempDir(), "received.bin")
	status, out, errs = mesh("MAILBOX2", "receive", "--out", to, "--ack", sent.MessageID)
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "received "+sent.MessageID+" from MAILBOX1, workflow RESULTS, 100000 bytes\n")
	assert.Contains(t, out, "acknowledged "+sent.MessageID)
	assert.NotContains(t, out+errs, "SubjectCanary")
	received, err := os.ReadFile(to)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, received))

	status, out, _ = mesh("MAILBOX2", "inbox")
	assert.Equal(t, exitOK, status)
	assert.Empty(t, out)
	for _, args := range [][]string{{"track", sent.MessageID}, {"track", "--local", sent.LocalID}} {
		status, out, errs = mesh("MAILBOX1", args...)
		assert.Equal(t, exitOK, status, errs)
		assert.Contains(t, out, sent.MessageID+" acknowledged MAILBOX2")
	}
	status, _, errs = mesh("MAILBOX2", "receive", "--out", filepath.Join(t.TempDir(), "x"), sent.MessageID)
	assert.Equal(t, exitNo, status)
	assert.Contains(t, errs, "410")
}

func TestAnInterruptedTransferGoesOnWhereItWas(t *testing.T) {
	server, mesh := meshServer(t, meshtest.Options{})
	const chunk = 5 << 20
	file, content := noise(t, 3*chunk-1)
	send := func(more ...string) (int, string, string) {
		return mesh("MAILBOX1", append([]string{"send", "--to", "MAILBOX2", "--workflow", "W", "--chunk-size", "5242880", file}, more...)...)
	}
	requests := func(op string) (chunks []int) {
		for _, r := range server.Requests() {
			if r.Op == op {
				chunks = append(chunks, r.Chunk)
			}
		}
		return chunks
	}
	server.Script(meshtest.Fault{Op: "chunk", Chunk: 3, Status: 417, Body: "{}"})
	status, _, errs := send()
	require.Equal(t, exitNacked, status, errs)
	status, _, errs = send()
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs, "--resume goes on with it")
	status, out, errs := send("--resume")
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "in 3 chunks")
	assert.Equal(t, []int{2, 3, 3}, requests("chunk"), "what the server has is not sent again")
	assert.NoFileExists(t, file+".mesh-send")
	status, _, _ = send("--resume")
	assert.Equal(t, exitUsage, status, "there is nothing to go on with")

	id := server.Waiting("MAILBOX2")[0]
	to := filepath.Join(t.TempDir(), "received.bin")
	server.Script(meshtest.Fault{Op: "download", Chunk: 3, Status: 404, Body: "{}"})
	status, _, errs = mesh("MAILBOX2", "receive", "--out", to, id)
	require.Equal(t, exitNo, status, errs)
	assert.NoFileExists(t, to)
	part, err := os.OpenFile(to+".part", os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = io.WriteString(part, "what was written after the state")
	require.NoError(t, err)
	require.NoError(t, part.Close())
	status, _, errs = mesh("MAILBOX2", "receive", "--out", to, "--resume", id)
	require.Equal(t, exitOK, status, errs)
	assert.Equal(t, []int{1, 2, 3, 3}, requests("download"))
	received, err := os.ReadFile(to)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, received))
	left, err := filepath.Glob(to + ".*")
	require.NoError(t, err)
	assert.Empty(t, left)
	status, _, _ = mesh("MAILBOX2", "receive", "--out", to, id)
	assert.Equal(t, exitUsage, status, "a file that is there is not replaced")
}

func TestAMessageWhoseAnswerIsLostHasAStatusOfItsOwn(t *testing.T) {
	server, mesh := meshServer(t, meshtest.Options{})
	file, _ := noise(t, 100)
	for want, tt := range map[int]struct {
		fault meshtest.Fault
		to    string
	}{
		exitUnknown: {meshtest.Fault{Op: "send", DropAfter: true}, "MAILBOX2"},
		exitNacked:  {meshtest.Fault{Op: "none"}, "NOBODY"},
	} {
		server.Script(tt.fault)
		status, _, errs := mesh("MAILBOX1", "send", "--to", tt.to, "--workflow", "W", "--local-id", "4711", file)
		assert.Equal(t, want, status, errs)
		assert.Contains(t, errs, "local id 4711")
	}
	status, out, errs := mesh("MAILBOX1", "track", "--local", "4711", "--json")
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, `"status":"accepted"`)
}

func TestAReportIsToldAndMakesNoFile(t *testing.T) {
	server, mesh := meshServer(t, meshtest.Options{})
	file, _ := noise(t, 100)
	status, _, errs := mesh("MAILBOX1", "send", "--to", "MAILBOX2", "--workflow", "W", file)
	require.Equal(t, exitOK, status, errs)
	lost := server.Waiting("MAILBOX2")[0]
	server.Undeliverable(lost, "14", "DescriptionCanary")
	to := filepath.Join(t.TempDir(), "x")
	status, out, errs := mesh("MAILBOX1", "receive", "--out", to, server.Waiting("MAILBOX1")[0])
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "message "+lost+" was not delivered, code 14\n")
	assert.NotContains(t, out+errs, "DescriptionCanary")
	left, err := filepath.Glob(to + "*")
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestMeshFakeServesWhatTheOtherCommandsAsk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fake")
	ctx, end := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	done := make(chan int, 1)
	go func() {
		var errs strings.Builder
		done <- run(ctx, []string{"mesh", "fake", "--addr", "127.0.0.1:0", "--dir", dir}, strings.NewReader(""), writer, &errs)
	}()
	said := make([]byte, 1000)
	n, err := reader.Read(said)
	require.NoError(t, err)
	url := regexp.MustCompile(`https://127\.0\.0\.1:\d+`).FindString(string(said[:n]))
	require.NotEmpty(t, url)
	var out, errs strings.Builder
	status := run(t.Context(), []string{"mesh", "handshake", "--base-url", url, "--dir", dir, "--json"}, strings.NewReader(""), &out, &errs)
	assert.Equal(t, exitOK, status, errs.String())
	assert.Contains(t, out.String(), `"mailbox":"MAILBOX1"`)
	end()
	assert.Equal(t, exitOK, <-done)
}

func TestMeshRefusesWhatItCannotUse(t *testing.T) {
	_, mesh := meshServer(t, meshtest.Options{})
	missing := filepath.Join(t.TempDir(), "missing")
	for want, args := range map[string][]string{
		"--password-file":   {"handshake", "--password-file", missing},
		"trustStorePath":    {"handshake", "--ca", missing},
		"https://":          {"handshake", "--base-url", "http://mesh.example.org"},
		"missing":           {"send", "--to", "MAILBOX2", "--workflow", "W", missing},
		"no such file":      {"receive", "--resume", "--out", missing, "1"},
		"chunks from 5 MiB": {"send", "--to", "MAILBOX2", "--workflow", "W", "--chunk-size", "10", "mesh_test.go"},
	} {
		code, out, errs := mesh("MAILBOX1", args...)
		assert.Equal(t, exitUsage, code, "%s: %s", want, errs)
		assert.Empty(t, out)
		assert.Contains(t, errs, want)
	}
	var errs strings.Builder
	status := run(t.Context(), []string{"mesh", "fake", "--addr", "0.0.0.0:0", "--dir", missing}, strings.NewReader(""), io.Discard, &errs)
	assert.Equal(t, exitUsage, status)
	assert.Contains(t, errs.String(), "not on this machine")
}

func TestPollEmptiesTheInboxIntoADirectory(t *testing.T) {
	server, mesh := meshServer(t, meshtest.Options{})
	dir := filepath.Join(t.TempDir(), "inbox")
	id := server.Deliver(&meshtest.Message{
		From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{[]byte("he"), []byte("llo")},
		Header: map[string][]string{"Mex-Filename": {"../../NameCanary"}},
	})
	lost := server.Deliver(&meshtest.Message{From: "MAILBOX2", To: "MAILBOX1", WorkflowID: "W", Chunks: [][]byte{{1}}})
	server.Undeliverable(lost, "14", "late")
	report := server.Waiting("MAILBOX2")[1]
	status, out, errs := mesh("MAILBOX2", "poll", "--once", "--out", dir)
	require.Equal(t, exitOK, status, errs)
	assert.Contains(t, out, "received "+id+" from MAILBOX1, workflow W, 5 bytes\n")
	assert.Contains(t, out, "message "+lost+" was not delivered, code 14\n")
	assert.NotContains(t, out+errs, "NameCanary")
	assert.Empty(t, server.Waiting("MAILBOX2"))
	content, err := os.ReadFile(filepath.Join(dir, id+".dat"))
	require.NoError(t, err)
	assert.Equal(t, "hello", string(content))
	text, err := os.ReadFile(filepath.Join(dir, id+".ctl"))
	require.NoError(t, err)
	assert.Contains(t, string(text), "NameCanary", "it is there for whoever may know")
	assert.FileExists(t, filepath.Join(dir, report+".ctl"))
	assert.NoFileExists(t, filepath.Join(dir, report+".dat"))

	status, _, errs = mesh("MAILBOX2", "poll", "--once", "--out", dir)
	assert.Equal(t, exitNo, status)
	assert.Contains(t, errs, "listed not long ago")
	server.Deliver(&meshtest.Message{From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{{1}}})
	server.Script(meshtest.Fault{Op: "download", Status: 410, Body: "{}"})
	status, _, errs = mesh("MAILBOX2", "poll", "--once", "--out", t.TempDir())
	assert.Equal(t, exitNo, status)
	assert.Contains(t, errs, "1 message of 1 in the inbox not done with")
}

func TestDoctorSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	server, mesh := meshServer(t, meshtest.Options{})
	status, out, errs := mesh("MAILBOX1", "doctor")
	require.Equal(t, exitOK, status, out+errs)
	for _, want := range []string{"ok   client certificate: good until", "ok   server certificate: verified", "ok   clock", "ok   handshake", "client.mailbox1.api.mesh-client.nhs.uk"} {
		assert.Contains(t, out, want)
	}
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, text, 0o600))
		return path
	}
	now := time.Now()
	late, lateKey, err := server.Client(now.Add(-2*time.Hour), now.Add(-time.Hour))
	require.NoError(t, err)
	soon, soonKey, err := server.Client(now.Add(-2*time.Hour), now.Add(30*24*time.Hour))
	require.NoError(t, err)
	other, err := meshtest.New(meshtest.Options{})
	require.NoError(t, err)
	defer other.Close()
	strange, strangeKey, err := other.Client(now.Add(-time.Hour), now.AddDate(1, 0, 0))
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		args  []string
		wants []string
		bad   bool
	}{
		"expired":         {[]string{"--cert", write("late.crt", late), "--key", write("late.key", lateKey)}, []string{"BAD  client certificate: it expired", "-> make a new key"}, true},
		"expires soon":    {[]string{"--cert", write("soon.crt", soon), "--key", write("soon.key", soonKey)}, []string{"warn client certificate: it expires in 29 days"}, false},
		"another's":       {[]string{"--cert", write("strange.crt", strange), "--key", write("strange.key", strangeKey)}, []string{"BAD  handshake", "each environment has client certificates"}, true},
		"another root":    {[]string{"--ca", write("other.crt", other.CA())}, []string{"BAD  server certificate: no root verifies what CN=meshtest CA", "-> set --ca"}, true},
		"no certificate":  {[]string{"--cert", filepath.Join(dir, "none")}, []string{"BAD  client certificate: open", "BAD  settings"}, true},
		"key of another":  {[]string{"--key", write("other.key", strangeKey)}, []string{"BAD  settings", "-> correct the setting"}, true},
		"wrong password":  {[]string{"--password-file", write("password", []byte("PasswordCanary"))}, []string{"BAD  handshake", "-> compare mailbox, password"}, true},
		"nobody there":    {[]string{"--base-url", "https://127.0.0.1:1"}, []string{"BAD  server certificate: no connection", "-> open the firewall"}, true},
		"nothing to find": {[]string{"--json"}, []string{`"what":"handshake","state":"ok"`}, false},
	} {
		status, out, errs := mesh("MAILBOX1", append([]string{"doctor"}, tt.args...)...)
		assert.Equal(t, map[bool]int{true: exitNo, false: exitOK}[tt.bad], status, name+"\n"+out+errs)
		for _, want := range tt.wants {
			assert.Contains(t, out, want, name)
		}
		assert.NotContains(t, out+errs, "PasswordCanary")
	}
	server.Advance(3 * time.Hour)
	status, out, _ = mesh("MAILBOX1", "doctor")
	assert.Equal(t, exitNo, status)
	assert.Contains(t, out, "BAD  clock: this machine's is -")
}

func TestConformanceRunsTheCatalogueAndPrintsTheEvidence(t *testing.T) {
	server, mesh := meshServer(t, meshtest.Options{Mailboxes: map[string]string{"MAILBOX1": "password", "MAILBOX2": "password", "OFF": "password"}, Dir: t.TempDir()})
	server.Disable("OFF")
	server.Deliver(&meshtest.Message{From: "MAILBOX2", To: "MAILBOX1", WorkflowID: "W", Chunks: [][]byte{{1}}})
	status, out, errs := mesh("MAILBOX1", "conformance", "--workflow", "W", "--disabled", "OFF", "--many")
	require.Equal(t, exitOK, status, out+errs)
	for _, want := range []string{
		"pass handshake", "pass 201", "pass 202", "pass 401", "pass 402", "pass 601", "pass 701", "pass 702", "pass 704", "pass 705", "skip 703", "skip 801",
		"listed, 497 received and acknowledged; listed, 103 received", `status 417, code "12", tried once`,
	} {
		assert.Contains(t, out, want)
	}
	assert.Len(t, server.Waiting("MAILBOX1"), 1+2, "what is not its own is not acknowledged")

	server.Script(meshtest.Fault{Op: "acknowledge", Status: 403, Body: "{}", Times: 2})
	status, out, _ = mesh("MAILBOX1", "conformance", "--workflow", "W")
	assert.Equal(t, exitNo, status)
	for _, want := range []string{"FAIL 401", "FAIL 402", "skip 501", "skip 601", "skip 701", "skip 705"} {
		assert.Contains(t, out, want)
	}
}

// Under the race detector this takes minutes, and finds nothing that smaller messages
// do not.
func TestConformanceOfMoreThan200MB(t *testing.T) {
	if raceDetector || testing.Short() {
		t.Skip("it is slow under the race detector, and left out with -short")
	}
	_, mesh := meshServer(t, meshtest.Options{Mailboxes: map[string]string{"MAILBOX1": "password"}, Dir: t.TempDir()})
	status, out, errs := mesh("MAILBOX1", "conformance", "--workflow", "W", "--large")
	require.Equal(t, exitOK, status, out+errs)
	assert.Contains(t, out, "pass 501, 502")
	assert.Contains(t, out, "210000000 bytes in 4 chunks")
}

// What a sender calls a file is no path here: files have the names of the messages. A
// NUL cannot come: net/http takes no answer with one (RFC 9110, section 5.5).
func TestAFileNameFromTheSenderMakesNoPath(t *testing.T) {
	server, mesh := meshServer(t, meshtest.Options{})
	parent := t.TempDir()
	dir := filepath.Join(parent, "inbox")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for _, name := range []string{
		"x", "x", "../../x", "../x", "..", ".", "/etc/passwd", "/", "x/", "x/../../y", `C:\x`, `..\..\x`, `\\host\share\x`,
		"CON", "CON.", "aux.txt", "NUL", "x.", "x ", "~/x", "$HOME", "-rf", "*", "x\ty", "r\u00e9s", "\xff\xfe", "%2e%2e%2fx",
		strings.Repeat("x", 300), strings.Repeat("../", 100),
	} {
		server.Deliver(&meshtest.Message{
			From: "MAILBOX1", To: "MAILBOX2", WorkflowID: "W", Chunks: [][]byte{[]byte("content")},
			Header: map[string][]string{"Mex-Filename": {name}},
		})
	}
	want := server.Waiting("MAILBOX2")
	status, _, errs := mesh("MAILBOX2", "poll", "--once", "--out", dir)
	require.Equal(t, exitOK, status, errs)
	files, err := filepath.Glob(filepath.Join(dir, "*.dat"))
	require.NoError(t, err)
	require.Len(t, files, len(want))
	for i, file := range files {
		assert.Equal(t, want[i]+".dat", filepath.Base(file))
		assert.FileExists(t, filepath.Join(dir, want[i]+".ctl"))
	}
	require.NoError(t, filepath.WalkDir(parent, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			assert.Equal(t, dir, filepath.Dir(path))
			id := strings.TrimSuffix(strings.TrimSuffix(d.Name(), ".dat"), ".ctl")
			assert.True(t, slices.Contains(want, id) || !strings.Contains(d.Name(), "x"), path)
		}
		return err
	}))
}
