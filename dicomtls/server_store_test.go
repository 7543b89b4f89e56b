package dicomtls_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/dicomtls"
)

// answer reads a response and returns its words, its comment, and its elements.
func (p *peer) answer() (heard, comment string, values map[int]string) {
	p.t.Helper()
	kind, b, err := p.next()
	require.NoError(p.t, err)
	require.EqualValues(p.t, 4, kind)
	values = elements(b[6:])
	return "P " + inWords(b), strings.TrimRight(values[0x902], " "), values
}

// What cannot be stored is refused with the right status, and the association
// goes on.
func TestRequestsThatAreRefused(t *testing.T) {
	noData := func(class, instance string) string {
		return commandSet(uid(2, class), el(0x100, le16(1)), el(0x110, le16(1)), el(0x800, le16(0x101)), uid(0x1000, instance))
	}
	command := func(context byte, field int, class string, data bool) string {
		kind := 0x101
		if data {
			kind = 0
		}
		text := pdv(context, 3, commandSet(uid(2, class), el(0x100, le16(field)), el(0x110, le16(1)), el(0x800, le16(kind))))
		if data {
			text += pdv(context, 2, someData)
		}
		return pdata(text)
	}
	for _, c := range []struct{ name, say, hear string }{
		{"no SOP instance UID", store(1, "", someData), "P 8001 0117 to 1"},
		{"a SOP instance UID that is a path", store(1, "../../../x", someData), "P 8001 0117 to 1"},
		{"a SOP instance UID of 65 digits", store(1, strings.Repeat("1", 65), someData), "P 8001 0117 to 1"},
		{"a SOP instance UID with two dots", store(1, "1..2", someData), "P 8001 0117 to 1"},
		{"a SOP instance UID with a NUL in it", store(1, "1.2\x00.3", someData), "P 8001 0117 to 1"},
		{"another SOP class than that of the context", pdata(pdv(3, 3, storeRQ(1, secondaryCapture, "1.2.3")), pdv(3, 2, someData)), "P 8001 A900 to 1"},
		{"no data set", pdata(pdv(3, 3, noData(ctImage, "1.2.3"))), "P 8001 A900 to 1"},
		{"an empty data set", store(1, "1.2.3", ""), "P 8001 C000 to 1"},
		{"an empty data set in several fragments", pdata(pdv(3, 3, storeRQ(1, ctImage, "1.2.3")), pdv(3, 0, ""), pdv(3, 0, "")) + pdata(pdv(3, 2, "")), "P 8001 C000 to 1"},
		{"C-FIND on a storage context", command(3, 0x20, ctImage, true), "P 8020 0211 to 1"},
		{"C-GET on a storage context", command(3, 0x10, ctImage, true), "P 8010 0211 to 1"},
		{"C-MOVE on a storage context", command(3, 0x21, ctImage, true), "P 8021 0211 to 1"},
		{"C-ECHO on a storage context", command(3, 0x30, ctImage, false), "P 8030 0211 to 1"},
		{"C-STORE on the verification context", command(1, 0x01, ctImage, true), "P 8001 0211 to 1"},
		{"an unknown command", command(3, 0x55, ctImage, true), "P 8055 0211 to 1"},
		{"N-ACTION on a storage context", command(3, 0x130, commitment, true), "P 8130 0118 to 1"},
		{"N-GET on a storage context", command(3, 0x110, "1.2.3", false), "P 8110 0118 to 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKeeper()
			in(t, &dicomtls.Server{Store: k}, func(t *testing.T, s *site) {
				p := s.associated()
				assert.Equal(t, []string{c.hear}, p.talk(c.say))
				assert.Empty(t, k.requests, "no handler has seen it")
				assert.Equal(t, []string{"P 8001 0000 to 9"}, p.talk(store(9, "1.2.3.4", someData)), "the next object works")
				assert.Equal(t, map[string]string{"1.2.3.4": someData}, k.kept())
				assert.Equal(t, []string{"release!"}, p.talk(releaseRQ))
			})
		})
	}
}

func TestAStoreRequestTellsAllThatIsKnown(t *testing.T) {
	k := newKeeper()
	in(t, &dicomtls.Server{Store: k}, func(t *testing.T, s *site) {
		p := s.call()
		p.say(associateRQ{calling: "CT 1", called: "ARCHIVE"}.String())
		require.Equal(t, "AC 1=0 3=0", p.hear())
		p.say(pdata(pdv(3, 3, commandSet(uid(2, ctImage), el(0x100, le16(1)), el(0x110, le16(77)), el(0x700, le16(1)),
			el(0x800, le16(1)), uid(0x1000, "1.2.3.4.5"), el(0x1030, "MOVER "), el(0x1031, le16(12)))), pdv(3, 2, someData)))
		heard, _, values := p.answer()
		assert.Equal(t, "P 8001 0000 to 77", heard)
		assert.Equal(t, "1.2.3.4.5\x00", values[0x1000], "the response names the instance, padded with NUL")
		assert.Equal(t, ctImage+"\x00", values[2])
		r := k.requests[0]
		assert.Equal(t, ctImage, r.SOPClassUID)
		assert.Equal(t, "1.2.3.4.5", r.SOPInstanceUID)
		assert.Equal(t, explicitLE, r.TransferSyntaxUID, "the first one proposed")
		assert.EqualValues(t, 77, r.MessageID)
		assert.Equal(t, dicomtls.PriorityHigh, r.Priority)
		assert.Equal(t, "MOVER", r.MoveOriginatorAE)
		assert.EqualValues(t, 12, r.MoveOriginatorID)
		a := r.Association
		assert.Equal(t, []string{"CT 1", "ARCHIVE", "1.2.3", "TEST"}, []string{a.CallingAE, a.CalledAE, a.ImplementationClassUID, a.ImplementationVersionName})
		assert.Equal(t, 16384, a.MaxPDUBytes)
		assert.Equal(t, "198.51.100.1:49152", a.RemoteAddr.String())
	})
}

func TestHandlersAnswer(t *testing.T) {
	say := func(f func(ctx context.Context, r *dicomtls.StoreRequest) dicomtls.Status) *dicomtls.Server {
		return &dicomtls.Server{Store: dicomtls.StoreHandlerFunc(f)}
	}
	for _, c := range []struct {
		name          string
		srv           *dicomtls.Server
		hear, comment string
	}{
		{"with a warning", say(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
			io.Copy(io.Discard, r.Body)
			return dicomtls.StatusCoercion
		}), "P 8001 B000 to 1", ""},
		{"with a comment that is too long and has what no LO has", say(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
			r.Comment = "no\\way\n" + strings.Repeat("ä", 100)
			return dicomtls.StatusOutOfResources
		}), "P 8001 A700 to 1", "no?way?" + strings.Repeat("?", 57)},
		{"with a panic", say(func(context.Context, *dicomtls.StoreRequest) dicomtls.Status { panic("Doe^John") }), "P 8001 0110 to 1", ""},
		{"without reading", say(func(context.Context, *dicomtls.StoreRequest) dicomtls.Status { return dicomtls.StatusSuccess }), "P 8001 0000 to 1", ""},
		{"after reading a part", say(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
			io.ReadFull(r.Body, make([]byte, 3))
			return 0xC123
		}), "P 8001 C123 to 1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, c.srv, func(t *testing.T, s *site) {
				p := s.associated()
				p.say(store(1, "1.2.3", someData))
				heard, comment, _ := p.answer()
				assert.Equal(t, c.hear, heard)
				assert.Equal(t, c.comment, comment)
				p.say(store(1, "1.2.3", someData))
				heard, _, _ = p.answer()
				assert.Equal(t, c.hear, heard, "the association survives")
				assert.NotContains(t, s.logged(), "Doe", "what a panic says may be about a patient")
			})
		})
	}
}

func TestAnEchoHandlerDecidesTheStatus(t *testing.T) {
	in(t, &dicomtls.Server{Echo: refusing{}}, func(t *testing.T, s *site) {
		p := s.associatedFor(t, "AC 1=0 3=3")
		assert.Equal(t, []string{"P 8030 0122 to 1"}, p.talk(pdata(pdv(1, 3, echoRQ(1)))))
	})
}

type refusing struct{}

func (refusing) ServeEcho(context.Context, *dicomtls.AssociationInfo) dicomtls.Status {
	return dicomtls.StatusSOPClassNotSupported
}

func TestAnObjectThatIsTooLargeIsAnsweredA700AndNotGivenOut(t *testing.T) {
	k := newKeeper()
	in(t, &dicomtls.Server{Store: k, MaxObjectBytes: 1000}, func(t *testing.T, s *site) {
		p := s.associated()
		assert.Equal(t, []string{"P 8001 0000 to 1"}, p.talk(store(1, "1.2.1", strings.Repeat("x", 1000))))
		p.say(store(2, "1.2.2", strings.Repeat("x", 1002)))
		heard, comment, _ := p.answer()
		assert.Equal(t, "P 8001 A700 to 2", heard)
		assert.Equal(t, "the object is too large", comment)
		assert.Equal(t, []string{"P 8001 0000 to 3"}, p.talk(store(3, "1.2.3", someData)))
		require.Len(t, k.broken, 1)
		var large *dicomtls.TooLargeError
		require.ErrorAs(t, k.broken[0], &large)
		assert.EqualValues(t, 1000, large.Limit)
		assert.Len(t, k.kept(), 2)
		p.say(pdata(pdv(3, 3, storeRQ(4, ctImage, "1.2.4")), pdv(3, 0, strings.Repeat("x", 5000))))
		assert.Equal(t, "ABORT 0,0", p.hear(), "far too much is not even thrown away")
		p.Close()
		synctest.Wait()
		assert.Equal(t, 1, s.count("closed object_too_long"))
	})
}

// However an object ends in its middle, the handler learns that it is not whole,
// and it is not delivered.
func TestAnObjectThatDoesNotArriveWhole(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"A-ABORT":    func(p *peer) { p.say(abort(0, 0)) },
		"FIN":        func(p *peer) { p.Close() },
		"half close": func(p *peer) { p.Conn.(interface{ CloseWrite() error }).CloseWrite() },
		"RST":        func(p *peer) { p.Conn.(interface{ Abort() }).Abort() },
		"in a PDU":   func(p *peer) { p.say(pdata(pdv(3, 2, someData))[:10]); p.Close() },
		"silence":    func(*peer) { time.Sleep(2 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper()
			in(t, &dicomtls.Server{Store: k}, func(t *testing.T, s *site) {
				p := s.associated()
				p.say(pdata(pdv(3, 3, storeRQ(1, ctImage, "1.2.3")), pdv(3, 0, someData)))
				synctest.Wait()
				end(p)
				synctest.Wait()
				require.Len(t, k.broken, 1)
				assert.NotErrorIs(t, k.broken[0], io.EOF)
				assert.Empty(t, k.kept())
				assert.EqualValues(t, len(someData), s.event("incomplete").Bytes)
			})
		})
	}
}

func TestAHandlersContextEndsWhenTheClientAborts(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"with A-ABORT": func(p *peer) { p.say(abort(0, 0)) },
		"with RST":     func(p *peer) { p.Conn.(interface{ Abort() }).Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			var cause atomic.Value
			srv := &dicomtls.Server{Store: dicomtls.StoreHandlerFunc(func(ctx context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
				io.Copy(io.Discard, r.Body)
				<-ctx.Done()
				cause.Store(context.Cause(ctx))
				return dicomtls.StatusSuccess
			})}
			in(t, srv, func(t *testing.T, s *site) {
				p := s.associated()
				p.say(store(1, "1.2.3", someData))
				synctest.Wait()
				began := time.Now()
				end(p)
				synctest.Wait()
				assert.NotNil(t, cause.Load())
				assert.Zero(t, time.Since(began))
				p.Close()
			})
		})
	}
}

func TestAHandlerMayTakeItsTime(t *testing.T) {
	in(t, &dicomtls.Server{Store: dicomtls.StoreHandlerFunc(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
		time.Sleep(10 * time.Minute)
		_, err := io.Copy(io.Discard, r.Body)
		time.Sleep(10 * time.Minute)
		if err != nil {
			return dicomtls.StatusOutOfResources
		}
		return dicomtls.StatusSuccess
	})}, func(t *testing.T, s *site) {
		p := s.associated()
		go p.say(store(1, "1.2.3", strings.Repeat("x", 60_000)), store(2, "1.2.4", strings.Repeat("x", 60_000)), pdata(pdv(1, 3, echoRQ(3))))
		for _, want := range []string{"P 8001 0000 to 1", "P 8001 0000 to 2"} {
			p.SetReadDeadline(time.Time{})
			heard := p.hear()
			for heard == "nothing" {
				heard = p.hear()
			}
			assert.Equal(t, want, heard)
		}
		assert.Equal(t, "P 8030 0000 to 3", p.hear())
	})
}

func TestAHandlersTimeIsLimitedIfWished(t *testing.T) {
	var got error
	in(t, &dicomtls.Server{HandlerTimeout: time.Minute, Store: dicomtls.StoreHandlerFunc(func(ctx context.Context, _ *dicomtls.StoreRequest) dicomtls.Status {
		<-ctx.Done()
		got = ctx.Err()
		return dicomtls.StatusOutOfResources
	})}, func(t *testing.T, s *site) {
		p := s.associated()
		began := time.Now()
		assert.Equal(t, []string{"P 8001 A700 to 1"}, p.talk(store(1, "1.2.3", someData)))
		assert.Equal(t, time.Minute, time.Since(began))
		assert.ErrorIs(t, got, context.DeadlineExceeded)
	})
}

func TestAResponseThatCannotBeDeliveredIsReported(t *testing.T) {
	var release chan struct{} // of the bubble
	in(t, &dicomtls.Server{Store: dicomtls.StoreHandlerFunc(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
		io.Copy(io.Discard, r.Body)
		<-release
		return dicomtls.StatusSuccess
	})}, func(t *testing.T, s *site) {
		release = make(chan struct{})
		p := s.associated()
		p.say(store(1, "1.2.3", someData))
		synctest.Wait()
		p.Conn.(interface{ Abort() }).Abort()
		synctest.Wait()
		close(release)
		synctest.Wait()
		assert.Equal(t, 1, s.count("undeliverable C-STORE 0000"), s.told())
		assert.NotContains(t, s.logged(), "1.2.3 ")
	})
}

func TestBodyIsAReaderAsReadersAre(t *testing.T) {
	data := string(imageData("1.2.3", 50_000))
	for name, read := range map[string]func(r io.Reader) (string, error){
		"ReadAll": func(r io.Reader) (string, error) { b, err := io.ReadAll(r); return string(b), err },
		"WriteTo": func(r io.Reader) (string, error) {
			var b strings.Builder
			n, err := r.(io.WriterTo).WriteTo(&b)
			if n != int64(b.Len()) {
				err = errors.New("wrong count")
			}
			return b.String(), err
		},
		"small and large reads": func(r io.Reader) (string, error) {
			var b strings.Builder
			for i := 0; ; i++ {
				p := make([]byte, []int{0, 1, 7, 20_000, 40_000}[i%5])
				n, err := r.Read(p)
				b.Write(p[:n])
				if errors.Is(err, io.EOF) {
					if _, err := r.Read(p[:0:0]); err != nil && !errors.Is(err, io.EOF) {
						return "", err
					}
					return b.String(), nil
				}
				if err != nil {
					return "", err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			var err error
			in(t, &dicomtls.Server{Store: dicomtls.StoreHandlerFunc(func(_ context.Context, r *dicomtls.StoreRequest) dicomtls.Status {
				got, err = read(r.Body)
				return dicomtls.StatusSuccess
			})}, func(t *testing.T, s *site) {
				p := s.associated()
				p.say(pdata(pdv(3, 3, storeRQ(1, ctImage, "1.2.3"))))
				go func() {
					for rest := data; rest != ""; {
						n := min(16_378, len(rest))
						header := byte(0)
						if n == len(rest) {
							header = 2
						}
						p.say(pdata(pdv(3, header, rest[:n])))
						rest = rest[n:]
					}
				}()
				assert.Equal(t, "P 8001 0000 to 1", p.hear())
			})
			require.NoError(t, err)
			assert.Equal(t, data, got)
		})
	}
}
