package engine_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/examples/engine/internal/config"
	"github.com/carewire/carewire/mllp"
)

func TestObjectsWaitForAnArchiveThatIsDownAndKeepTheirOrder(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, nil)
	e := start(t, openStore(t, t.TempDir()), modality(t, "ct", toDICOM("pacs", pacs.addr)))
	objects := images(uids(12))
	stores(t, e.addr("ct"), objects[:4]...)
	eventually(t, "the first are delivered", func() bool { return e.stats("ct").Sent == 4 })
	pacs.down()
	stores(t, e.addr("ct"), objects[4:]...)
	eventually(t, "it is said that they queue", func() bool { return e.log.count("messages queue") > 0 })
	assert.EqualValues(t, 8, e.stats("ct").Queued)
	pacs.up()
	eventually(t, "all are delivered", func() bool { return e.stats("ct").Sent == 12 })
	assert.Equal(t, uids(12), pacs.received())
	pacs.has(objects...)
}

// What came in before a restart goes out after it, from the files.
func TestObjectsAreDeliveredAfterARestart(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, nil)
	pacs.down()
	ch := modality(t, "ct", toDICOM("pacs", pacs.addr))
	st := openStore(t, t.TempDir())
	e := start(t, st, ch)
	objects := images(uids(5))
	stores(t, e.addr("ct"), objects...)
	e.stop()
	pacs.up()
	e = start(t, st, ch)
	eventually(t, "all are delivered", func() bool { return e.stats("ct").Sent == 5 })
	assert.Equal(t, uids(5), pacs.received())
	pacs.has(objects...)
}

// A new kind of object needs a new association, once.
func TestAnAssociationComesToBeForAllKindsOfObjectsAndEndsWhenItIsIdle(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, nil)
	dest := toDICOM("pacs", pacs.addr)
	e := start(t, openStore(t, t.TempDir()), modality(t, "ct", dest))
	var objects []dicomtls.Object
	for i, instance := range uids(20) {
		objects = append(objects, image([]string{ctImage, secondaryCapture}[i%2], instance))
	}
	stores(t, e.addr("ct"), objects...)
	eventually(t, "all are delivered", func() bool { return e.stats("ct").Sent == 20 })
	assert.Equal(t, uids(20), pacs.received())
	assert.Equal(t, 2, pacs.opened())
	e.stop()

	dest.DICOM.Linger = time.Millisecond
	e = start(t, openStore(t, t.TempDir()), modality(t, "ct", dest))
	for _, o := range images(uids(5)) {
		before := e.stats("ct").Sent
		stores(t, e.addr("ct"), o)
		eventually(t, "it is delivered and the association released", func() bool {
			pacs.mu.Lock()
			defer pacs.mu.Unlock()
			return e.stats("ct").Sent == before+1 && pacs.running.Associations() == 0
		})
	}
}

// An association that the archive has ended while it was not used costs nothing but
// a new one.
func TestAnAssociationThatTheArchiveHasEndedIsMadeAnew(t *testing.T) {
	t.Parallel()
	for _, rude := range []bool{false, true} {
		pacs := newArchive(t, nil)
		var gone atomic.Int64 // how often the engine has noticed
		behind := pacs.addr
		addr := background(t, func(near net.Conn) {
			far, err := net.Dial("tcp", behind)
			if err != nil {
				return
			}
			var noticed sync.WaitGroup
			noticed.Go(func() { io.Copy(far, near); far.Close(); gone.Add(1) })
			io.Copy(near, far)
			near.(*net.TCPConn).CloseWrite()
			noticed.Wait()
		})
		e := start(t, openStore(t, t.TempDir()), modality(t, "ct", toDICOM("pacs", addr)))
		for i, o := range images(uids(3)) {
			stores(t, e.addr("ct"), o)
			eventually(t, "it is delivered", func() bool { return e.stats("ct").Sent == int64(i+1) })
			if !rude {
				pacs.mu.Lock()
				server := pacs.running
				pacs.mu.Unlock()
				server.Shutdown(t.Context()) // with A-ABORT
			}
			pacs.down()
			eventually(t, "the end is noticed", func() bool { return gone.Load() == int64(i+1) })
			pacs.up()
		}
		assert.Equal(t, uids(3), pacs.received())
		assert.Equal(t, 3, pacs.opened())
		assert.Zero(t, e.log.count("delivery failed"))
		e.stop()
	}
}

func TestWhatAnArchiveAnswersDecidesWhatBecomesOfAnObject(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answers []dicomtls.Status // then success
		dead    string            // what the dead letter says; empty: there is none
	}{
		"no room for now":         {[]dicomtls.Status{0xA700, 0xA701, 0x0213}, ""},
		"stored with a warning":   {[]dicomtls.Status{dicomtls.StatusCoercion}, ""},
		"no room again and again": {[]dicomtls.Status{0xA700, 0xA700, 0xA700, 0xA700, 0xA700}, "A700"},
		"refused for good":        {[]dicomtls.Status{dicomtls.StatusCannotUnderstand}, "C000"},
		"not authorized":          {[]dicomtls.Status{dicomtls.StatusNotAuthorized}, "0124"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pacs := newArchive(t, nil)
			answers := tt.answers
			pacs.answers(func(*dicomtls.StoreRequest) dicomtls.Status { // of one association, so one at a time
				if len(answers) == 0 {
					return dicomtls.StatusSuccess
				}
				status := answers[0]
				answers = answers[1:]
				return status
			})
			dest := toDICOM("pacs", pacs.addr)
			dest.Queue.OnPoison, dest.Queue.MaxAttempts = "deadletter", 5
			st := openStore(t, t.TempDir())
			e := start(t, st, modality(t, "ct", dest))
			stores(t, e.addr("ct"), images(uids(2))...)
			eventually(t, "both are out of the queue", func() bool { return e.stats("ct").Queued == 0 })
			assert.Equal(t, 1, pacs.opened(), "an answer does not cost the association")
			if tt.dead == "" {
				assert.Equal(t, uids(2), pacs.received())
				return
			}
			assert.Equal(t, uids(2)[1:], pacs.received(), "the next one goes on")
			dead, err := st.DeadLetters(t.Context(), "ct", "pacs", 0, 10)
			require.NoError(t, err)
			require.Len(t, dead, 1)
			assert.Equal(t, uids(1)[0], dead[0].Message.ControlID)
			assert.False(t, dead[0].MaybeSent)
			assert.Contains(t, dead[0].LastError, tt.dead)
		})
	}
}

// An object whose response is lost may be there, and is sent again, marked so.
func TestAnObjectWithoutAResponseMayHaveArrived(t *testing.T) {
	t.Parallel()
	for lost, dead := range map[int64]bool{2: false, 3: true} {
		pacs := newArchive(t, nil)
		dest := toDICOM("pacs", newCutting(t, pacs.addr, lost))
		dest.Queue.OnPoison, dest.Queue.MaxAttempts = "deadletter", 3
		st := openStore(t, t.TempDir())
		e := start(t, st, modality(t, "ct", dest))
		stores(t, e.addr("ct"), images(uids(2))...)
		eventually(t, "both are out of the queue", func() bool { return e.stats("ct").Queued == 0 })
		assert.Equal(t, 1, e.log.count("sending again what may have arrived"))
		letters, err := st.DeadLetters(t.Context(), "ct", "pacs", 0, 10)
		require.NoError(t, err)
		assert.Equal(t, dead, len(letters) == 1)
		for _, d := range letters {
			assert.True(t, d.MaybeSent)
			assert.Contains(t, d.LastError, "sent, but not answered")
		}
		assert.Contains(t, pacs.received(), uids(2)[1])
	}
}

// background serves connections with f until the test ends, and returns where.
func background(t *testing.T, f func(nc net.Conn)) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer nc.Close()
				f(nc)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); all.Wait() })
	return ln.Addr().String()
}

// newCutting is a way to addr on which the responses to the first object of the
// first n associations are lost, with the connection. It returns where it begins.
func newCutting(t *testing.T, addr string, n int64) string {
	var seen atomic.Int64
	return background(t, func(near net.Conn) {
		far, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		var there sync.WaitGroup
		there.Go(func() { io.Copy(far, near); far.Close() })
		defer there.Wait()
		defer near.Close()
		if seen.Add(1) > n {
			io.Copy(near, far)
			return
		}
		pdu := make([]byte, 1<<16)
		k, _ := far.Read(pdu) // A-ASSOCIATE-AC gets through
		near.Write(pdu[:k])
		far.Read(pdu) // and what comes then does not
	})
}

func TestAnArchiveThatDoesNotTakeAKindOfObjectRefusesItForGood(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, func() *dicomtls.Server {
		return &dicomtls.Server{SOPClasses: map[string][]string{ctImage: nil}}
	})
	dest := toDICOM("pacs", pacs.addr)
	dest.Queue.OnPoison = "deadletter"
	st := openStore(t, t.TempDir())
	e := start(t, st, modality(t, "ct", dest))
	stores(t, e.addr("ct"), image(secondaryCapture, "1.2.1"), image(ctImage, "1.2.2"), image(secondaryCapture, "1.2.3"))
	eventually(t, "all are out of the queue", func() bool { return e.stats("ct").Queued == 0 })
	assert.Equal(t, []string{"1.2.2"}, pacs.received())
	dead, err := st.DeadLetters(t.Context(), "ct", "pacs", 0, 10)
	require.NoError(t, err)
	require.Len(t, dead, 2)
	assert.Contains(t, dead[0].LastError, "no presentation context was accepted")
	assert.False(t, dead[0].MaybeSent)
}

// However finally an archive rejects us, that says nothing about an object.
func TestAnArchiveThatRejectsUsMakesNoObjectPoison(t *testing.T) {
	t.Parallel()
	p, stranger := newPKI(t), newPKI(t)
	for name, tt := range map[string]struct {
		server func() *dicomtls.Server
		change func(d *config.DICOMDestination)
	}{
		"another title": {func() *dicomtls.Server { return &dicomtls.Server{AETitles: []string{"OTHER"}} }, func(*config.DICOMDestination) {}},
		"our certificate is not accepted": {func() *dicomtls.Server {
			props := p.dicom("server")
			return &dicomtls.Server{TLS: &props}
		}, func(d *config.DICOMDestination) {
			d.TLS = stranger.dicom("client")
			d.TLS.TrustStore = p.dicom("client").TrustStore
		}},
		"its certificate is not": {func() *dicomtls.Server {
			props := p.dicom("server")
			return &dicomtls.Server{TLS: &props}
		}, func(d *config.DICOMDestination) { d.TLS = stranger.dicom("client") }},
		"who we are is not confirmed": {nil, func(d *config.DICOMDestination) { d.Username, d.UIDNegRsp = "engine", true }},
		"it offers no commitment":     {nil, func(d *config.DICOMDestination) { d.Stgcmt = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pacs := newArchive(t, tt.server)
			dest := toDICOM("pacs", pacs.addr)
			tt.change(dest.DICOM)
			dest.Queue.OnPoison, dest.Queue.MaxAttempts = "deadletter", 1
			e := start(t, openStore(t, t.TempDir()), modality(t, "ct", dest))
			stores(t, e.addr("ct"), images(uids(1))...)
			eventually(t, "several tries", func() bool { return e.log.count("attempt=3") > 0 })
			assert.EqualValues(t, 1, e.stats("ct").Queued)
			assert.Zero(t, e.stats("ct").Error)
			assert.Empty(t, pacs.received())
		})
	}
}

func TestWhatIsNoObjectIsUnsendableToAnArchive(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, nil)
	for _, poison := range []string{"block", "deadletter"} {
		dest := toDICOM("pacs", pacs.addr)
		dest.Queue.OnPoison = poison
		st := openStore(t, t.TempDir())
		e := start(t, st, channel("adt", toChannel("images", "out")), config.Channel{
			ID: "out", Name: "out", Source: config.Source{Type: "channel"}, Destinations: []config.Destination{dest},
		})
		// It says that it is one, and is not believed.
		_, err := dial(t, e.addr("adt"), nil).Send(t.Context(), append(message("M1"), `NTE|1||{"dicomObject":"ct/1.2.3.dcm"}`+"\r"...))
		require.NoError(t, err)
		eventually(t, "it is refused", func() bool { return e.log.count("unsendable") > 0 })
		if poison == "block" {
			assert.EqualValues(t, 1, e.stats("out").Queued)
		} else {
			eventually(t, "it is set aside", func() bool { return e.stats("out").Error == 1 })
		}
		assert.Contains(t, e.log.String(), "refers to no DICOM object")
		e.stop()
	}
	assert.Zero(t, pacs.opened())
}

func TestAnObjectThatIsGoneOrDamagedIsSetAside(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, nil)
	pacs.down()
	dest, files := toDICOM("pacs", pacs.addr), toFile("files", t.TempDir())
	dest.Queue.OnPoison, files.Queue.OnPoison = "deadletter", "deadletter"
	ch := modality(t, "ct", dest, toFile("first", t.TempDir()))
	st := openStore(t, t.TempDir())
	e := start(t, st, ch)
	stores(t, e.addr("ct"), images(uids(3))...)
	eventually(t, "the files are there", func() bool { return e.stats("ct").Sent == 3 })
	e.stop()
	require.NoError(t, os.Remove(filepath.Join(ch.Source.DICOM.Dest, uids(1)[0]+".dcm")))
	require.NoError(t, os.WriteFile(filepath.Join(ch.Source.DICOM.Dest, uids(2)[1]+".dcm"), []byte("no DICOM"), 0o600))
	pacs.up()
	e = start(t, st, ch)
	eventually(t, "none is in the queue", func() bool { return e.stats("ct").Queued == 0 })
	assert.Equal(t, uids(3)[2:], pacs.received())
	dead, err := st.DeadLetters(t.Context(), "ct", "pacs", 0, 10)
	require.NoError(t, err)
	require.Len(t, dead, 2)
	assert.Contains(t, dead[0].LastError, "not there any more")
	assert.Contains(t, dead[1].LastError, "damaged")
	e.stop()
}

// Where a channel's objects are is not known when it is not configured any more. That
// is no fault of the message, and the channel may come back.
func TestAnObjectOfAChannelThatIsNotConfiguredWaits(t *testing.T) {
	t.Parallel()
	pacs := newArchive(t, nil)
	pacs.down()
	dest := toDICOM("pacs", pacs.addr)
	dest.Queue.OnPoison, dest.Queue.MaxAttempts = "deadletter", 1
	ct := modality(t, "ct", toChannel("on", "out"))
	out := config.Channel{ID: "out", Name: "out", Source: config.Source{Type: "channel"}, Destinations: []config.Destination{dest}}
	st := openStore(t, t.TempDir())
	e := start(t, st, ct, out)
	stores(t, e.addr("ct"), images(uids(1))...)
	eventually(t, "it is handed over", func() bool { return e.stats("out").Queued == 1 })
	e.stop()
	pacs.up()
	e = start(t, st, out)
	eventually(t, "it is said", func() bool { return e.log.count("is not configured as it was") > 1 })
	assert.EqualValues(t, 1, e.stats("out").Queued)
	e.stop()
	e = start(t, st, ct, out)
	eventually(t, "it is delivered", func() bool { return e.stats("out").Sent == 1 })
	assert.Equal(t, uids(1), pacs.received())
}

func TestWhereAReferenceGoesThatIsNoArchive(t *testing.T) {
	t.Parallel()
	lines := make(chan string, 1)
	raw := background(t, func(nc net.Conn) {
		line, _ := bufio.NewReader(nc).ReadString('\n')
		lines <- line
	})
	lab := newInbox(t, new(mllp.Server))
	server := newWeb(t)
	server.Start()
	post := newPostOffice(t, nil)
	_, mailPort, err := net.SplitHostPort(post.ln.Addr().String())
	require.NoError(t, err)
	pacs := newArchive(t, nil)

	line := toTCP("raw", raw)
	line.TCP.TransmissionMode, line.TCP.Delimiter, line.TCP.IgnoreResponse = "RAW", "newline", true
	hl7 := toTCP("hl7", lab.addr)
	hl7.Queue.OnPoison = "deadletter"
	files := t.TempDir()
	web := configured(t, "type: http\nhost: "+server.URL+"\nproxyUrl: none\ncontentType: application/json")
	web.Name = "web"
	mail := configured(t, `
type: smtp
smtpHost: 127.0.0.1
smtpPort: `+mailPort+`
encryption: none
from: a@example.org
to: b@example.org
body: '${message.raw}'`)
	mail.Name = "mail"
	e := start(t, openStore(t, t.TempDir()), modality(t, "ct", toFile("files", files), line, web, mail, toChannel("on", "out")),
		config.Channel{ID: "out", Name: "out", Source: config.Source{Type: "channel"}, Destinations: []config.Destination{hl7, toDICOM("pacs", pacs.addr)}})
	object := image(ctImage, "1.2.3")
	stores(t, e.addr("ct"), object)
	eventually(t, "all have it", func() bool { return e.stats("ct").Sent == 5 && e.stats("out").Sent == 1 && e.stats("out").Error == 1 })

	pacs.has(object)
	got := dicomFiles(t, files)
	require.Len(t, got, 1)
	_, data := dicomFile(t, got[0])
	assert.Equal(t, dataSet(ctImage, "1.2.3", []byte("pixels of 1.2.3")), data, "a file destination gets the object")
	bodies, headers := server.seen()
	const reference = `{"channelId":"ct","file":"1.2.3.dcm","sopClassUID":"` + ctImage + `","sopInstanceUID":"1.2.3"`
	assert.True(t, strings.HasPrefix(bodies[0], reference), bodies[0])
	assert.Equal(t, "application/json", headers[0].Get("Content-Type"))
	assert.True(t, strings.HasPrefix(<-lines, reference))
	assert.Empty(t, lab.messages(), "MLLP carries HL7")
	assert.Contains(t, e.log.String(), "MLLP carries HL7")
	post.mu.Lock()
	defer post.mu.Unlock()
	require.Len(t, post.mails, 1)
	assert.Contains(t, post.mails[0], "sopInstanceUID")
	for _, got := range append(slices.Clone(post.mails), bodies...) {
		assert.NotContains(t, got, planted, "nothing of the object")
	}
}

func TestAnObjectIsDeliveredWhenTheArchiveHasCommittedIt(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"same association", "association of its own"} {
		var mu sync.Mutex
		tries := 0
		var back string
		pacs := newArchive(t, func() *dicomtls.Server {
			return &dicomtls.Server{Commit: dicomtls.CommitHandlerFunc(func(ctx context.Context, r *dicomtls.CommitRequest) dicomtls.Status {
				mu.Lock()
				defer mu.Unlock()
				tries++
				report := &dicomtls.CommitReport{TransactionUID: r.TransactionUID, Committed: r.References}
				if tries == 1 { // not yet
					report.Committed, report.Failed = nil, []dicomtls.FailedReference{{Reference: r.References[0], Reason: dicomtls.StatusResourceLimitation}}
				}
				if way == "same association" {
					r.Report = report
					return dicomtls.StatusSuccess
				}
				d := &dicomtls.Dialer{AETitle: "ARCHIVE", CalledAE: "ENGINE"}
				if err := d.Report(ctx, "tcp", back, report); err != nil {
					t.Errorf("the report is not taken: %v", err)
				}
				return dicomtls.StatusSuccess
			})}
		})
		dest := toDICOM("pacs", pacs.addr)
		dest.DICOM.Stgcmt = true
		e := start(t, openStore(t, t.TempDir()), modality(t, "ct", dest))
		mu.Lock()
		back = e.addr("ct")
		mu.Unlock()
		stores(t, e.addr("ct"), images(uids(3))...)
		eventually(t, "all are committed: "+way, func() bool { return e.stats("ct").Sent == 3 })
		assert.Equal(t, append(uids(1), uids(3)...), pacs.received(), "the first one was sent again")
		assert.Equal(t, 1, e.log.count("stored, but not committed"))
		assert.Equal(t, 1, e.log.count("sending again what may have arrived"))
		assert.Equal(t, 1, pacs.opened())
		e.stop()
	}
}

func TestAnObjectWhoseCommitmentIsNotReportedStaysQueued(t *testing.T) {
	t.Parallel()
	reports := make(chan *dicomtls.CommitReport, 100)
	pacs := newArchive(t, func() *dicomtls.Server {
		return &dicomtls.Server{Commit: dicomtls.CommitHandlerFunc(func(_ context.Context, r *dicomtls.CommitRequest) dicomtls.Status {
			select {
			case reports <- &dicomtls.CommitReport{TransactionUID: r.TransactionUID, Committed: r.References}:
			default:
			}
			return dicomtls.StatusSuccess
		})}
	})
	dest := toDICOM("pacs", pacs.addr)
	dest.DICOM.Stgcmt, dest.DICOM.StgcmtTimeout = true, 20*time.Millisecond
	e := start(t, openStore(t, t.TempDir()), modality(t, "ct", dest))
	stores(t, e.addr("ct"), images(uids(1))...)
	eventually(t, "it is tried again", func() bool { return len(reports) >= 2 })
	assert.EqualValues(t, 1, e.stats("ct").Queued)
	d := &dicomtls.Dialer{AETitle: "ARCHIVE", CalledAE: "ENGINE"}
	require.NoError(t, d.Report(t.Context(), "tcp", e.addr("ct"), <-reports), "a late one is confirmed")
	assert.Equal(t, 1, e.log.count("for which nobody waits"))
}

// Objects go from and to the disk in pieces.
func TestAnObjectIsNeverInMemoryAsAWhole(t *testing.T) {
	const size = 12 << 20
	path := filepath.Join(t.TempDir(), "big.dcm")
	meta := dicomtls.FileMeta{SOPClassUID: ctImage, SOPInstanceUID: "1.2.3", TransferSyntaxUID: dicomtls.ExplicitVRLittleEndian}
	file, err := meta.AppendTo(nil)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(file, dataSet(ctImage, "1.2.3", make([]byte, size))...), 0o600))
	object, err := dicomtls.FileObject(path)
	require.NoError(t, err)
	var got int64
	sink := serveDICOM(t, dicomtls.StoreHandlerFunc(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
		got, _ = io.Copy(io.Discard, r.Body)
		return dicomtls.StatusSuccess
	}))
	e := start(t, openStore(t, t.TempDir()), modality(t, "ct", toDICOM("pacs", sink), toFile("files", t.TempDir())))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	stores(t, e.addr("ct"), object)
	eventually(t, "it is delivered", func() bool { return e.stats("ct").Sent == 2 })
	runtime.ReadMemStats(&after)
	assert.Greater(t, got, int64(size))
	t.Logf("%d bytes allocated in all, by both sides", after.TotalAlloc-before.TotalAlloc)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(size/2))
}

// serveDICOM is an archive with a handler of its own.
func serveDICOM(t *testing.T, h dicomtls.StoreHandler) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, done := &dicomtls.Server{Store: h}, make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(context.Background(), ln)
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return ln.Addr().String()
}

// Neither what is in an object nor its UID, which leads to a patient, is in the log
// or in a reason of a failure.
func TestNothingOfAnObjectIsLogged(t *testing.T) {
	t.Parallel()
	const canary = "1.2.4711.4712"
	pacs := newArchive(t, nil)
	pacs.answers(func(r *dicomtls.StoreRequest) dicomtls.Status {
		r.Comment = canary
		return dicomtls.StatusCannotUnderstand
	})
	down := newArchive(t, nil)
	down.down()
	dest := toDICOM("pacs", pacs.addr)
	dest.Queue.OnPoison = "deadletter"
	ch := modality(t, "ct", dest, toDICOM("down", down.addr), toFile("nowhere", filepath.Join(os.DevNull, "x")))
	st := &faulty{Store: openStore(t, t.TempDir())}
	e := start(t, st, ch)
	st.broken.Store(true)
	assert.Error(t, storeTo(t, e.addr("ct"), image(ctImage, canary))[0].Err)
	st.broken.Store(false)
	stores(t, e.addr("ct"), image(ctImage, canary), image(ctImage, canary+".2"))
	broken := dicomtls.BytesObject(ctImage, canary, dicomtls.ExplicitVRLittleEndian, dataSet(ctImage, canary+".3", []byte(canary)))
	assert.Error(t, storeTo(t, e.addr("ct"), broken)[0].Err)
	eventually(t, "two dead letters", func() bool { return e.stats("ct").Error == 2 })
	require.NoError(t, os.RemoveAll(ch.Source.DICOM.Dest))
	stores(t, e.addr("ct")) // nothing
	eventually(t, "the file is missed", func() bool { return e.log.count("not there any more") > 0 })
	e.stop()
	assert.NotContains(t, e.log.String(), canary)
	assert.NotContains(t, e.log.String(), planted)
	dead, err := st.DeadLetters(t.Context(), "ct", "pacs", 0, 10)
	require.NoError(t, err)
	for _, d := range dead {
		assert.NotContains(t, d.LastError, canary)
		assert.Contains(t, string(d.Message.Raw), canary, "the positive control")
	}
	pending, err := st.Pending(t.Context(), "ct", "nowhere", 0, 1)
	require.NoError(t, err)
	require.NotEmpty(t, pending)
	assert.NotContains(t, pending[0].LastError, canary)
}
