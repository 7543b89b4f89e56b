package mirth

import (
	"strings"
	"time"
)

// readSource reads a channel's source.
func (ch *channel) readSource(n *node) {
	c := &connector{ch: ch, name: n.child("name").str(), props: n.child("properties"), used: make(map[*node]bool)}
	if c.props == nil {
		c.props = new(node)
	}
	c.steps(n)
	switch transport := n.child("transportName").str(); transportOf(transport, c.props.class) {
	case "tcp listener", "mllp listener", "llp listener":
		ch.kind = "tcp"
		c.out.set("type", ch.kind)
		c.tcpListener()
	case "dicom listener":
		ch.kind = "dicom"
		c.out.set("type", ch.kind)
		c.dicomListener()
	case "http listener":
		ch.kind = "http"
		c.out.set("type", ch.kind)
		c.httpListener()
	case "channel reader":
		ch.kind = "channel"
		c.out.set("type", ch.kind)
		c.sourceProperties()
		c.common()
	default:
		// Its properties are of no use where there is nothing like it.
		c.refuse("transportName", "is a source that this version of the engine does not have")
		c.out.set("type", "unknown")
	}
	if n.child("enabled").str() == "false" {
		c.refuse("enabled", "is false: a source that is off takes nothing in")
	}
	ch.source = c.out
	ch.refused = ch.refused || c.refused
}

// transportOf names a transport in lower case, from its class where the name is not
// there.
func transportOf(name, class string) string {
	if name != "" {
		return strings.ToLower(name)
	}
	_, short, _ := strings.Cut(class, "connectors.")
	return map[string]string{
		"tcp.TcpReceiverProperties": "tcp listener", "tcp.TcpDispatcherProperties": "tcp sender",
		"dimse.DICOMReceiverProperties": "dicom listener", "dimse.DICOMDispatcherProperties": "dicom sender",
		"vm.VmReceiverProperties": "channel reader", "vm.VmDispatcherProperties": "channel writer",
		"http.HttpReceiverProperties": "http listener", "http.HttpDispatcherProperties": "http sender", "smtp.SmtpDispatcherProperties": "smtp sender", "file.FileDispatcherProperties": "file writer",
	}[short]
}

// common is what every connector ends with.
func (c *connector) common() {
	if n := c.props.child("pluginProperties"); n != nil {
		c.used[n] = true
		for _, k := range n.kids {
			switch {
			case k.empty(), k.child("enabled").str() == "false", strings.Contains(k.name, "NoneHttpAuthProperties"), k.child("authType").str() == "NONE":
			case strings.Contains(strings.ToLower(k.name+k.class), "ssl"):
				// Without TLS it must not run by a flag.
				c.refuse("pluginProperties", "hold settings of TLS of a plugin: write the connector by hand, with tls; carewire keystore mirth has the keys")
			case strings.Contains(strings.ToLower(k.name+k.class), "auth"):
				c.refuse("pluginProperties", "hold how senders prove who they are: write the source by hand, with useAuthentication")
			default:
				c.lost("pluginProperties", "are of a plugin that is not here")
			}
		}
	}
	c.skip("name", "protocol")
	c.rest()
}

// sourceProperties reads what all sources have, and tells whether they answer.
func (c *connector) sourceProperties() (answers bool) {
	const at = "sourceConnectorProperties."
	c.skip(at+"queueBufferSize", at+"firstResponse", at+"respondAfterProcessing")
	c.expect(Changed, at+"processingThreads", "messages of a connection are taken in one after the other here: see orderKey and parallel", "1")
	c.expect(Lost, at+"processBatch", "batches are not taken apart as Mirth does it: see batches in docs/tcp.md", "false")
	variable := c.take(at + "responseVariable")
	if variable == "" {
		variable = c.take("responseMode") // of Node.js
	}
	switch strings.ToLower(variable) {
	case "none":
		return false
	case "", "auto", "auto-generate (before processing)", "auto-generate (after source transformer)":
	case "auto-generate (destinations completed)":
		c.changed(at+"responseVariable", "AA says here that the message is stored, not that destinations have it")
	default:
		c.lost(at+"responseVariable", "the answer of a destination or of a script cannot be waited for: senders get the engine's own acknowledgement")
	}
	return true
}

// listener reads where a source listens.
func (c *connector) listener(port int) (string, int) {
	const at = "listenerConnectorProperties."
	// Some exports have both beside the others.
	hostAt, portAt := at+"host", at+"port"
	if c.props.child("listenerConnectorProperties") == nil {
		hostAt, portAt = "host", "port"
	}
	return c.host(hostAt), c.number(portAt, port, 1, 65535)
}

// tcpListener reads a TCP Listener.
func (c *connector) tcpListener() {
	answers := c.sourceProperties()
	listens := c.flag("serverMode", true)
	if listens {
		host, port := c.listener(6661)
		c.out.set("host", host)
		c.out.set("port", port)
		c.ch.port = port
		if n := c.number("maxConnections", 10, 1, 1_000_000); !c.refused {
			c.out.set("maxConnections", n)
			c.out.set("maxConnectionsPerHost", n)
		}
		c.skip("remoteAddress", "remotePort", "overrideLocalBinding", "reconnectInterval")
	} else {
		c.out.set("serverMode", "CLIENT")
		c.out.set("remoteAddress", c.host("remoteAddress"))
		c.out.set("remotePort", c.number("remotePort", 0, 1, 65535))
		if c.take("remotePort") == "" {
			c.refuse("remotePort", "is missing")
		}
		c.expect(Info, "overrideLocalBinding", "a source that connects does so from the address that the system likes", "false")
		c.expect(Info, "reconnectInterval", "the engine connects again after a random time, doubled up to 30 s", "5000")
		c.skip("maxConnections", "listenerConnectorProperties.host", "listenerConnectorProperties.port")
	}
	keep := c.flag("keepConnectionOpen", true)
	c.framing(keep)
	c.charset("charsetEncoding", true)
	c.expect(Lost, "dataTypeBinary", "messages stay the bytes that they are: they are not turned into base64", "false")
	if t := c.millis("receiveTimeout", 0, 7*24*time.Hour); t > 0 {
		c.out.set("receiveTimeout", t)
		if keep {
			c.changed("receiveTimeout", "ends a silent connection here, which Mirth keeps")
		}
	}
	c.skip("bufferSize")
	c.answersOn(answers)
	c.info("tls", "Mirth's TCP Listener has no TLS, and this source has none either: docs/tcp.md says how to set it")
	c.common()
}

// answersOn reads how a TCP Listener answers.
func (c *connector) answersOn(answers bool) {
	where := c.number("respondOnNewConnection", 0, 0, 2)
	switch {
	case !answers && c.mode == "MLLPv2":
		c.refuse("sourceConnectorProperties.responseVariable", "is None, but in MLLP release 2 each message is committed to its sender")
	case !answers:
		c.out.set("responseMode", "NONE")
		c.skip("responseAddress", "responsePort")
	case where == 0:
		c.skip("responseAddress", "responsePort")
	case c.mode == "MLLPv2":
		c.refuse("respondOnNewConnection", "cannot be used with MLLP release 2, which has answers of its own")
	case c.take("responseAddress") == "" || c.take("responsePort") == "":
		c.refuse("responseAddress", "is empty, with which Mirth answers whoever has connected: here it must be said where answers go")
	default:
		c.out.set("respondOnNewConnection", where)
		c.out.set("responseAddress", c.host("responseAddress"))
		c.out.set("responsePort", c.number("responsePort", 0, 1, 65535))
	}
}
