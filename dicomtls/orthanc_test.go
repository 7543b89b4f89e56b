package dicomtls_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
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

// orthanc starts an Orthanc that knows us as CAREWIRE at addr, and returns the
// addresses of its DICOM and of its HTTP port. secure are settings of TLS, as in its
// configuration; none: it has none.
func orthanc(t *testing.T, addr string, secure ...string) (dicom, web string) {
	t.Helper()
	path := interop.Need(t, "Orthanc")
	_, port, _ := net.SplitHostPort(addr)
	// It cannot be given a listener: with a port that was taken in between it ends
	// at once, and is tried again.
	for range 5 {
		dicomPort, webPort, dir := freePort(t), freePort(t), t.TempDir()
		config := fmt.Sprintf(`{"Name": "test", "StorageDirectory": %q, "IndexDirectory": %q, "DicomAet": "ORTHANC", "DicomPort": %s,
			"HttpPort": %s, "RemoteAccessAllowed": false, %s
			"DicomModalities": {"us": {"AET": "CAREWIRE", "Host": "127.0.0.1", "Port": %s, "UseDicomTls": %t}}}`,
			dir, dir, dicomPort, webPort, strings.Join(secure, " "), port, len(secure) > 0)
		file := filepath.Join(dir, "orthanc.json")
		require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
		cmd := exec.Command(path, file)
		require.NoError(t, cmd.Start())
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		stop := func() {
			cmd.Process.Signal(syscall.SIGKILL)
			<-ended
		}
		dicom, web = "127.0.0.1:"+dicomPort, "http://127.0.0.1:"+webPort
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
			if r, err := http.Get(web + "/system"); err == nil {
				r.Body.Close()
				if c, err := net.Dial("tcp", dicom); err == nil {
					c.Close()
					t.Cleanup(http.DefaultClient.CloseIdleConnections)
					t.Cleanup(stop)
					return dicom, web
				}
			}
			select {
			case <-ended:
				deadline = time.Time{}
			case <-time.After(20 * time.Millisecond):
			}
		}
		stop()
	}
	t.Fatal("Orthanc does not listen")
	return "", ""
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func TestOrthancVouchesForWhatItHasOnAnAssociationOfItsOwn(t *testing.T) {
	shared := new(dicomtls.Commitments)
	back := listen(t, &dicomtls.Server{AETitles: []string{"CAREWIRE"}, Commitments: shared})
	addr, _ := orthanc(t, back.addr)
	objects, _ := writeFiles(t, t.TempDir(), 3, 1000)
	d := &dicomtls.Dialer{CalledAE: "ORTHANC", Commitments: shared, CommitTimeout: 30 * time.Second}
	a, err := d.DialContext(t.Context(), "tcp", addr, append(dicomtls.Propose(objects), dicomtls.CommitProposal())...)
	require.NoError(t, err)
	defer a.Close()
	var refs []dicomtls.Reference
	for _, o := range objects {
		refs = append(refs, dicomtls.Reference{SOPClassUID: o.SOPClassUID, SOPInstanceUID: o.SOPInstanceUID})
	}
	for _, o := range objects[:2] {
		_, err := a.Store(t.Context(), o)
		require.NoError(t, err)
	}
	transaction, err := a.RequestCommit(t.Context(), refs)
	require.NoError(t, err)
	require.NoError(t, a.Release(t.Context()))
	result, err := transaction.Wait(t.Context())
	require.NoError(t, err)
	assert.Equal(t, refs[:2], result.Committed)
	require.Len(t, result.Failed, 1)
	assert.Equal(t, dicomtls.FailedReference{Reference: refs[2], Reason: dicomtls.StatusNoSuchObject}, result.Failed[0])
	back.waitFor("operation N-EVENT-REPORT 0000", 1)
}

func TestWeVouchToOrthanc(t *testing.T) {
	v := &vouching{requests: make(chan *dicomtls.CommitRequest, 1)}
	archive := listen(t, &dicomtls.Server{Commit: v})
	addr, web := orthanc(t, archive.addr)
	body := fmt.Sprintf(`{"DicomInstances": [["%s", "1.2.1"], ["%s", "1.2.2"]], "Timeout": 10}`, ctImage, ctImage)
	answer := call(t, "POST", web+"/modalities/us/storage-commitment", body)
	id, _ := answer["ID"].(string)
	require.NotEmpty(t, id, "%v", answer)
	r := <-v.requests
	require.Len(t, r.References, 2)
	report := &dicomtls.CommitReport{
		TransactionUID: r.TransactionUID, Committed: r.References[:1],
		Failed: []dicomtls.FailedReference{{Reference: r.References[1], Reason: dicomtls.StatusNoSuchObject}},
	}
	require.NoError(t, (&dicomtls.Dialer{AETitle: "CAREWIRE", CalledAE: "ORTHANC"}).Report(t.Context(), "tcp", addr, report))
	answer = call(t, "GET", web+"/storage-commitment/"+id, "")
	assert.Equal(t, "Failure", answer["Status"], "%v", answer)
	success, _ := answer["Success"].([]any)
	assert.Len(t, success, 1)
}

// Objects go to Orthanc over TLS, and come back to us as they were.
func TestOrthancStoresWithUsWhatWeStoredWithItOverTLS(t *testing.T) {
	p := newPKI(t)
	for _, mode := range []dicomtls.DicomTlsMode{dicomtls.ModeAES, dicomtls.ModeBCP195} {
		props, k := p.listener(mode), newKeeper()
		us := listen(t, &dicomtls.Server{AETitles: []string{"CAREWIRE"}, Store: k, TLS: &props})
		addr, web := orthanc(t, us.addr, fmt.Sprintf(`"DicomTlsEnabled": true, "DicomTlsCertificate": %q, "DicomTlsPrivateKey": %q, "DicomTlsTrustedCertificates": %q,`, p.rsa, p.rsa, p.ca))
		objects, data := writeFiles(t, t.TempDir(), 3, 1000)
		sender := p.sender(mode)
		for i, r := range (&dicomtls.Dialer{CalledAE: "ORTHANC", TLS: &sender}).StoreAll(t.Context(), "tcp", addr, objects, nil) {
			require.NoError(t, r.Err, "%s %d", mode, i)
		}
		_, err := new(dicomtls.Dialer).DialContext(t.Context(), "tcp", addr)
		require.Error(t, err, "in the clear")
		var ids []string
		ask(t, "GET", web+"/instances", "", &ids)
		require.Len(t, ids, 3)
		body, err := json.Marshal(ids)
		require.NoError(t, err)
		call(t, "POST", web+"/modalities/us/echo", "{}")
		call(t, "POST", web+"/modalities/us/store", string(body))
		assert.Equal(t, data, k.kept(), mode)
		us.waitFor("operation C-STORE 0000", 3)
	}
}

// call is a request to Orthanc's REST API that is answered with an object.
func call(t *testing.T, method, url, body string) map[string]any {
	t.Helper()
	var v map[string]any
	ask(t, method, url, body, &v)
	return v
}

// ask is a request to Orthanc's REST API.
func ask(t *testing.T, method, url, body string, v any) {
	t.Helper()
	rq, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	r, err := http.DefaultClient.Do(rq)
	require.NoError(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.StatusCode, "%s", text)
	require.NoError(t, json.Unmarshal(text, v), "%s", text)
}

func TestOrthancIsToldWhatWeVouchFor(t *testing.T) {
	c := &dicomtls.Committer{Dir: t.TempDir(), RetryInterval: 50 * time.Millisecond}
	held := refs(2)
	c.Vouch = (&dicomtls.FileStore{Dir: t.TempDir()}).Vouch // which is empty
	archive := listen(t, &dicomtls.Server{Commit: c})
	addr, web := orthanc(t, archive.addr)
	c.Requestors = map[string]string{"ORTHANC": addr}
	running(t, c)
	body, err := json.Marshal(map[string]any{"DicomInstances": [][]string{
		{held[0].SOPClassUID, held[0].SOPInstanceUID}, {held[1].SOPClassUID, held[1].SOPInstanceUID},
	}})
	require.NoError(t, err)
	answer := call(t, "POST", web+"/modalities/us/storage-commitment", string(body))
	path, _ := answer["Path"].(string)
	archive.waitFor("operation N-ACTION 0000", 1)
	committed(t, c)
	report := call(t, "GET", web+path, "")
	assert.Equal(t, "Failure", report["Status"])
	assert.Len(t, report["Failures"], 2)
}
