package mirth

import (
	"regexp"
	"strings"
	"time"
)

var hexBytes = regexp.MustCompile(`^(?:[0-9A-F]{2}){0,32}$`)

// framing reads how messages are told apart on a connection.
func (c *connector) framing(keep bool) {
	const at = "transmissionModeProperties."
	class := strings.ToLower(c.props.at("transmissionModeProperties").className())
	mode, start, end := c.take(at+"pluginPointName"), strings.ToUpper(c.take(at+"startOfMessageBytes")), strings.ToUpper(c.take(at+"endOfMessageBytes"))
	two := c.flag(at+"useMLLPv2", false)
	bytes := c.props.at("transmissionModeProperties.startOfMessageBytes") != nil || c.props.at("transmissionModeProperties.endOfMessageBytes") != nil
	if mode == "" && (!bytes || strings.Contains(class, "mllp") || start == "0B" && end == "1C0D") {
		mode = "MLLP" // as in Mirth, where nothing is said
	}
	if !bytes {
		start, end = "0B", "1C0D"
	}
	if !hexBytes.MatchString(start) || !hexBytes.MatchString(end) {
		c.refuse(at+"startOfMessageBytes", "and endOfMessageBytes must be up to 32 bytes in hexadecimal")
		return
	}
	switch {
	case mode == "MLLP" && two:
		c.release2(at)
		mode = "MLLPv2"
	case mode == "MLLP" && start == "0B" && end == "1C0D":
	case mode == "MLLP", mode == "Basic" && bytes && end != "", mode == "" && end != "":
		mode = "FRAME"
	case mode == "Basic" || mode == "":
		mode = "RAW"
	default:
		c.refuse(at+"pluginPointName", "is a transmission mode that is not here")
		return
	}
	c.skip(at+"ackBytes", at+"nackBytes", at+"maxRetries", at+"name")
	c.out.set("transmissionMode", mode)
	c.mode = mode
	switch mode {
	case "FRAME":
		c.frame(at, start, end)
	case "RAW":
		c.changed(at+"endOfMessageBytes", "is empty: here it is chosen what ends a message, the end of the connection where it carries one, silence else")
		if !keep {
			c.out.set("delimiter", "eof")
			break
		}
		c.out.set("delimiter", "idle")
	}
	c.out.set("keepConnectionOpen", keep)
}

func (n *node) className() string {
	if n == nil {
		return ""
	}
	return n.class
}

// release2 reads what MLLP release 2 has.
func (c *connector) release2(at string) {
	c.expect(Lost, at+"ackBytes", "commits are 06 here", "06")
	c.expect(Lost, at+"nackBytes", "and negative commits 15", "15")
	if n := c.number(at+"maxRetries", 2, 0, 1000); n > 0 {
		c.out.set("maxRetries", n)
	} else {
		c.out.set("maxRetries", 1000)
		c.changed(at+"maxRetries", "is 0, which in Mirth is for ever: 1000 here")
	}
}

func (c *connector) frame(at, start, end string) {
	switch {
	case end == "":
		c.refuse(at+"endOfMessageBytes", "is empty: nothing would end a message")
	case start != "" && (strings.Contains(start, end) || strings.Contains(end, start)):
		c.refuse(at+"endOfMessageBytes", "holds startOfMessageBytes, or is held by it: the end of a frame would look like its start")
	}
	if start != "" {
		c.out.set("startOfMessageBytes", start)
	}
	c.out.set("endOfMessageBytes", end)
}

// charsets are those that the engine converts, by Mirth's names.
var charsets = map[string]string{
	"US-ASCII": "ASCII", "ASCII": "ASCII", "UTF-8": "UTF-8", "ISO-8859-1": "ISO-8859-1", "ISO-8859-2": "ISO-8859-2", "ISO-8859-5": "ISO-8859-5",
	"ISO-8859-7": "ISO-8859-7", "ISO-8859-9": "ISO-8859-9", "ISO-8859-15": "ISO-8859-15",
}

// charset reads a character set. Sources note it, destinations convert to it.
func (c *connector) charset(path string, source bool) {
	name := strings.ToUpper(c.take(path))
	set, known := charsets[name]
	switch {
	case name == "" || name == "DEFAULT_ENCODING":
		c.info(path, "is that of the machine in Mirth: here messages stay the bytes that they are, and are read as MSH-18 says")
	case !known:
		c.lost(path, "is a character set that the engine does not convert")
	case source:
		c.out.set("charsetEncoding", set)
		c.info(path, "is noted with the message for destinations that convert: the bytes stay as they came")
	default:
		c.out.set("charsetEncoding", set)
		c.changed(path, "goes into MSH-18, too; a message with characters that the set does not have is set aside, not sent with question marks")
	}
}

// tcpSender reads a TCP Sender. queued tells whether it has a queue in Mirth.
func (c *connector) tcpSender(queued bool) {
	if c.flag("serverMode", false) {
		c.refuse("serverMode", "a destination that waits for receivers to connect is not here")
	}
	host, port := "remoteAddress", "remotePort"
	if c.props.child(host) == nil {
		host, port = "host", "port" // of Node.js
	}
	c.out.set("host", c.host(host))
	c.out.set("port", c.number(port, 6660, 1, 65535))
	if c.flag("overrideLocalBinding", false) {
		if local := c.host("localAddress"); local != "" {
			c.out.set("localAddress", local)
		}
		if n := c.number("localPort", 0, 0, 65535); n != 0 {
			c.out.set("localPort", n)
		}
	} else {
		c.skip("localAddress", "localPort")
	}
	keep := c.flag("keepConnectionOpen", false)
	c.framing(keep)
	if idle := c.millis("sendTimeout", 5*time.Second, 24*time.Hour); keep && idle > 0 {
		c.out.set("sendTimeout", idle)
	}
	c.responses(queued)
	if c.mode == "MLLP" || c.mode == "MLLPv2" {
		c.charset("charsetEncoding", false)
	} else {
		c.expect(Changed, "charsetEncoding", "messages without MLLP are sent as they came", "DEFAULT_ENCODING")
	}
	c.expect(Lost, "dataTypeBinary", "messages are not base64 that would have to be turned into bytes", "false")
	c.wholeMessage("template")
	c.skip("bufferSize", "maxConnections", "checkRemoteHost")
	c.info("tls", "Mirth's TCP Sender has no TLS, and this destination has none either: docs/tcp.md says how to set it")
	c.common()
}

// responses reads what a TCP Sender makes of answers.
func (c *connector) responses(queued bool) {
	ignore := c.flag("ignoreResponse", false)
	timeout := c.millis("responseTimeout", 5*time.Second, time.Hour)
	again := c.flag("queueOnResponseTimeout", true)
	if ignore && c.mode == "MLLPv2" {
		c.refuse("ignoreResponse", "contradicts MLLP release 2, in which the receiver commits each message")
		return
	}
	if ignore {
		c.out.set("ignoreResponse", true)
		return
	}
	if timeout == 0 {
		timeout = time.Hour
		c.changed("responseTimeout", "is 0, which in Mirth is for ever: 1 h here")
	}
	c.out.set("responseTimeout", timeout)
	c.out.set("queueOnResponseTimeout", again && queued)
}
