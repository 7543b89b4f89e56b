package engine_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
)

const (
	ctImage          = "1.2.840.10008.5.1.4.1.1.2"
	secondaryCapture = "1.2.840.10008.5.1.4.1.1.7"
)

// uids makes n SOP Instance UIDs.
func uids(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("1.2.826.0.1.3680043.10.9999.5.%d", i+1)
	}
	return list
}

// dataSet is one of an image in Explicit VR Little Endian.
func dataSet(class, instance string, pixels []byte) []byte {
	var b bytes.Buffer
	element := func(group, element uint16, vr string, value []byte) {
		if len(value)%2 != 0 {
			value = append(value, map[bool]byte{true: 0, false: ' '}[vr == "UI"])
		}
		_ = binary.Write(&b, binary.LittleEndian, []uint16{group, element})
		b.WriteString(vr)
		if vr == "OW" {
			_ = binary.Write(&b, binary.LittleEndian, uint16(0))
			_ = binary.Write(&b, binary.LittleEndian, uint32(len(value)))
		} else {
			_ = binary.Write(&b, binary.LittleEndian, uint16(len(value)))
		}
		b.Write(value)
	}
	element(0x0008, 0x0016, "UI", []byte(class))
	element(0x0008, 0x0018, "UI", []byte(instance))
	element(0x0008, 0x0060, "CS", []byte("OT"))
	element(0x0010, 0x0010, "PN", []byte(planted))
	element(0x7FE0, 0x0010, "OW", pixels)
	return b.Bytes()
}

// image is an object of which the data set is its own.
func image(class, instance string) dicomtls.Object {
	return dicomtls.BytesObject(class, instance, dicomtls.ExplicitVRLittleEndian, dataSet(class, instance, []byte("pixels of "+instance)))
}

func images(list []string) []dicomtls.Object {
	var objects []dicomtls.Object
	for _, instance := range list {
		objects = append(objects, image(ctImage, instance))
	}
	return objects
}

// modality makes a channel with a source of type dicom on a free port.
func modality(t testing.TB, id string, destinations ...config.Destination) config.Channel {
	return config.Channel{
		ID: id, Name: id, Destinations: destinations,
		Source: config.Source{Type: "dicom", DICOM: &config.DICOMSource{Host: "127.0.0.1", Dest: filepath.Join(t.TempDir(), "objects")}},
	}
}

func toDICOM(name, addr string) config.Destination {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	return config.Destination{Name: name, Type: "dicom", Queue: quick, DICOM: &config.DICOMDestination{
		Host: host, Port: n, ApplicationEntity: "ARCHIVE", LocalApplicationEntity: "ENGINE", Linger: patience,
	}}
}

// storeTo sends objects to an engine over one association and returns the results.
func storeTo(t testing.TB, addr string, objects ...dicomtls.Object) []dicomtls.Result {
	t.Helper()
	return (&dicomtls.Dialer{AETitle: "CT1", CalledAE: "ENGINE"}).StoreAll(t.Context(), "tcp", addr, objects, nil)
}

// stores sends objects that must be stored.
func stores(t testing.TB, addr string, objects ...dicomtls.Object) {
	t.Helper()
	for _, r := range storeTo(t, addr, objects...) {
		require.NoError(t, r.Err)
	}
}

// archive is a system that objects are delivered to.
type archive struct {
	t      testing.TB
	addr   string
	server func() *dicomtls.Server // what it is, besides

	mu           sync.Mutex
	instances    []string // in the order of arrival; guarded by mu
	contents     []string // their data sets; guarded by mu
	associations int      // guarded by mu
	answer       func(r *dicomtls.StoreRequest) dicomtls.Status
	running      *dicomtls.Server
	done         chan struct{}
}

func newArchive(t testing.TB, server func() *dicomtls.Server) *archive {
	a := &archive{t: t, addr: "127.0.0.1:0", server: server}
	a.up()
	t.Cleanup(a.down)
	return a
}

// up opens the archive's port, always the same.
func (a *archive) up() {
	a.t.Helper()
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", a.addr)
	require.NoError(a.t, err)
	server := new(dicomtls.Server)
	if a.server != nil {
		server = a.server()
	}
	server.Store = a
	server.Observe = func(e dicomtls.Event) {
		if e.Kind == dicomtls.EventOpened {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.associations++
		}
	}
	done := make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addr, a.running, a.done = ln.Addr().String(), server, done
	go func() {
		defer close(done)
		server.Serve(context.Background(), ln)
	}()
}

// down closes the port and all connections.
func (a *archive) down() {
	a.mu.Lock()
	server, done := a.running, a.done
	a.running = nil
	a.mu.Unlock()
	if server != nil {
		server.Close()
		<-done
	}
}

func (a *archive) ServeStore(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return dicomtls.StatusProcessingFailure
	}
	a.mu.Lock()
	answer := a.answer
	a.mu.Unlock()
	if answer != nil {
		if status := answer(r); !status.Stored() {
			if r.Comment == "" {
				r.Comment = planted
			}
			return status
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.instances, a.contents = append(a.instances, r.SOPInstanceUID), append(a.contents, string(data))
	return dicomtls.StatusSuccess
}

func (a *archive) answers(f func(r *dicomtls.StoreRequest) dicomtls.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

func (a *archive) received() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.instances)
}

func (a *archive) opened() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.associations
}

// has asserts that the archive has the objects, to the byte.
func (a *archive) has(objects ...dicomtls.Object) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range objects {
		r, err := o.Open()
		require.NoError(a.t, err)
		want, err := io.ReadAll(r)
		require.NoError(a.t, err)
		i := slices.Index(a.instances, o.SOPInstanceUID)
		require.GreaterOrEqual(a.t, i, 0)
		assert.Equal(a.t, string(want), a.contents[i])
	}
}

// dicomFile reads a DICOM file.
func dicomFile(t testing.TB, path string) (dicomtls.FileMeta, []byte) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	r := bufio.NewReader(f)
	meta, _, err := dicomtls.ReadFileMeta(r)
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return meta, data
}

// dicomFiles are the names of the objects in a directory.
func dicomFiles(t testing.TB, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*.dcm"))
	require.NoError(t, err)
	return found
}
