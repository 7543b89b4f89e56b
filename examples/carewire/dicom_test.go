package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/interop"
)

const ctStorage = "1.2.840.10008.5.1.4.1.1.2"

// dicomFile writes a small object in Explicit VR Little Endian.
func dicomFile(t *testing.T, dir, name, instance string) string {
	t.Helper()
	element := func(tag, vr, value string) string {
		if len(value)%2 == 1 {
			value += "\x00"
		}
		return tag + vr + string([]byte{byte(len(value)), byte(len(value) >> 8)}) + value
	}
	meta := dicomtls.FileMeta{SOPClassUID: ctStorage, SOPInstanceUID: instance, TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian}
	data, err := meta.AppendTo(nil)
	require.NoError(t, err)
	data = append(data, element("\x08\x00\x16\x00", "UI", ctStorage)+element("\x08\x00\x18\x00", "UI", instance)+
		element("\x10\x00\x20\x00", "LO", strings.Repeat("x", 20_000))...)
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// aStudy is a directory with objects at several depths, and another file.
func aStudy(t *testing.T, n int) (dir string, files []string) {
	t.Helper()
	dir = t.TempDir()
	for i := range n {
		files = append(files, dicomFile(t, dir, fmt.Sprintf("series%d/%d.dcm", i%2, i), fmt.Sprintf("1.2.3.%d", i+1)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("not an object\n"), 0o600))
	return dir, files
}

// dataSet is a file without its header.
func dataSet(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	_, size, err := dicomtls.ReadFileMeta(bufio.NewReader(bytes.NewReader(raw)))
	require.NoError(t, err)
	return string(raw[size:])
}

// credentials makes certificates with the tool itself.
func credentials(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	r := carewire(t, "tls", "certs", "--dir", dir)
	require.Equal(t, exitOK, r.status, r.err)
	return dir
}

func TestAStudySentIsTheStudyStored(t *testing.T) {
	certs := credentials(t)
	study, files := aStudy(t, 5)
	for mode, sides := range map[string][2][]string{
		"notls": {},
		"aes": {
			{"--mode", "aes", "--cert", certs + "/server.crt", "--key", certs + "/server.key", "--ca", certs + "/ca.crt"},
			{"--mode", "aes", "--cert", certs + "/client.crt", "--key", certs + "/client.key", "--ca", certs + "/ca.crt"},
		},
		"bcp195": { // without client certificates
			{"--mode", "bcp195", "--cert", certs + "/server.crt", "--key", certs + "/server.key"},
			{"--mode", "bcp195", "--ca", certs + "/ca.crt"},
		},
	} {
		t.Run(mode, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "objects")
			l := listenFor(t, "dicom", append([]string{"--out", out, "--aet", "ARCHIVE"}, sides[0]...)...)
			assert.Equal(t, "listening "+l.addr+" "+mode+"\n", l.first)
			peer := append([]string{"--addr", l.addr, "--called", "ARCHIVE", "--calling", "WORKSTATION"}, sides[1]...)

			r := carewire(t, append([]string{"dicom", "echo"}, peer...)...)
			assert.Equal(t, exitOK, r.status, r.err)
			assert.Contains(t, r.out, "0000 ARCHIVE DICOM")
			assert.Equal(t, mode != "notls", strings.Contains(r.out, "TLS 1.3"))

			r = carewire(t, append(append([]string{"dicom", "send"}, peer...), study)...)
			assert.Equal(t, exitOK, r.status, r.err)
			assert.Equal(t, 5, strings.Count(r.out, "0000 "))
			assert.Contains(t, r.out, "5 objects: 5 stored, 0 refused, 0 unknown, 0 not sent")
			assert.Contains(t, r.err, "passed over 1 file")
			for i, f := range files {
				assert.Equal(t, dataSet(t, f), dataSet(t, filepath.Join(out, fmt.Sprintf("1.2.3.%d.dcm", i+1))))
			}
			r = carewire(t, append(append([]string{"dicom", "send", "--quiet", "--json"}, peer...), files[0])...)
			assert.Equal(t, exitOK, r.status, r.err)
			var sum dicomTally
			require.NoError(t, json.Unmarshal([]byte(r.out), &sum))
			assert.Equal(t, 1, sum.Stored)

			ended := l.stop()
			assert.Equal(t, exitOK, ended.status, ended.err)
			assert.Equal(t, 6, strings.Count(ended.out, "WORKSTATION"))
			assert.Equal(t, 1, strings.Count(ended.out, "was there already"))
		})
	}
}

func TestSendTellsTheFateOfEachObjectInItsExitStatus(t *testing.T) {
	out := t.TempDir()
	l := listenFor(t, "dicom", "--out", out, "--duplicates", "reject", "--aet", "ARCHIVE")
	file := dicomFile(t, t.TempDir(), "a.dcm", "1.2.3")
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	other := filepath.Join(t.TempDir(), "b.dcm")
	require.NoError(t, os.WriteFile(other, bytes.Replace(raw, []byte("xxxx"), []byte("yyyy"), 1), 0o600))
	assert.Equal(t, exitOK, carewire(t, "dicom", "send", "--addr", l.addr, "--called", "ARCHIVE", file).status)

	r := carewire(t, "dicom", "send", "--addr", l.addr, "--called", "ARCHIVE", other)
	assert.Equal(t, exitNacked, r.status, r.err)
	assert.Contains(t, r.out, "0111 "+other)
	r = carewire(t, "dicom", "send", "--addr", l.addr, "--called", "ANOTHER", file)
	assert.Equal(t, exitNotSent, r.status)
	assert.Contains(t, r.out, "called AE title not recognized")
	r = carewire(t, "dicom", "echo", "--addr", l.addr, "--called", "ANOTHER")
	assert.Equal(t, exitNo, r.status)
	assert.Contains(t, r.err, "called AE title not recognized")
	l.stop()
	assert.Equal(t, exitNotSent, carewire(t, "dicom", "send", "--addr", l.addr, file).status)
}

func TestWhatTheDicomCommandsCannotUseIsStatus2(t *testing.T) {
	certs := credentials(t)
	file := dicomFile(t, t.TempDir(), "a.dcm", "1.2.3")
	text := filepath.Join(t.TempDir(), "notes.txt")
	require.NoError(t, os.WriteFile(text, []byte("not an object, whatever it is\n"), 0o600))
	t.Setenv("STOREPASS", "s3cret-wrong")
	for says, args := range map[string][]string{
		"--mode":              {"echo", "--addr", "127.0.0.1:104", "--mode", "AES"},
		"not HOST:PORT":       {"echo", "--addr", "127.0.0.1"},
		"tls is notls":        {"echo", "--addr", "127.0.0.1:104", "--ca", certs + "/ca.crt"},
		"--ca: dicomtls":      {"echo", "--addr", "127.0.0.1:104", "--mode", "aes"},
		"needs a private key": {"listen", "--addr", "127.0.0.1:0", "--mode", "aes", "--ca", certs + "/ca.crt"},
		"NO_SUCH_VARIABLE":    {"listen", "--addr", "127.0.0.1:0", "--mode", "aes", "--keystore", "x.jks", "--storepass-env", "NO_SUCH_VARIABLE"},
		"incorrect password":  {"listen", "--addr", "127.0.0.1:0", "--mode", "aes", "--keystore", golden("keyplusca.jks"), "--storepass-env", "STOREPASS"},
		"not a DICOM file":    {"send", "--addr", "127.0.0.1:104", text},
		"no such file":        {"send", "--addr", "127.0.0.1:104", file + ".missing"},
		"--out":               {"listen", "--addr", "127.0.0.1:0", "--out", "/dev/null/objects"},
	} {
		r := carewire(t, append([]string{"dicom"}, args...)...)
		assert.Equal(t, exitUsage, r.status, "%v: %s", args, r.err)
		assert.Contains(t, r.err, says)
		assert.Empty(t, r.out, "nothing has begun")
		assert.NotContains(t, r.err, "s3cret")
	}
}

func TestCommitSaysForWhatTheSCPVouches(t *testing.T) {
	_, files := aStudy(t, 2)
	l := listenFor(t, "dicom") // which has no storage commitment
	r := carewire(t, append([]string{"dicom", "commit", "--addr", l.addr}, files...)...)
	assert.Equal(t, exitNo, r.status)
	assert.NotContains(t, r.out, "COMMITTED")
}

// What was sent and stored is vouched for, on the association of the request or on one
// of its own, and what was not is not.
func TestListenVouchesForWhatItHolds(t *testing.T) {
	_, files := aStudy(t, 3)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	at := free.Addr().String()
	require.NoError(t, free.Close())
	l := listenFor(t, "dicom", "--out", t.TempDir(), "--commit", filepath.Join(t.TempDir(), "requests"), "--requestor", "AWAY="+at)
	r := carewire(t, append([]string{"dicom", "send", "--addr", l.addr}, files[:2]...)...)
	require.Equal(t, exitOK, r.status, r.err)

	r = carewire(t, append([]string{"dicom", "commit", "--addr", l.addr}, files[:2]...)...)
	assert.Equal(t, exitOK, r.status, r.err)
	r = carewire(t, append([]string{"dicom", "commit", "--addr", l.addr}, files...)...)
	assert.Equal(t, exitNo, r.status, r.err)
	assert.Contains(t, r.out, "NOT COMMITTED "+files[2]+"\t0112")
	r = carewire(t, append([]string{"dicom", "commit", "--addr", l.addr, "--calling", "AWAY", "--listen", at}, files[:2]...)...)
	assert.Equal(t, exitOK, r.status, r.err)
	assert.Equal(t, 2, strings.Count(r.out, "COMMITTED"))

	for _, args := range [][]string{{"--commit", t.TempDir()}, {"--out", t.TempDir(), "--requestor", "A=127.0.0.1:1"}} {
		r := carewire(t, append([]string{"dicom", "listen", "--addr", "127.0.0.1:0"}, args...)...)
		assert.Equal(t, exitUsage, r.status, r.err)
	}
}

// dcmtk runs a program of DCMTK and returns what it said.
func dcmtk(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, interop.Need(t, name), args...).CombinedOutput()
	return string(out), err
}

func TestTheToolListensToDCMTK(t *testing.T) {
	certs := credentials(t)
	out := t.TempDir()
	file := dicomFile(t, t.TempDir(), "a.dcm", "1.2.3")
	l := listenFor(t, "dicom", "--out", out, "--mode", "aes", "--cert", certs+"/server.crt", "--key", certs+"/server.key", "--ca", certs+"/ca.crt")
	_, port, err := net.SplitHostPort(l.addr)
	require.NoError(t, err)
	for _, name := range []string{"echoscu", "storescu"} {
		args := []string{"+tls", certs + "/client.key", certs + "/client.crt", "+cf", certs + "/ca.crt", "+px", "127.0.0.1", port}
		if name == "storescu" {
			args = append(args, file)
		}
		said, err := dcmtk(t, name, args...)
		assert.NoError(t, err, "%s: %s", name, said)
	}
	assert.Equal(t, dataSet(t, file), dataSet(t, filepath.Join(out, "1.2.3.dcm")))
}

func TestTheToolSendsToDCMTK(t *testing.T) {
	path := interop.Need(t, "storescp")
	study, files := aStudy(t, 3)
	for range 5 { // storescp must be told a port, which may be taken by then
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := ln.Addr().String()
		_, port, _ := net.SplitHostPort(addr)
		ln.Close()
		out := t.TempDir()
		cmd := exec.Command(path, "+B", "-od", out, port)
		require.NoError(t, cmd.Start())
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		r := result{status: exitNo}
		for deadline := time.Now().Add(20 * time.Second); r.status != exitOK && time.Now().Before(deadline); {
			r = carewire(t, "dicom", "echo", "--addr", addr)
			select {
			case <-ended:
				deadline = time.Now()
			case <-time.After(20 * time.Millisecond):
			}
		}
		if r.status == exitOK {
			r = carewire(t, "dicom", "send", "--addr", addr, study)
			assert.Equal(t, exitOK, r.status, r.err)
			entries, err := os.ReadDir(out)
			require.NoError(t, err)
			assert.Len(t, entries, len(files))
			r = carewire(t, append([]string{"dicom", "commit", "--addr", addr}, files...)...)
			assert.Equal(t, exitNo, r.status, "storescp has no storage commitment")
		}
		_ = cmd.Process.Kill()
		<-ended
		if r.status == exitNo {
			return
		}
	}
	t.Error("storescp did not start")
}

// An archive that reports on an association of its own, in the clear and over TLS.
func TestCommitListensForTheReport(t *testing.T) {
	certs := credentials(t)
	_, files := aStudy(t, 2)
	for _, mode := range []dicomtls.DicomTlsMode{dicomtls.ModeNoTLS, dicomtls.ModeBCP195} {
		var theirs, back *dicomtls.Properties
		var flags []string
		if mode.Enabled() {
			// Our certificate is that of a server, and here we are a client first.
			theirs = &dicomtls.Properties{TLS: mode, KeyStore: certs + "/server.key", CertStore: certs + "/server.crt", TrustStore: certs + "/ca.crt", AnyExtendedKeyUsage: true}
			back = &dicomtls.Properties{TLS: mode, KeyStore: certs + "/client.key", CertStore: certs + "/client.crt", TrustStore: certs + "/ca.crt"}
			flags = []string{"--mode", mode.String(), "--cert", certs + "/server.crt", "--key", certs + "/server.key", "--ca", certs + "/ca.crt"}
		}
		free, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		at := free.Addr().String()
		free.Close()
		var reporting sync.WaitGroup
		server := &dicomtls.Server{TLS: theirs, Commit: dicomtls.CommitHandlerFunc(func(_ context.Context, r *dicomtls.CommitRequest) dicomtls.Status {
			report := &dicomtls.CommitReport{TransactionUID: r.TransactionUID, Committed: r.References}
			reporting.Go(func() {
				plain := &dicomtls.Dialer{AETitle: "ARCHIVE", CalledAE: "MODALITY"}
				if mode.Enabled() {
					assert.Error(t, plain.Report(context.Background(), "tcp", at, report), "in the clear")
				}
				assert.NoError(t, (&dicomtls.Dialer{AETitle: "ARCHIVE", CalledAE: "MODALITY", TLS: back}).Report(context.Background(), "tcp", at, report))
			})
			return dicomtls.StatusSuccess
		})}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(context.Background(), ln) }()
		args := append([]string{"dicom", "commit", "--addr", ln.Addr().String(), "--called", "ARCHIVE", "--calling", "MODALITY", "--listen", at}, flags...)
		r := carewire(t, append(args, files...)...)
		assert.Equal(t, exitOK, r.status, r.err)
		assert.Equal(t, "COMMITTED "+files[0]+"\nCOMMITTED "+files[1]+"\n", r.out)
		reporting.Wait()
		server.Close()
		<-ended
	}
}

func TestCommitPrintsTheReport(t *testing.T) {
	_, files := aStudy(t, 3)
	server := &dicomtls.Server{Commit: dicomtls.CommitHandlerFunc(func(_ context.Context, r *dicomtls.CommitRequest) dicomtls.Status {
		r.Report = &dicomtls.CommitReport{
			TransactionUID: r.TransactionUID, Committed: r.References[1:],
			Failed: []dicomtls.FailedReference{{Reference: r.References[0], Reason: dicomtls.StatusNoSuchObject}},
		}
		return dicomtls.StatusSuccess
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, ln) }()
	t.Cleanup(func() { cancel(); <-ended })
	r := carewire(t, append([]string{"dicom", "commit", "--addr", ln.Addr().String()}, files...)...)
	assert.Equal(t, exitNo, r.status, r.err)
	assert.Contains(t, r.out, "NOT COMMITTED "+files[0]+"\t0112")
	assert.Contains(t, r.out, "COMMITTED "+files[1]+"\n")
	assert.Contains(t, r.err, "does not vouch for 1 object")
}
