package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
)

// browser is a headless Chromium, driven through the Chrome DevTools Protocol. What the
// tests need of that is a WebSocket, which the engine links already, and ten calls: a
// library for it would bring four thousand generated types.
type browser struct {
	t    *testing.T
	conn *websocket.Conn

	mu      sync.Mutex
	last    int                        // guarded by mu
	waiting map[int]chan protocolReply // guarded by mu; by the number of the call
	wrong   []string                   // guarded by mu; exceptions and errors in the page's console
	asked   []string                   // guarded by mu; the URLs of requests
}

type protocolReply struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// browserTime bounds a call, and what is waited for in a page.
const browserTime = time.Minute

// startBrowser starts a browser that ends with the test.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	path := interop.Need(t, "chromium")
	profile := t.TempDir()
	// Root may run it in CI, where it has no sandbox, and sees nothing but this test.
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars",
		"--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
		"--remote-debugging-port=0", "--user-data-dir="+profile, "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it has children of its own
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	address, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if _, url, found := strings.Cut(lines.Text(), "DevTools listening on "); found {
				address <- url
			}
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		<-ended
	})
	b := &browser{t: t, waiting: make(map[int]chan protocolReply)}
	select {
	case url := <-address:
		ctx, cancel := context.WithTimeout(t.Context(), browserTime)
		defer cancel()
		b.conn, _, err = websocket.Dial(ctx, url, nil) //nolint:bodyclose // a WebSocket's has none
		require.NoError(t, err)
	case <-ended:
		t.Fatal("chromium has ended before it could be driven")
	case <-time.After(browserTime):
		t.Fatal("chromium does not say where it can be driven")
	}
	b.conn.SetReadLimit(64 << 20) // a screenshot
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read()
	}()
	t.Cleanup(func() {
		_ = b.conn.CloseNow()
		<-read
	})
	return b
}

// read takes answers to who waits for them, and notes what a page complains of.
func (b *browser) read() {
	for {
		_, text, err := b.conn.Read(context.Background())
		if err != nil {
			b.mu.Lock()
			for id, reply := range b.waiting {
				reply <- protocolReply{Error: &struct{ Message string }{err.Error()}}
				delete(b.waiting, id)
			}
			b.waiting = nil
			b.mu.Unlock()
			return
		}
		var reply protocolReply
		if json.Unmarshal(text, &reply) != nil {
			continue
		}
		b.mu.Lock()
		if to, ok := b.waiting[reply.ID]; ok {
			to <- reply
			delete(b.waiting, reply.ID)
		}
		switch reply.Method {
		case "Runtime.exceptionThrown":
			b.wrong = append(b.wrong, string(reply.Params))
		case "Log.entryAdded":
			var p struct {
				Entry struct{ Level, Source, Text, URL string }
			}
			_ = json.Unmarshal(reply.Params, &p)
			b.wrong = append(b.wrong, fmt.Sprintf("%s: %s: %s %s", p.Entry.Source, p.Entry.Level, p.Entry.Text, p.Entry.URL))
		case "Network.requestWillBeSent", "Network.webSocketCreated":
			var p struct {
				URL     string
				Request struct{ URL string }
			}
			_ = json.Unmarshal(reply.Params, &p)
			b.asked = append(b.asked, p.URL+p.Request.URL)
		}
		b.mu.Unlock()
	}
}

// complaints returns what pages have complained of since the last call.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	wrong := b.wrong
	b.wrong = nil
	return wrong
}

// requests returns the URLs of all requests.
func (b *browser) requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

func (b *browser) call(session, method string, params, result any) error {
	b.mu.Lock()
	if b.waiting == nil {
		b.mu.Unlock()
		return errors.New("the browser has gone")
	}
	b.last++
	id, reply := b.last, make(chan protocolReply, 1)
	b.waiting[id] = reply
	b.mu.Unlock()
	message := map[string]any{"id": id, "method": method, "params": params}
	if session != "" {
		message["sessionId"] = session
	}
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), browserTime)
	defer cancel()
	if err := b.conn.Write(ctx, websocket.MessageText, text); err != nil {
		return err
	}
	select {
	case r := <-reply:
		if r.Error != nil {
			return fmt.Errorf("%s: %s", method, r.Error.Message)
		}
		if result != nil {
			return json.Unmarshal(r.Result, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// tab is a page in a browser.
type tab struct {
	*browser
	session string
}

type object = map[string]any

// open opens a tab.
func (b *browser) open() *tab {
	b.t.Helper()
	var target struct{ TargetID string }
	require.NoError(b.t, b.call("", "Target.createTarget", object{"url": "about:blank"}, &target))
	var attached struct{ SessionID string }
	require.NoError(b.t, b.call("", "Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &attached))
	tab := &tab{b, attached.SessionID}
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		tab.do(domain+".enable", object{}, nil)
	}
	return tab
}

func (p *tab) do(method string, params object, result any) {
	p.t.Helper()
	require.NoError(p.t, p.call(p.session, method, params, result))
}

// look sets the window's width and height, and the colours that its user prefers.
func (p *tab) look(width, height int, scheme string) {
	p.t.Helper()
	p.do("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	p.do("Emulation.setEmulatedMedia", object{"features": []object{
		{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
	}}, nil)
}

// visit loads the page, and loads it again where a file of it was lost: the server hangs
// up on a browser that takes more than five seconds to ask, as one does on a machine
// that has no time for it.
func (p *tab) visit(url string) {
	p.t.Helper()
	for end := time.Now().Add(browserTime); ; {
		p.do("Page.navigate", object{"url": url}, nil)
		for again := time.Now().Add(15 * time.Second); time.Now().Before(again); time.Sleep(20 * time.Millisecond) {
			if p.eval(`Boolean(document.querySelector(".signin, .live"))`) == true {
				return
			}
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s does not load: %v", url, p.complaints())
		}
	}
}

// eval runs JavaScript, an expression, in the page, and returns its value; of a promise,
// what it comes to.
func (p *tab) eval(expression string) any {
	p.t.Helper()
	var result struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	p.do("Runtime.evaluate", object{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &result)
	if e := result.ExceptionDetails; e != nil {
		p.t.Fatalf("%s: %s %s", expression, e.Text, e.Exception.Description)
	}
	return result.Result.Value
}

// until waits until an expression is true in the page.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	for end := time.Now().Add(browserTime); p.eval("Boolean("+expression+")") != true; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.shot(filepath.Join(p.t.ArtifactDir(), "failed.png"))
			p.t.Fatalf("not in %v: %s\nThe page says:\n%s", browserTime, what, p.eval("document.body.innerText"))
		}
	}
}

// quoted is a text in JavaScript.
func quoted(text string) string {
	js, _ := json.Marshal(text)
	return string(js)
}

// one is the element that a selector finds.
func one(selector string) string { return "document.querySelector(" + quoted(selector) + ")" }

// says waits until an element's text has some words in it.
func (p *tab) says(selector, words string) {
	p.t.Helper()
	p.until(selector+" says "+words, one(selector)+"?.textContent.includes("+quoted(words)+")")
}

// click waits for an element that can be clicked, and clicks it.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.until(selector+" can be clicked", one(selector)+"?.checkVisibility() && !"+one(selector)+".disabled")
	p.eval(one(selector) + ".click()")
}

// choose clicks the one of several elements that says some words.
func (p *tab) choose(selector, words string) {
	p.t.Helper()
	found := fmt.Sprintf("[...document.querySelectorAll(%s)].find((e) => e.checkVisibility() && !e.disabled && e.textContent.includes(%s))", quoted(selector), quoted(words))
	p.until(selector+" with "+words, found)
	p.eval(found + ".click()")
}

// enter types into a field.
func (p *tab) enter(selector, words string) {
	p.t.Helper()
	p.until(selector+" is there", one(selector)+"?.checkVisibility()")
	p.eval(one(selector) + ".select()")
	p.do("Input.insertText", object{"text": words}, nil)
}

// press presses a key.
func (p *tab) press(key string) {
	p.t.Helper()
	code := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}[key]
	text := map[string]string{"Enter": "\r", " ": " "}[key]
	p.do("Input.dispatchKeyEvent", object{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}, nil)
	p.do("Input.dispatchKeyEvent", object{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code}, nil)
}

// shot writes a picture of the whole page.
func (p *tab) shot(path string) {
	p.t.Helper()
	var picture struct{ Data string }
	p.do("Page.captureScreenshot", object{"format": "png", "captureBeyondViewport": true}, &picture)
	data, err := base64.StdEncoding.DecodeString(picture.Data)
	require.NoError(p.t, err)
	require.NoError(p.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(p.t, os.WriteFile(path, data, 0o600))
}
