package mirth

import (
	"strings"
	"time"
)

// readDestination reads one destination and adds it to the channel, if it can be.
func (ch *channel) readDestination(n *node, names map[string]bool) {
	c := &connector{ch: ch, name: n.child("name").str(), props: n.child("properties"), used: make(map[*node]bool)}
	if c.props == nil {
		c.props = new(node)
	}
	if n.child("enabled").str() == "false" {
		c.info("enabled", "is false: the destination is left out")
		return
	}
	d := &destination{kind: "unknown"}
	transport := transportOf(n.child("transportName").str(), c.props.class)
	if target := c.props.child("channelId").str(); transport == "channel writer" && (target == "" || target == "none") {
		c.steps(n)
		c.info("channelId", "leads nowhere: the destination is left out")
		return
	}
	c.steps(n)
	d.name = unique(names, identifier(c.name, "destination"))
	if d.name != c.name {
		c.info("name", "is "+d.name+" here: a name has letters, digits, -, _ and . only")
	}
	queued := c.flag("destinationConnectorProperties.queueEnabled", n.child("queueEnabled").str() == "true")
	c.out.set("name", d.name)
	switch transport {
	case "tcp sender", "mllp sender", "llp sender":
		d.kind = "tcp"
	case "http sender":
		d.kind = "http"
	case "dicom sender":
		d.kind = "dicom"
	case "smtp sender":
		d.kind = "smtp"
	case "file writer":
		d.kind = "file"
	case "channel writer":
		d.kind = "channel"
	default:
		c.lost("transportName", "is a destination that this version of the engine does not have: it is left out")
		return
	}
	c.out.set("type", d.kind)
	c.queue(queued, d.kind)
	switch d.kind {
	case "tcp":
		c.tcpSender(queued)
	case "http":
		c.httpSender()
	case "dicom":
		c.dicomSender()
	case "smtp":
		c.smtpSender()
	case "file":
		c.fileWriter(d)
	case "channel":
		c.channelWriter(d)
	}
	c.fits(d.kind)
	if c.refused {
		return
	}
	d.out = c.out
	ch.dests = append(ch.dests, d)
}

// fits refuses a destination that can do nothing with what the source takes in.
func (c *connector) fits(kind string) {
	switch {
	case kind == "dicom" && c.ch.kind != "dicom" && c.ch.kind != "channel":
		c.refuse("transportName", "sends what a DICOM Listener took in, and the source of this channel is another one")
	case kind == "tcp" && c.ch.kind == "dicom" && (c.mode == "MLLP" || c.mode == "MLLPv2"):
		c.refuse("transportName", "with MLLP carries HL7, and what a DICOM Listener took in is none")
	}
}

// queue reads how often a destination tries. In Mirth one without a queue tries once,
// and as often again as retryCount says, and then the message has failed.
func (c *connector) queue(queued bool, kind string) {
	const at = "destinationConnectorProperties."
	c.skip(at+"queueBufferSize", at+"reattachAttachments", at+"regenerateTemplate", at+"includeFilterTransformer", at+"sendFirst")
	c.expect(Changed, at+"rotate", "messages stay in order here: one that has to wait holds up those behind it", "false")
	c.expect(Changed, at+"threadCount", "a destination sends one message after the other here", "1")
	c.expect(Changed, at+"threadAssignmentVariable", "a destination sends one message after the other here")
	interval := c.millis(at+"retryIntervalMillis", 10*time.Second, 24*time.Hour)
	retries := c.number(at+"retryCount", 0, 0, 1_000_000)
	validates := c.flag(at+"validateResponse", true)
	if kind == "tcp" && !validates {
		c.changed(at+"validateResponse", "is false: here an acknowledgement that says no sets the message aside")
	}
	if kind == "tcp" && queued && validates {
		c.changed(at+"queueEnabled", "a message that is answered AE is sent again, and holds up those behind it, where Mirth makes an error of it: maxAttempts ends that")
	}
	var q block
	if interval > 0 {
		q.set("retryInterval", interval)
	}
	if !queued {
		q.set("maxAttempts", retries+1)
		c.changed(at+"queueEnabled", "is false: here a message waits while its receiver cannot be reached; one that is refused or fails is set aside as a dead letter, as an error is in Mirth")
	}
	q.set("onPoison", "deadletter")
	c.out.set("queue", q)
}

// fileWriter reads a File Writer.
func (c *connector) fileWriter(d *destination) {
	if scheme := strings.ToUpper(c.take("scheme")); scheme != "" && scheme != "FILE" {
		c.refuse("scheme", "is not FILE: files are written to directories of this machine only")
	}
	d.directory = c.directoryOf("host")
	c.out.set("directory", d.directory)
	pattern := c.take("outputPattern")
	if c.flag("outputAppend", true) && !hasReference(pattern) {
		c.lost("outputAppend", "all messages went to the end of one file: here each has a file of its own")
	} else {
		c.changed("outputPattern", "the engine names files itself, one for each message")
	}
	c.expect(Changed, "errorOnExists", "the engine names files itself, and a message that comes again has the same one", "false")
	c.expect(Lost, "binary", "messages are not base64 that would have to be turned into bytes", "false")
	c.expect(Changed, "charsetEncoding", "files have the bytes that came", "DEFAULT_ENCODING")
	c.wholeMessage("template", "${DICOMMESSAGE}")
	// Of other schemes, or how it is done.
	c.skip("temporary", "anonymous", "username", "password", "timeout", "keepConnectionOpen", "maxIdleTime", "secure", "passive", "validateConnection", "schemeProperties")
	c.common()
}

// channelWriter reads a Channel Writer.
func (c *connector) channelWriter(d *destination) {
	d.target = c.take("channelId")
	c.wholeMessage("channelTemplate")
	if n := c.props.child("mapVariables"); n != nil {
		c.used[n] = true
		if !n.empty() {
			c.lost("mapVariables", "nothing but the message goes to the other channel")
		}
	}
	c.skip("responseTimeout")
	c.common()
}
