package mirth

import (
	"mime"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
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
	c.headers("headers", "Authorization", "Content-Length", "Content-Type", "Host", "Transfer-Encoding")
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

// headers reads headers under a name, but for those that the engine makes, sets them
// and returns them.
func (c *connector) headers(at string, reserved ...string) (taken []pair) {
	n := c.props.child(at)
	if n == nil {
		return nil
	}
	c.used[n] = true
	var list []block
	seen := make(map[string]bool)
	for _, e := range n.entries() {
		name := textproto.CanonicalMIMEHeaderKey(e.key)
		switch {
		case e.key == "" && e.value == "":
		case name == "Content-Type":
			c.changed(at, "hold a Content-Type: contentType is sent")
		case slices.Contains(reserved, name):
			c.lost(at, "hold one that is not set so here: credentials have keys of their own")
		case !isToken(e.key) || hasReference(e.value) || strings.ContainsFunc(e.value, isControl):
			c.lost(at, "hold one with a variable of Mirth's, or that is none")
		case seen[name]:
			c.lost(at, "hold one of several values: the first is sent")
		default:
			seen[name] = true
			taken = append(taken, e)
			list = append(list, block{{"name", e.key}, {"value", e.value}})
		}
	}
	if len(list) > 0 {
		c.out.set(at, list)
	}
	return taken
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

// httpListener reads an HTTP Listener.
func (c *connector) httpListener() {
	if c.sourceProperties() {
		c.changed("sourceConnectorProperties.responseVariable", "an answer has no body here: its status says whether the message is stored")
	}
	host, port := c.listener(80)
	c.out.set("host", host)
	c.out.set("port", port)
	c.ch.port = port
	context := "/" + strings.Trim(c.fixed("contextPath"), "/")
	if strings.ContainsAny(context, `?#%\`) {
		c.refuse("contextPath", "is not a path")
	}
	c.out.set("contextPath", context)
	c.info("contextPath", "is the whole path here, and only POST and PUT bring a message")
	if name := c.take("charset"); name != "" {
		if set, known := charsets[strings.ToUpper(name)]; known {
			c.out.set("charset", set)
		} else {
			c.lost("charset", "is a character set that the engine does not convert")
		}
	}
	if t := c.millis("timeout", 30*time.Second, time.Hour); t > 0 {
		c.out.set("timeout", t)
	}
	c.expect(Lost, "xmlBody", "the message is the body of the request, not XML around it", "false")
	c.expect(Lost, "includeMetadata", "the message is the body of the request, not XML around it", "false")
	c.maps("staticResources", "the engine serves no files")
	c.expect(Info, "binaryMimeTypes", "bodies stay the bytes that they are: none becomes base64")
	c.httpAnswer()
	c.skip("parseMultipart", "binaryMimeTypesRegex", "responseDataTypeBinary", "responseHeadersVariable")
	c.common()
}

// httpAnswer reads what an HTTP Listener answers.
func (c *connector) httpAnswer() {
	if c.take("responseStatusCode") != "" {
		c.out.set("responseStatusCode", c.number("responseStatusCode", 200, 200, 299))
	}
	if text := c.fixed("responseContentType"); text != "" {
		if _, _, err := mime.ParseMediaType(text); err != nil {
			c.refuse("responseContentType", "is not a content type")
		}
		c.out.set("responseContentType", text)
	}
	c.expect(Lost, "useResponseHeadersVariable", "headers come from a map of Mirth's", "false")
	c.headers("responseHeaders", "Content-Length", "Transfer-Encoding", "Connection", "Date")
}
