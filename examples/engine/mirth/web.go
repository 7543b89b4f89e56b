package mirth

import (
	"io"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carewire/carewire/smtpx"
)

// httpSender reads an HTTP Sender.
func (c *connector) httpSender() {
	host := c.url()
	c.out.set("host", host)
	method := strings.ToUpper(c.fixed("method"))
	if method == "" {
		method = "POST"
	}
	if !isToken(method) {
		c.refuse("method", "is not a method of HTTP")
	}
	c.out.set("method", method)
	contentType := c.fixed("contentType")
	if contentType == "" {
		contentType = "text/plain"
	}
	c.out.set("contentType", contentType)
	c.expect(Changed, "charset", "the body is the bytes of the message, in the set in which it came", "UTF-8")
	switch content, ok := templateOf(c.raw("content")); {
	case content == "" && ok:
		c.lost("content", "is empty: here a request has a body, the message")
	case !ok:
		c.lost("content", "holds what is not here: the body is the message")
	case content != "${message.raw}":
		c.out.set("content", content)
	}
	c.headers("Authorization", "Content-Length", "Content-Type", "Host", "Transfer-Encoding")
	c.maps("parameters", "are not sent: write what is fixed of them into the URL")
	c.expect(Lost, "useHeadersVariable", "headers come from a map of Mirth's", "false")
	c.expect(Lost, "useParametersVariable", "parameters come from a map of Mirth's", "false")
	c.expect(Lost, "multipart", "requests are not multipart here", "false")
	c.expect(Lost, "dataTypeBinary", "messages are not base64 that would have to be turned into bytes", "false")
	c.webAuthentication(host)
	if c.flag("useProxyServer", false) {
		proxy := c.host("proxyAddress")
		c.out.set("proxyUrl", "http://"+net.JoinHostPort(proxy, strconv.Itoa(c.number("proxyPort", 8080, 1, 65535))))
	} else {
		c.out.set("proxyUrl", "none")
		c.skip("proxyAddress", "proxyPort")
	}
	timeout := c.millis("socketTimeout", 30*time.Second, time.Hour)
	if timeout == 0 {
		timeout = time.Hour
		c.changed("socketTimeout", "is 0, which in Mirth is for ever: 1 h here")
	}
	c.out.set("responseTimeout", timeout)
	c.expect(Info, "overrideLocalBinding", "requests come from the address that the system likes", "false")
	c.skip("localAddress", "headersVariable", "parametersVariable", "usePreemptiveAuthentication",
		"responseXmlBody", "responseParseMultipart", "responseIncludeMetadata", "responseBinaryMimeTypes", "responseBinaryMimeTypesRegex")
	c.common()
}

// url returns where an HTTP Sender sends.
func (c *connector) url() string {
	text := c.fixed("host")
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.Fragment != "" || u.User != nil {
		if !c.refused {
			c.refuse("host", "is not a URL to send to, http:// or https://, without credentials and fragment")
		}
		return ""
	}
	return text
}

func (c *connector) webAuthentication(host string) {
	if !c.flag("useAuthentication", false) {
		c.skip("username", "password", "authenticationType")
		return
	}
	kind := c.take("authenticationType")
	if kind == "" {
		kind = "Basic"
	}
	if kind != "Basic" && kind != "Digest" {
		c.refuse("authenticationType", "is neither Basic nor Digest")
		return
	}
	if u, err := url.Parse(host); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		c.refuse("useAuthentication", "would send a password in the clear: it is sent over https:// only")
		return
	}
	c.out.set("useAuthentication", true)
	c.out.set("authenticationType", kind)
	c.credentials()
}

// credentials reads username and password, which must be there.
func (c *connector) credentials() {
	user := c.fixed("username")
	if user == "" || c.take("password") == "" {
		if !c.refused {
			c.refuse("username", "or password is missing")
		}
		return
	}
	c.out.set("username", user)
	c.secret("password", "password")
}

// headers reads the headers of a request or a mail, but for those that the engine
// makes.
func (c *connector) headers(reserved ...string) {
	n := c.props.child("headers")
	if n == nil {
		return
	}
	c.used[n] = true
	var list []block
	seen := make(map[string]bool)
	for _, e := range n.entries() {
		name := textproto.CanonicalMIMEHeaderKey(e.key)
		switch {
		case e.key == "" && e.value == "":
		case name == "Content-Type":
			c.changed("headers", "hold a Content-Type: contentType is sent")
		case slices.Contains(reserved, name):
			c.lost("headers", "hold one that is not set so here: credentials have keys of their own")
		case !isToken(e.key) || hasReference(e.value) || strings.ContainsFunc(e.value, isControl):
			c.lost("headers", "hold one with a variable of Mirth's, or that is none")
		case seen[name]:
			c.lost("headers", "hold one of several values: the first is sent")
		default:
			seen[name] = true
			list = append(list, block{{"name", e.key}, {"value", e.value}})
		}
	}
	if len(list) > 0 {
		c.out.set("headers", list)
	}
}

// maps reports a map in which there is something.
func (c *connector) maps(name, why string) {
	if n := c.props.child(name); n != nil {
		c.used[n] = true
		if !n.empty() {
			c.lost(name, why)
		}
	}
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// smtpSender reads an SMTP Sender.
func (c *connector) smtpSender() {
	host := c.host("smtpHost")
	c.out.set("smtpHost", host)
	c.out.set("smtpPort", c.number("smtpPort", 25, 1, 65535))
	encryption := strings.ToLower(c.take("encryption"))
	if encryption == "" {
		encryption = "none"
	}
	if !slices.Contains([]string{"none", "tls", "ssl"}, encryption) {
		c.refuse("encryption", "is none of none, TLS and SSL")
	}
	if encryption == "tls" {
		c.changed("encryption", "is STARTTLS or nothing here: Mirth sends in the clear to a server without it")
	}
	c.out.set("encryption", encryption)
	mail := &smtpx.Message{Headers: make(map[string]string)}
	for _, p := range []string{"from", "to", "cc", "bcc", "replyTo"} {
		text := c.fixed(p)
		if text == "" {
			continue
		}
		c.out.set(p, text)
		list := strings.Split(text, ",")
		switch p {
		case "from":
			mail.From = text
		case "to":
			mail.To = list
		case "cc":
			mail.Cc = list
		case "bcc":
			mail.Bcc = list
		case "replyTo":
			mail.ReplyTo = list
		}
	}
	mail.Subject = c.line("subject")
	if mail.Subject != "" {
		c.out.set("subject", mail.Subject)
	}
	c.mailBody(mail)
	c.headers()
	c.mailHeaders(mail)
	if c.flag("authentication", false) {
		if encryption == "none" {
			c.refuse("authentication", "would send a password in the clear: it goes with TLS and SSL only")
		}
		c.out.set("authentication", true)
		c.credentials()
	} else {
		c.skip("username", "password")
	}
	if t := c.millis("timeout", 5*time.Second, time.Hour); t > 0 {
		c.out.set("timeout", t)
	}
	c.maps("attachments", "are not imported: write them by hand, see docs/http-smtp.md")
	c.expect(Lost, "isUseHeadersVariable", "headers come from a map of Mirth's", "false")
	c.expect(Lost, "isUseAttachmentsVariable", "attachments come from a map of Mirth's", "false")
	c.expect(Info, "overrideLocalBinding", "mails come from the address that the system likes", "false")
	c.expect(Info, "charsetEncoding", "mails are UTF-8", "DEFAULT_ENCODING", "UTF-8")
	c.skip("localAddress", "localPort", "headersVariable", "attachmentsVariable", "dataType")
	if !c.refused {
		if _, err := mail.WriteTo(io.Discard); err != nil {
			c.refuse("from", "or another address or header of the mail cannot be sent so")
		}
	}
	c.common()
}

// line returns a text of one line that is the same for every message.
func (c *connector) line(path string) string {
	text := c.take(path)
	if hasReference(text) || strings.ContainsFunc(text, isControl) {
		c.lost(path, "holds a variable of Mirth's: it is left out")
		return ""
	}
	return text
}

func (c *connector) mailBody(mail *smtpx.Message) {
	isHTML := c.flag("html", false)
	body, ok := templateOf(c.raw("body"))
	if !ok {
		c.lost("body", "holds a variable of Mirth's: it is left out")
		body = ""
	}
	if isHTML {
		c.out.set("html", true)
		mail.HTML = string(body)
		if strings.Contains(string(body), "${message.raw}") {
			c.changed("body", "a message stands for its characters in HTML here")
		}
	} else {
		mail.Text = string(body)
	}
	if body != "" {
		c.out.set("body", body)
	}
}

func (c *connector) mailHeaders(mail *smtpx.Message) {
	list, _ := c.out.get("headers")
	blocks, _ := list.([]block)
	for _, b := range blocks {
		name, _ := b.get("name")
		value, _ := b.get("value")
		mail.Headers[name.(string)] = value.(string) //nolint:errcheck,revive // headers sets strings
	}
}
