package dicomtls_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// receiver runs a Server with a FileStore until the test ends, and returns its
// port and the directory.
func receiver(t testing.TB, srv *dicomtls.Server) (port, dir string) {
	t.Helper()
	store, ok := srv.Store.(*dicomtls.FileStore)
	if !ok {
		store = new(dicomtls.FileStore)
		srv.Store = store
	}
	dir = t.TempDir()
	store.Dir, store.MinFreeBytes = dir, -1
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		assert.ErrorIs(t, <-ended, dicomtls.ErrServerClosed)
	})
	_, port, err = net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	return port, dir
}

// dcmtkProfiles are DCMTK's TLS profiles and the modes that share a suite with
// them: PS3.15 B.9 to B.11 and B.3.
var dcmtkProfiles = map[string][]dicomtls.DicomTlsMode{
	"+py": {dicomtls.ModeAES, dicomtls.ModeBCP195}, // non-downgrading BCP 195, the default
	"+px": {dicomtls.ModeAES, dicomtls.ModeBCP195}, // BCP 195
	"+pz": {dicomtls.ModeAES, dicomtls.ModeBCP195}, // extended BCP 195
	"+pa": {dicomtls.ModeAES},                      // AES
	"+pn": {},                                      // no encryption
}

// aFile writes a DICOM file and returns its path.
func aFile(t testing.TB) string {
	t.Helper()
	data := explicit().element(0x00100010, "PN", "Doe^Jane").element(0x00100020, "LO", "4711").Bytes()
	path := filepath.Join(t.TempDir(), "object.dcm")
	require.NoError(t, os.WriteFile(path, fileOf(t, data, dicomtls.ExplicitVRLittleEndian), 0o600))
	return path
}

func TestEveryModeWithEveryTLSProfileOfDCMTKToIt(t *testing.T) {
	p := newPKI(t)
	object, err := dicomtls.FileObject(aFile(t))
	require.NoError(t, err)
	for profile, modes := range dcmtkProfiles {
		for scp, more := range map[string][]string{"storescp": nil, "dcmrecv": {"-xf", dcmrecvConfig(t), "Default"}} {
			dir := t.TempDir()
			addr := background(t, scp, append(more, "+tls", p.rsa, p.rsa, "+cf", p.ca, profile, "+B", "-od", dir, "{port}")...)
			for _, mode := range tlsModes {
				sendsTo(t, p.sender(mode), addr, dir, object, slices.Contains(modes, mode), scp+" "+profile+" with mode "+mode.String())
			}
		}
	}
}

// dcmrecvConfig makes dcmrecv, which takes nothing but C-ECHO by itself, take the
// images of the real files and CT.
func dcmrecvConfig(t testing.TB) string {
	t.Helper()
	const config = `[[TransferSyntaxes]]
[Native]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Storage]
PresentationContext1 = VerificationSOPClass\Native
PresentationContext2 = CTImageStorage\Native
PresentationContext3 = MRImageStorage\Native
PresentationContext4 = SecondaryCaptureImageStorage\Native
[[Profiles]]
[Default]
PresentationContexts = Storage
`
	path := filepath.Join(t.TempDir(), "dcmrecv.cfg")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	return path
}

// sendsTo echoes to an SCP, and stores an object in its directory, or meets with
// no association if works is false.
func sendsTo(t *testing.T, props dicomtls.Properties, addr, dir string, object dicomtls.Object, works bool, what string) {
	t.Helper()
	d := &dicomtls.Dialer{TLS: &props}
	a, err := d.DialContext(t.Context(), "tcp", addr, append(dicomtls.Propose([]dicomtls.Object{object}),
		dicomtls.Proposal{AbstractSyntax: dicomtls.VerificationSOPClass})...)
	if !works {
		assert.Error(t, err, what)
		return
	}
	require.NoError(t, err, what)
	assert.NoError(t, a.Echo(t.Context()), what)
	status, err := a.Store(t.Context(), object)
	assert.NoError(t, err, what)
	assert.Equal(t, dicomtls.StatusSuccess, status, what)
	assert.NoError(t, a.Release(t.Context()), what)
	files := names(t, dir)
	require.Len(t, files, 1, what)
	_, got := stored(t, filepath.Join(dir, files[0]))
	_, want := stored(t, object.Name)
	assert.Equal(t, want, got, what)
	require.NoError(t, os.Remove(filepath.Join(dir, files[0])))
}

func TestEveryModeWithEveryTLSProfileOfDCMTKFromIt(t *testing.T) {
	p := newPKI(t)
	file := aFile(t)
	for _, mode := range tlsModes {
		props := p.listener(mode)
		port, dir := receiver(t, &dicomtls.Server{TLS: &props})
		for profile, modes := range dcmtkProfiles {
			secure := []string{"+tls", p.client, p.client, "+cf", p.ca, profile}
			out, err := program(t, "echoscu", append(secure, "127.0.0.1", port)...)
			assert.Equal(t, slices.Contains(modes, mode), err == nil, "echoscu %s with mode %s: %s", profile, mode, out)
			if !slices.Contains(modes, mode) {
				continue
			}
			out, err = program(t, "storescu", append(secure, "127.0.0.1", port, file)...)
			assert.NoError(t, err, "storescu %s with mode %s: %s", profile, mode, out)
			path := filepath.Join(dir, anInstance+".dcm")
			_, got := stored(t, path)
			_, want := stored(t, file)
			assert.Equal(t, want, got)
			require.NoError(t, os.Remove(path))
		}
		if mode == dicomtls.Mode3DES {
			continue // which DCMTK has not
		}
		out, err := program(t, "echoscu", "+tla", "+cf", p.ca, "127.0.0.1", port)
		assert.Error(t, err, "without a certificate: %s", out)
		open := p.listener(mode)
		open.NoClientAuth = true
		port, _ = receiver(t, &dicomtls.Server{TLS: &open})
		out, err = program(t, "echoscu", "+tla", "+cf", p.ca, "127.0.0.1", port)
		assert.NoError(t, err, "without a certificate, where none is asked for: %s", out)
	}
}

// dataSetsIn returns the data sets of the files of dir.
func dataSetsIn(t testing.TB, dir string) map[string]bool {
	t.Helper()
	out := make(map[string]bool)
	for _, name := range names(t, dir) {
		_, data := stored(t, filepath.Join(dir, name))
		out[string(data)] = true
	}
	return out
}

// sendable are the real files whose data sets hold together and say what they
// are, as objects, and their data sets.
func sendable(t testing.TB) (objects []dicomtls.Object, sets []string) {
	t.Helper()
	for _, file := range pydicomFiles(t) {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		meta, size, err := dicomtls.ReadFileMeta(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			continue
		}
		class, instance, err := scan(raw[size:], meta.TransferSyntaxUID)
		if err != nil || class == "" || instance == "" {
			continue // broken on purpose
		}
		o, err := dicomtls.FileObject(file)
		require.NoError(t, err)
		// Some say another thing in their header, or have none.
		o.SOPClassUID, o.SOPInstanceUID = class, instance
		objects, sets = append(objects, o), append(sets, string(raw[size:]))
	}
	require.Greater(t, len(objects), 70)
	return objects, sets
}

func TestRealObjectsArriveAsTheyAreFromUsToUsAndToDCMTK(t *testing.T) {
	objects, sets := sendable(t)
	send := func(d *dicomtls.Dialer, addr, dir string) {
		t.Helper()
		results := d.StoreAll(t.Context(), "tcp", addr, objects, nil)
		got, arrived := dataSetsIn(t, dir), 0
		for i, r := range results {
			if errors.Is(r.Err, dicomtls.ErrBadObject) {
				t.Logf("%v", r.Err) // of odd length, which no data set has
				continue
			}
			assert.NoError(t, r.Err, filepath.Base(objects[i].Name))
			want := sets[i]
			if len(want)%2 == 1 {
				want += "\x00" // a deflated one, which is padded (PS3.5 A.5)
			}
			assert.True(t, got[want], "%s is as it was", objects[i].Name)
			arrived++
		}
		assert.Greater(t, arrived, 65)
	}
	p := newPKI(t)
	for _, mode := range tlsModes {
		listener, sender := p.listener(mode), p.sender(mode)
		port, dir := receiver(t, &dicomtls.Server{TLS: &listener})
		send(&dicomtls.Dialer{TLS: &sender}, net.JoinHostPort("localhost", port), dir)
	}
	dir := t.TempDir()
	addr := background(t, "storescp", "+B", "+uf", "-pm", "+xa", "-od", dir, "{port}")
	send(new(dicomtls.Dialer), addr, dir)
}

// What DCMTK's senders put on the wire is not always what was in the file; so
// their own receiver, keeping every bit, says what is right.
func TestRealObjectsArriveAsDCMTKSendsThem(t *testing.T) {
	objects, _ := sendable(t)
	files := t.TempDir()
	for _, o := range objects {
		if strings.HasPrefix(filepath.Base(o.Name), "rtdose_rle") {
			continue // has its UIDs as OB, and dcmsend says "31" for them
		}
		raw, err := os.ReadFile(o.Name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(files, filepath.Base(o.Name)), raw, 0o600))
	}
	for name, args := range map[string][]string{
		"dcmsend":  {"-nh", "-dn", "+sd"},
		"storescu": {"-nh", "+sd"}, // what is native, in the syntaxes that it proposes by itself
	} {
		theirs := t.TempDir()
		addr := background(t, "storescp", "+B", "+uf", "+xa", "-od", theirs, "{port}")
		_, theirPort, _ := net.SplitHostPort(addr)
		// Some have other UIDs in their headers, which is what these programs say.
		port, ours := receiver(t, &dicomtls.Server{
			Store:      &dicomtls.FileStore{Unchecked: true},
			SOPClasses: map[string][]string{"*": {dicomtls.ExplicitVRLittleEndian, "*"}}, // what storescp prefers
		})
		for _, to := range []string{theirPort, port} {
			out, err := program(t, name, append(args, "127.0.0.1", to, files)...)
			require.NoError(t, err, "%s: %s", name, out)
		}
		want, got := dataSetsIn(t, theirs), dataSetsIn(t, ours)
		require.Greater(t, len(want), 30, name)
		for data := range want {
			assert.True(t, got[data], "of %s, an object of %d bytes is as it was sent", name, len(data))
		}
		assert.Len(t, got, len(want), name)
	}
}

func TestAPeerThatTakesNothingButTheDefaultSyntaxGetsEverythingThatConverts(t *testing.T) {
	objects, sets := sendable(t)
	dir := t.TempDir()
	addr := background(t, "storescp", "+B", "+uf", "-pm", "+xi", "-od", dir, "{port}")
	results := new(dicomtls.Dialer).StoreAll(t.Context(), "tcp", addr, objects, nil)
	got := dataSetsIn(t, dir)
	arrived, refused := 0, 0
	for i, r := range results {
		o := &objects[i]
		name := filepath.Base(o.Name)
		switch {
		case !dicomtls.CanConvert(o.TransferSyntaxUID, dicomtls.ImplicitVRLittleEndian):
			assert.ErrorIs(t, r.Err, dicomtls.ErrNoContext, name)
			refused++
		case errors.Is(r.Err, dicomtls.ErrBadObject): // of odd length
		default:
			want := converted(t, []byte(sets[i]), o.TransferSyntaxUID, dicomtls.ImplicitVRLittleEndian)
			assert.NoError(t, r.Err, name)
			assert.True(t, got[string(want)], "%s is what it was, without VRs", name)
			arrived++
		}
	}
	assert.Greater(t, arrived, 40)
	assert.Greater(t, refused, 20)
}

func TestRealObjectsOfNativeSyntaxesArriveAtDcmrecv(t *testing.T) {
	objects, sets := sendable(t)
	dir := t.TempDir()
	addr := background(t, "dcmrecv", "-xf", dcmrecvConfig(t), "Default", "+B", "-od", dir, "+fu", "{port}")
	arrived := 0
	results := new(dicomtls.Dialer).StoreAll(t.Context(), "tcp", addr, objects, nil)
	got := dataSetsIn(t, dir)
	for i, r := range results {
		if r.Err == nil && objects[i].TransferSyntaxUID == dicomtls.ExplicitVRLittleEndian {
			assert.True(t, got[sets[i]], objects[i].Name)
			arrived++
		}
	}
	assert.Greater(t, arrived, 10)
}
