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
	"strings"
	"testing"

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
