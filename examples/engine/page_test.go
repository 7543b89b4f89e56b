package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/testpki"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// With -args -screenshots DIR the test of the page's looks writes pictures there.
var screenshots = flag.String("screenshots", "", "write pictures of the page into `DIR`")

// accessible are the rules of testdata/accessibility.js.
func (p *tab) accessible(what string) {
	p.t.Helper()
	rules, err := os.ReadFile("testdata/accessibility.js")
	require.NoError(p.t, err)
	assert.Empty(p.t, p.eval(string(rules)), what)
}

// strict is a laboratory that refuses messages for good until it is told not to.
type strict struct {
	recorder
	lenient atomic.Bool
}

func (s *strict) ServeMLLP(ctx context.Context, r *mllp.Request) ([]byte, error) {
	if !s.lenient.Load() {
		return nil, &mllp.Nak{Code: mllp.AR, Text: "not today"}
	}
	return s.recorder.ServeMLLP(ctx, r)
}

func (s *strict) serve(t *testing.T) (port int) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, done := &mllp.Server{Handler: s}, make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(context.Background(), ln)
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).Port
}

// hostile is a name that would be a script, were it ever taken for markup.
const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

// ward is a hospital's engine with one of each: a channel with certificates, one whose
// destination refuses, and one with a name that means harm.
type ward struct {
	*process
	base, dir string
	in, lab   int // ports
	client    *tlsprops.TlsProperties
	ca        *testpki.Authority
	refusing  *strict
	launched  func() *process
}

func startWard(t *testing.T) *ward {
	t.Helper()
	w := &ward{dir: t.TempDir(), ca: testpki.NewCA(t, "Ward CA"), refusing: new(strict), in: freePort(t), lab: freePort(t)}
	server, client, root := w.ca.Server().Write(w.dir, "server"), w.ca.Client("modality").Write(w.dir, "client"), w.ca.Write(w.dir, "ca")
	w.client = &tlsprops.TlsProperties{Enabled: true, TrustStorePath: root, CertStorePath: client.Cert, KeyStorePath: client.Key}
	path := writeConfig(t, `certificateCheckInterval: 100ms
users:
  - {name: test, role: admin, password: `+secret+`}
  - {name: looker, role: viewer, password: `+secret+`}
channels:
  - id: adt
    name: Admissions
    source: {type: tcp, host: 127.0.0.1, port: %d, tls: {enabled: true, keyStorePath: %q, certStorePath: %q, trustStorePath: %q, requireClientCert: true}}
    destinations: [{name: archive, type: file, directory: ./archive}]
  - id: orders
    name: Orders to the laboratory
    source: {type: tcp, host: 127.0.0.1, port: %d}
    destinations:
      - {name: lab, type: tcp, host: 127.0.0.1, port: %d, queue: {onPoison: deadletter}}
      - {name: archive, type: file, directory: ./orders}
  - id: night
    name: Night reports
    initialState: STOPPED
    source: {type: channel}
    destinations: [{name: ris, type: tcp, host: 127.0.0.1, port: 9}]
  - id: "evil.1"
    name: %q
    source: {type: channel}
    destinations: [{name: file, type: file, directory: ./evil}]
`, w.in, server.Key, server.Cert, root, w.lab, w.refusing.serve(t), hostile)
	port := freePort(t)
	w.launched = func() *process { return launch(t, []string{fmt.Sprintf("PORT=%d", port)}, "-config", path) }
	w.process = w.launched()
	w.says("engine ready")
	w.base = w.api()
	return w
}

func (w *ward) send(port int, tls *tlsprops.TlsProperties, raw []byte) {
	w.t.Helper()
	_, err := dial(w.t, port, tls).Send(w.t.Context(), raw)
	require.NoError(w.t, err)
}

// signedIn opens the page and signs in.
func (w *ward) signedIn(p *tab, name string) {
	w.t.Helper()
	p.visit(w.base)
	p.enter("#username", name)
	p.enter("#password", secret)
	p.press("Enter")
	p.says(".live", "Live")
}

// The page from end to end: sign in, watch a message arrive, look into it, stop and
// start, rotate a certificate, send a dead letter again, read the log, lose the engine.
func TestPageIsTheEnginesFace(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := startWard(t)
	p := b.open()
	p.look(1280, 900, "light")

	p.visit(w.base)
	p.enter("#username", "test")
	p.enter("#password", "not this one, no")
	p.press("Enter")
	p.says(".wrong", "Invalid username or password")
	assert.Contains(t, strings.Join(p.complaints(), "\n"), "401", "which browsers note")
	p.enter("#password", secret)
	p.press("Enter")
	p.says("h1", "Channels")
	p.says("[data-channel=adt]", "none yet")
	p.says("[data-channel=night] .pill", "Stopped")

	// A message arrives, and the page shows it: nothing is loaded again.
	p.eval("window.sameDocument = true")
	w.send(w.in, w.client, []byte("MSH|^~\\&|HIS|WARD|ENGINE|LAB|20260101120000||ADT^A01^ADT_A01|FIRST-1|T|2.5\rPID|1||"+hostile+"||MARKER^PATIENT\r"))
	p.says("[data-channel=adt]", "ago")
	p.click("[data-channel=adt] a")
	p.says("h1", "Admissions")
	p.until("the message is listed as sent", `[...document.querySelectorAll("[data-message]")].some((r) => r.textContent.includes("FIRST-1") && r.textContent.includes("sent"))`)
	w.send(w.in, w.client, message("SECOND-2"))
	p.until("the next one is, without a click", `[...document.querySelectorAll("[data-message]")].some((r) => r.textContent.includes("SECOND-2"))`)

	// What is in it is shown to who asks, as text, and the asking is in the audit log.
	assert.NotContains(t, p.eval("document.documentElement.outerHTML"), "MARKER", "before anybody has asked")
	session := signIn(t, w.base, "test", secret)
	viewed := func() int {
		_, text := post(t, "GET", w.base+"/api/events", "", "X-Session-ID: "+session)
		return strings.Count(text, `"message.view"`)
	}
	assert.Zero(t, viewed())
	p.choose(`[data-message="1"] button`, "Show content")
	p.says("pre", "MARKER^PATIENT")
	assert.Contains(t, p.eval(one("pre")+".textContent"), hostile, "as text")
	assert.Equal(t, 2, viewed(), "begun and done")
	p.choose(`[data-message="1"] button`, "Hide content")
	assert.NotContains(t, p.eval("document.documentElement.outerHTML"), "MARKER")

	// Stop, with a question, and start.
	p.choose(".do button", "Stop")
	p.says("dialog", "Stop Admissions?")
	p.press("Escape")
	p.until("nothing was done", `!document.querySelector("dialog") && `+one(".do .pill")+`.textContent === "Started"`)
	p.choose(".do button", "Stop")
	p.choose("dialog button", "Stop")
	p.says(".do .pill", "Stopped")
	p.choose(".do button", "Start")
	p.says(".do .pill", "Started")
	p.choose(".do button", "Pause")
	p.choose("dialog button", "Pause")
	p.says(".do .pill", "Paused")
	p.choose(".do button", "Resume")
	p.says(".do .pill", "Started")

	// A certificate is replaced on disk.
	p.choose("nav a", "Certificates")
	p.says("h1", "Certificates")
	leaf := `[...document.querySelectorAll("[data-ends]")].find((r) => r.textContent.includes("presents"))`
	p.until("it is listed", leaf)
	before := p.eval(leaf + ".dataset.ends")
	w.ca.Issue(testpki.Options{CommonName: "localhost", Hosts: []string{"localhost", "127.0.0.1"}, NotAfter: time.Now().Add(5 * 24 * time.Hour)}).Write(w.dir, "server")
	p.until("the new one is, and how soon it ends", leaf+".dataset.ends !== "+quoted(before.(string))+" && "+leaf+".textContent.includes('4 days left')")

	// A dead letter is sent again.
	w.send(w.lab, nil, message("ORDER-3"))
	p.choose("nav a", "Dead letters")
	p.says("details", "Orders to the laboratory → lab")
	p.says("[data-message]", "ORDER-3")
	w.refusing.lenient.Store(true)
	p.choose("[data-message] button", "Send again")
	p.says(".empty", "There are no dead letters")
	eventually(t, "the laboratory has it", func() bool { return len(w.refusing.received()) == 1 })

	p.choose("nav a", "Log")
	p.says(".log", "channel stopped")
	assert.NotContains(t, p.eval("document.documentElement.outerHTML"), "MARKER")

	p.eval(`location.hash = "#/channels/evil.1"`)
	p.says("h1", hostile)
	p.choose("nav a", "Channels")
	p.says("[data-channel='evil.1']", hostile)
	assert.Equal(t, "Channels – carewire", p.eval("document.title"), "no script has run")
	assert.Equal(t, true, p.eval("window.sameDocument"))
	assert.Empty(t, p.complaints())
	p.eval(`try { document.body.innerHTML = "<b>no</b>" } catch { document.title = "Trusted Types" }`)
	assert.Equal(t, "Trusted Types", p.eval("document.title"), "markup is refused by the browser, too")
	p.complaints()

	// The engine dies: the page says so, and since when it shows the past.
	w.signal(os.Kill)
	p.says("#notice", "The connection to the engine is lost. What you see is from")
	p.says(".live", "Not live")
	w.process = w.launched()
	w.process.says("engine ready")
	p.says(".signin", "Your session has ended")
	for _, url := range b.requests() {
		if !strings.HasPrefix(url, "about:") {
			assert.Equal(t, strings.TrimPrefix(w.base, "http://"), strings.Split(url, "/")[2], "no other host is asked: %s", url)
		}
	}
}

// Somebody with the one-time password chooses another, and a viewer sees no more than
// the role allows.
func TestPageShowsWhatARoleMay(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	p := launch(t, nil, "-config", writeConfig(t, "channels: [{id: adt, source: {type: channel}, destinations: [{name: archive, type: file, directory: ./archive}]}]\n"))
	p.says("engine ready")
	password, err := os.ReadFile(filepath.Join(p.cmd.Dir, "data", "admin-password"))
	if err != nil {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(p.cmd.Args[2]), "data", "admin-password"))
		require.Len(t, found, 1)
		password, err = os.ReadFile(found[0])
	}
	require.NoError(t, err)
	tab := b.open()
	tab.visit(p.api())
	tab.enter("#username", "admin")
	tab.enter("#password", string(password))
	tab.press("Enter")
	tab.says("h1", "Choose a password")
	tab.accessible("choosing a password")
	tab.enter("#new", secret)
	tab.enter("#again", secret+"!")
	tab.press("Enter")
	tab.says(".wrong", "differ")
	tab.enter("#again", secret)
	tab.press("Enter")
	tab.says(".live", "Live")
	session := signIn(t, p.api(), "admin", secret)
	code, text := post(t, "POST", p.api()+"/api/users", `{"username": "looker", "password": "`+secret+`", "role": "viewer"}`, "X-Session-ID: "+session, "Content-Type: application/json")
	require.Equal(t, 201, code, text)
	tab.choose(".who button", "Sign out")
	tab.says(".signin", "You have signed out")
	tab.enter("#username", "looker")
	tab.enter("#password", secret)
	tab.press("Enter")
	tab.says("[data-channel=adt]", "Started")
	assert.Equal(t, "Channels Certificates", tab.eval(`[...document.querySelectorAll("nav a")].map((a) => a.textContent).join(" ")`))
	assert.Equal(t, 0.0, tab.eval(`document.querySelectorAll("[data-channel] button").length`), "nothing to stop or start")
	tab.click("[data-channel=adt] a")
	tab.says("main", "Messages are for the role operator")
}

// Every view, on a phone and on a desk, light and dark, keeps the rules of
// testdata/accessibility.js, and can be used with the keyboard alone.
func TestPageIsForEverybody(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	w := startWard(t)
	for i := range 30 {
		w.send(w.in, w.client, message(fmt.Sprintf("ADT-%04d", i)))
	}
	w.send(w.lab, nil, message("ORDER-0001"))
	w.send(w.lab, nil, message("ORDER-0002"))
	for _, look := range []struct {
		name          string
		width, height int
		scheme        string
	}{{"desk-light", 1280, 900, "light"}, {"desk-dark", 1280, 900, "dark"}, {"phone-light", 360, 740, "light"}, {"phone-dark", 360, 740, "dark"}} {
		p := b.open()
		p.look(look.width, look.height, look.scheme)
		done := func(view string) {
			t.Helper()
			p.accessible(look.name + ", " + view)
			if *screenshots != "" {
				p.eval("scrollTo(0, 0)")
				p.shot(filepath.Join(*screenshots, look.name+"-"+view+".png"))
			}
		}
		if look.name == "desk-light" {
			p.visit(w.base)
			p.until("the form has the focus", `document.activeElement?.id === "username"`)
			done("signin")
		}
		if look.name == "desk-light" {
			w.signedIn(p, "test")
			p.complaints() // of the 401 that says that nobody was
		} else {
			p.visit(w.base) // the tabs of a browser share the session
			p.says(".live", "Live")
		}
		p.says("[data-channel=orders]", "ago")
		if *screenshots != "" { // something to be seen in the plots
			for i := range 6 {
				for range i % 5 {
					w.send(w.in, w.client, message("ADT-MORE"))
				}
				p.eval("new Promise((done) => setTimeout(done, 1000))")
			}
		}
		done("channels")
		p.click("[data-channel=adt] a")
		p.until("all is there", `document.querySelectorAll("[data-message]").length > 20 && document.querySelector("[data-ends]")`)
		p.choose(`[data-message] button`, "Show content")
		p.says("pre", "MSH")
		done("channel")
		p.choose(".do button", "Stop")
		p.says("dialog", "Stop Admissions?")
		done("question")
		p.press("Escape")
		p.until("the question has gone", `!document.querySelector("dialog")`)
		p.choose("nav a", "Dead letters")
		p.says("[data-message]", "ORDER-0001")
		done("deadletters")
		p.choose("nav a", "Certificates")
		p.until("they are listed", `document.querySelectorAll("[data-ends]").length >= 2`)
		done("certificates")
		p.choose("nav a", "Log")
		p.says(".log", "engine ready")
		done("log")
		if look.name == "desk-light" || look.name == "phone-light" {
			w.keyboard(p)
		}
		assert.Empty(t, p.complaints(), look.name)
	}
}

// keyboard goes through a view with the Tab key: every control gets the focus, in the
// order in which they stand, and shows it.
func (w *ward) keyboard(p *tab) {
	p.choose("nav a", "Channels")
	p.says("[data-channel=orders]", "ago")
	const controls = `[...document.querySelectorAll("a[href], button, input, select")].filter((e) => e.checkVisibility() && !e.disabled)`
	n := int(p.eval(controls + ".length").(float64))
	p.eval("document.activeElement.blur(); window.scrollTo(0, 0)")
	p.eval(`document.querySelector(".skip").focus()`)
	for i := range n {
		at := fmt.Sprintf(`(() => {
			const e = document.activeElement, style = getComputedStyle(e);
			return {place: %s.indexOf(e), seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2, what: e.outerHTML.slice(0, 100)};
		})()`, controls)
		state := p.eval(at).(object)
		assert.Equal(w.t, float64(i), state["place"], "in their order: %v", state["what"])
		assert.Equal(w.t, true, state["seen"], "the focus is seen: %v", state["what"])
		p.press("Tab")
	}
	// A channel is stopped and started without a mouse, and the focus comes back.
	p.eval(`document.querySelector("[data-channel=adt] button").focus()`)
	p.press("Enter")
	p.says("dialog", "Stop Admissions?")
	p.press("Tab")
	p.press("Enter")
	p.says("[data-channel=adt] .pill", "Stopped")
	p.until("the focus is where it was", `document.activeElement?.closest("[data-channel]")?.dataset.channel === "adt" && document.activeElement.textContent === "Start"`)
	p.press(" ")
	p.says("[data-channel=adt] .pill", "Started")
}

// Two hundred channels are two hundred rows that keep up.
func TestPageShowsTwoHundredChannels(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	var text strings.Builder
	text.WriteString("users: [{name: test, role: admin, password: " + secret + "}]\nchannels:\n")
	for i := range 200 {
		fmt.Fprintf(&text, "  - {id: c%03d, name: Channel %03d, source: {type: channel}, destinations: [{name: archive, type: file, directory: ./archive%d}]}\n", i, i, i)
	}
	path := filepath.Join(t.TempDir(), "engine.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o600))
	p := launch(t, nil, "-config", path)
	p.says("engine ready")
	tab := b.open()
	tab.look(1280, 900, "light")
	(&ward{process: p, base: p.api()}).signedIn(tab, "test")
	tab.until("all are there", `document.querySelectorAll("[data-channel]").length === 200`)
	session := signIn(t, p.api(), "test", secret)
	for i := range 200 {
		code, answer := post(t, "POST", fmt.Sprintf("%s/api/channels/c%03d/messages", p.api(), i), string(message("M1")), "X-Session-ID: "+session, "Content-Type: text/plain")
		require.Equal(t, 200, code, answer)
	}
	tab.until("each shows its message", `[...document.querySelectorAll("[data-channel]")].every((r) => r.textContent.includes("ago"))`)
	tab.enter("#filter", "channel 17")
	tab.until("ten are left", `[...document.querySelectorAll("[data-channel]")].filter((r) => !r.hidden).length === 10`)
	tab.accessible("two hundred channels")
	if *screenshots != "" {
		tab.enter("#filter", " ")
		tab.shot(filepath.Join(*screenshots, "two-hundred.png"))
		var cost struct {
			Metrics []struct {
				Name  string
				Value float64
			}
		}
		tab.do("Performance.enable", object{}, nil)
		tab.eval("new Promise((done) => setTimeout(done, 10_000))")
		tab.do("Performance.getMetrics", object{}, &cost)
		text, _ := json.Marshal(cost.Metrics)
		t.Logf("%s", text)
	}
}
