package dicomtls_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/interop"
)

// dcmtk runs a program of DCMTK to its end and returns what it wrote.
func dcmtk(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, interop.Need(t, name), args...)
	cmd.Env = append(os.Environ(), "DCMDICTPATH=/usr/share/libdcmtk17/dicom.dic")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// scp starts an SCP of DCMTK that listens on a free port, and returns its address.
func scp(t testing.TB, name string, args ...string) string {
	t.Helper()
	path := interop.Need(t, name)
	// DCMTK cannot be given a listener, so the port may be taken in between: then
	// the program ends at once, and is tried again with another one.
	for range 5 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := ln.Addr().String()
		ln.Close()
		_, port, _ := net.SplitHostPort(addr)
		cmd := exec.Command(path, append(args, port)...)
		ended := make(chan struct{})
		require.NoError(t, cmd.Start())
		go func() {
			cmd.Wait()
			close(ended)
		}()
		stop := func() {
			cmd.Process.Signal(syscall.SIGKILL)
			<-ended
		}
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
				t.Cleanup(stop)
				return addr
			}
			select {
			case <-ended:
				deadline = time.Time{}
			case <-time.After(10 * time.Millisecond):
			}
		}
		stop()
	}
	t.Fatalf("%s does not listen", name)
	return ""
}

// writeFiles writes n small DICOM files with pixel data in Explicit VR Little
// Endian, and returns them as objects, and their data sets by instance.
func writeFiles(t testing.TB, dir string, n, pixels int) ([]dicomtls.Object, map[string]string) {
	t.Helper()
	var objects []dicomtls.Object
	data := make(map[string]string)
	for i := range n {
		instance := fmt.Sprintf("1.2.826.0.1.3680043.10.9999.1.%d", i+1)
		body := imageData(instance, pixels)
		meta := dicomtls.FileMeta{SOPClassUID: secondaryCapture, SOPInstanceUID: instance, TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian}
		file, err := meta.AppendTo(nil)
		require.NoError(t, err)
		path := filepath.Join(dir, fmt.Sprintf("%04d.dcm", i))
		require.NoError(t, os.WriteFile(path, append(file, body...), 0o600))
		o, err := dicomtls.FileObject(path)
		require.NoError(t, err)
		objects = append(objects, o)
		data[instance] = string(body)
	}
	return objects, data
}

// imageData is a data set of a secondary capture image with random pixels.
func imageData(instance string, pixels int) []byte {
	var b []byte
	element := func(group, element uint16, vr, value string) {
		if len(value)%2 != 0 {
			value += map[bool]string{true: "\x00", false: " "}[vr == "UI"]
		}
		b = append(b, byte(group), byte(group>>8), byte(element), byte(element>>8))
		b = append(b, vr...)
		if vr == "OW" {
			b = append(b, 0, 0, byte(len(value)), byte(len(value)>>8), byte(len(value)>>16), byte(len(value)>>24))
		} else {
			b = append(b, byte(len(value)), byte(len(value)>>8))
		}
		b = append(b, value...)
	}
	us := func(v int) string { return string([]byte{byte(v), byte(v >> 8)}) }
	noise := make([]byte, 2*pixels)
	rand.Read(noise)
	element(0x0008, 0x0016, "UI", secondaryCapture)
	element(0x0008, 0x0018, "UI", instance)
	element(0x0008, 0x0060, "CS", "OT")
	element(0x0010, 0x0010, "PN", "Test^Image")
	element(0x0010, 0x0020, "LO", "1")
	element(0x0020, 0x000D, "UI", "1.2.826.0.1.3680043.10.9999.2")
	element(0x0020, 0x000E, "UI", "1.2.826.0.1.3680043.10.9999.3")
	element(0x0028, 0x0002, "US", us(1))
	element(0x0028, 0x0004, "CS", "MONOCHROME2")
	element(0x0028, 0x0010, "US", us(1))
	element(0x0028, 0x0011, "US", us(pixels))
	element(0x0028, 0x0100, "US", us(16))
	element(0x0028, 0x0101, "US", us(16))
	element(0x0028, 0x0102, "US", us(15))
	element(0x0028, 0x0103, "US", us(0))
	element(0x7FE0, 0x0010, "OW", string(noise))
	return b
}

func TestDCMTKEchoes(t *testing.T) {
	s := listen(t, &dicomtls.Server{AETitles: []string{"CAREWIRE"}})
	host, port, _ := net.SplitHostPort(s.addr)
	out, err := dcmtk(t, "echoscu", "-v", "-aet", "TESTER", "-aec", "CAREWIRE", "--repeat", "20", host, port)
	require.NoError(t, err, out)
	out, err = dcmtk(t, "echoscu", "-aec", "OTHER", host, port)
	assert.Error(t, err)
	assert.Contains(t, out, "Called AE Title Not Recognized")
	s.waitFor("closed released", 1)
	s.waitFor("rejected called_ae", 1)
	assert.Equal(t, 20, s.count("operation C-ECHO 0000"))
	assert.Equal(t, 1, s.count("rejected called_ae"))
}

func TestWeEchoDCMTK(t *testing.T) {
	addr := scp(t, "storescp", "--ignore", "-aet", "STORE")
	a, err := (&dicomtls.Dialer{CalledAE: "STORE"}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	for range 5 {
		require.NoError(t, a.Echo(t.Context()))
	}
	require.NoError(t, a.Release(t.Context()))
	assert.Contains(t, a.Info().ImplementationVersionName, "OFFIS")
}

func TestDCMTKStoresWithUs(t *testing.T) {
	for _, program := range []string{"storescu", "dcmsend"} {
		t.Run(program, func(t *testing.T) {
			dir := t.TempDir()
			_, data := writeFiles(t, dir, 10, 30_000)
			k := newKeeper()
			s := listen(t, &dicomtls.Server{Store: k})
			host, port, _ := net.SplitHostPort(s.addr)
			out, err := dcmtk(t, program, host, port, "+sd", dir)
			require.NoError(t, err, out)
			assert.Equal(t, data, k.kept())
			s.waitFor("closed released", 1)
			assert.Empty(t, s.strange())
		})
	}
}

func TestWeStoreWithDCMTK(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
	}{
		{name: "storescp", args: []string{"storescp", "+B"}},
		{name: "storescp with the smallest PDUs", args: []string{"storescp", "+B", "-pdu", "4096"}},
		{name: "storescp with the largest PDUs", args: []string{"storescp", "+B", "-pdu", "131072"}},
		{name: "dcmrecv", args: []string{"dcmrecv", "-xf", "/etc/dcmtk/storescp.cfg", "Default", "+B"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, out := t.TempDir(), t.TempDir()
			objects, data := writeFiles(t, dir, 10, 30_000)
			objects[3].Size = 0 // the length need not be known
			addr := scp(t, c.args[0], append(c.args[1:], "-od", out)...)
			for i, r := range (&dicomtls.Dialer{}).StoreAll(t.Context(), "tcp", addr, objects, nil) {
				require.NoError(t, r.Err, "object %d", i)
				assert.Equal(t, dicomtls.Stored, r.Outcome)
			}
			assert.Equal(t, data, dataSets(t, out))
		})
	}
}

// dataSets reads the DICOM files of a directory.
func dataSets(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		f, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		meta, n, err := dicomtls.ReadFileMeta(bufio.NewReader(strings.NewReader(string(f))))
		require.NoError(t, err)
		found[meta.SOPInstanceUID] = string(f[n:])
	}
	return found
}

func TestDCMTKAbortsAndWeKnowWhy(t *testing.T) {
	objects, _ := writeFiles(t, t.TempDir(), 3, 10_000_000)
	for _, c := range []struct {
		name, option string
		outcome      dicomtls.Outcome
	}{
		{"during the object", "--abort-during", dicomtls.NotSent},
		{"after the object", "--abort-after", dicomtls.Unknown},
		{"refusing the association", "--refuse", dicomtls.NotSent},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := scp(t, "storescp", "--ignore", c.option)
			results := (&dicomtls.Dialer{}).StoreAll(t.Context(), "tcp", addr, objects, nil)
			var failed *dicomtls.SendError
			require.ErrorAs(t, results[0].Err, &failed)
			t.Log(results[0].Err, failed.Code(), failed.Retryable())
			assert.Equal(t, c.outcome, results[0].Outcome)
			assert.Equal(t, dicomtls.NotSent, results[2].Outcome)
			assert.NotEmpty(t, failed.Code())
		})
	}
}
