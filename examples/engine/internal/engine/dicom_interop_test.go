package engine_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/internal/interop"
	"github.com/carewire/carewire/internal/testpki"
)

// freePort returns a port of loopback that nobody listens on: DCMTK cannot be given
// a listener.
func freePort(t testing.TB) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	return port
}

// storescp runs DCMTK's receiver on a port until stop, which returns the instances
// in the order in which it got them.
func storescp(t testing.TB, dir, port string, args ...string) (stop func() []string) {
	t.Helper()
	var said log
	args = append(args, "-d", "+B", "-od", dir, port)
	path := interop.Need(t, "storescp")
	var cmd *exec.Cmd
	var ended chan struct{}
	run := func() {
		cmd, ended = exec.Command(path, args...), make(chan struct{})
		cmd.Stdout, cmd.Stderr = &said, &said
		require.NoError(t, cmd.Start())
		go func(cmd *exec.Cmd, ended chan struct{}) { defer close(ended); _ = cmd.Wait() }(cmd, ended)
	}
	run()
	stop = func() []string {
		_ = cmd.Process.Kill()
		<-ended
		var list []string
		for _, m := range regexp.MustCompile(`Affected SOP Instance UID +: ([0-9.]+)`).FindAllStringSubmatch(said.String(), -1) {
			if len(list) == 0 || list[len(list)-1] != m[1] { // it is in the request and in the response
				list = append(list, m[1])
			}
		}
		return list
	}
	t.Cleanup(func() { stop() })
	eventually(t, "storescp listens", func() bool {
		select {
		case <-ended: // a connection of another test may have had the port for a moment
			run()
		default:
		}
		nc, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	return stop
}

// storescu sends files with DCMTK's sender, in their order.
func storescu(t testing.TB, addr string, files []string, options ...string) (string, error) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := append([]string{"-aet", "CT1", "-aec", "ENGINE", "-R"}, options...)
	cmd := exec.CommandContext(ctx, interop.Need(t, "storescu"), append(append(args, "127.0.0.1", port), files...)...)
	cmd.Env = append(os.Environ(), "DCMDICTPATH=/usr/share/libdcmtk17/dicom.dic")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// From DCMTK to DCMTK through the engine, in the clear and in every mode that it
// has. The receiver is down at first, and is killed later, wherever it is.
func TestObjectsGoFromDCMTKToDCMTK(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := testpki.NewCA(t, "Test CA")
	ca.Write(dir, "ca.crt")
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, name := range []string{"engine", "dcmtk"} { // RSA, which the suite of aes needs
		ca.Issue(testpki.Options{CommonName: name, Hosts: []string{"localhost", "127.0.0.1"}, EKU: both, Key: testpki.RSAKey(t, 2048)}).Write(dir, name)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	secure := []string{"+tls", path("dcmtk.key"), path("dcmtk.crt"), "+cf", path("ca.crt")}
	want := uids(8)
	var study []string
	for i, instance := range want {
		meta := dicomtls.FileMeta{SOPClassUID: ctImage, SOPInstanceUID: instance, TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian}
		file, err := meta.AppendTo(nil)
		require.NoError(t, err)
		file = append(file, dataSet(ctImage, instance, bytes.Repeat([]byte{byte(i)}, 40_000))...)
		study = append(study, path(strconv.Itoa(i)+".dcm"))
		require.NoError(t, os.WriteFile(study[i], file, 0o600))
	}
	for name, tt := range map[string]struct {
		mode    dicomtls.DicomTlsMode
		profile []string
	}{
		"in the clear":              {dicomtls.ModeNoTLS, nil},
		"BCP 195":                   {dicomtls.ModeBCP195, append(secure, "+py")},
		"aes, as PS3.15 B.3 had it": {dicomtls.ModeAES, append(secure, "+pa")},
		"aes, as it is negotiated":  {dicomtls.ModeAES, append(secure, "+px")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			props := dicomtls.Properties{TLS: tt.mode}
			if tt.mode.Enabled() {
				props.KeyStore, props.CertStore, props.TrustStore = path("engine.key"), path("engine.crt"), path("ca.crt")
			}
			port := freePort(t)
			dest := toDICOM("pacs", "127.0.0.1:"+port)
			dest.DICOM.TLS = props
			ch := modality(t, "ct", dest)
			ch.Source.DICOM.TLS = props
			e := start(t, openStore(t, t.TempDir()), ch)

			said, err := storescu(t, e.addr("ct"), study, tt.profile...)
			require.NoError(t, err, said)
			assert.EqualValues(t, len(want), e.stats("ct").Received)
			if tt.mode.Enabled() {
				said, err = storescu(t, e.addr("ct"), study)
				assert.Error(t, err, "in the clear: %s", said)
				said, err = storescu(t, e.addr("ct"), study, "+tla", "+cf", path("ca.crt"))
				assert.Error(t, err, "without a certificate: %s", said)
				assert.EqualValues(t, len(want), e.stats("ct").Received)
			}
			sent := e.stats("ct").Received
			out := t.TempDir()
			order := storescp(t, out, port, tt.profile...)
			eventually(t, "the first objects arrive", func() bool { return e.stats("ct").Sent > 0 })
			first := order() // which kills it, wherever it is
			said, err = storescu(t, e.addr("ct"), study, tt.profile...)
			require.NoError(t, err, said)
			order = storescp(t, out, port, tt.profile...)
			eventually(t, "all are delivered", func() bool { return e.stats("ct").Sent == 2*sent })

			got, all := append(first, order()...), slices.Concat(want, want)
			i := 0
			for _, instance := range got { // one that was in hand at the kill is there twice
				if i < len(all) && instance == all[i] {
					i++
				}
			}
			assert.Equal(t, len(all), i, "in order: %v", got)
			for i, instance := range want {
				_, data := dicomFile(t, filepath.Join(out, "CT."+instance))
				assert.Equal(t, dataSet(ctImage, instance, bytes.Repeat([]byte{byte(i)}, 40_000)), data)
			}
		})
	}
}
