package mirth

import (
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// tuning are properties of DICOM that are about how a machine does it.
var tuning = map[string][]string{
	"soCloseDelay": {"50"}, "reaper": {"10"}, "rspDelay": {"0"}, "sndpdulen": {"16"}, "async": {"0"}, "bufSize": {"1"},
	"sorcvbuf": {"0"}, "sosndbuf": {"0"}, "tcpDelay": {"true"}, "pdv1": {"false"}, "shutdownDelay": {"1000"},
}

// syntaxes are those that choose transfer syntaxes.
var syntaxes = []string{"bigEndian", "defts", "nativeData", "ts1"}

// dicomCommon reads what both roles have.
func (c *connector) dicomCommon() {
	for name, same := range tuning {
		if v := c.take(name); v != "" && v != same[0] {
			c.info(name, "is not here: the engine does it as well as the other side can")
		}
	}
	for _, name := range syntaxes {
		c.expect(Changed, name, "objects go on in the transfer syntax in which they came, if the receiver takes it", "false")
	}
	switch n := c.number("rcvpdulen", 16, 0, 1<<30); {
	case n == 16: // which stands for KiB
		c.out.set("rcvpdulen", 16<<10)
	case n >= 4<<10 && n <= 1<<20:
		c.out.set("rcvpdulen", n)
	default:
		c.info("rcvpdulen", "is left out: 4 KiB to 1 MiB are possible, in bytes")
	}
	c.dicomTLS()
}

// timeout reads a time of DICOM in milliseconds, in which Mirth's default stands for
// something else.
func (c *connector) timeout(name, special string, means, most time.Duration) {
	if v := c.take(name); v == "" || v == special {
		c.out.set(name, means)
		return
	}
	switch d := c.millis(name, means, most); d {
	case 0:
		c.changed(name, "is 0: the engine's own limit counts, and nothing waits for ever")
	default:
		c.out.set(name, d)
	}
}

var aeTitle = regexp.MustCompile(`^[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?$`)

// entity reads an AE title.
func (c *connector) entity(name string) {
	if text := c.fixed(name); text != "" && aeTitle.MatchString(text) {
		c.out.set(name, text)
	} else if text != "" {
		c.refuse(name, "is no AE title: 1 to 16 characters of ASCII, no backslash")
	}
}

// dicomListener reads a DICOM Listener.
func (c *connector) dicomListener() {
	c.sourceProperties()
	host, port := c.listener(104)
	c.out.set("host", host)
	c.out.set("port", port)
	c.ch.port = port
	c.entity("applicationEntity")
	if c.take("dest") != "" {
		c.ch.directory = c.directoryOf("dest")
		c.out.set("dest", c.ch.directory)
		c.changed("dest", "is where all objects are kept as files here: nobody else may write there")
	}
	c.timeout("requestTo", "5", 5*time.Second, time.Hour)
	c.timeout("idleTo", "60", time.Minute, 24*time.Hour)
	c.expect(Info, "releaseTo", "is not a source's here", "5")
	for _, name := range []string{"localHost", "localPort", "localApplicationEntity"} {
		c.expect(Info, name, "has no effect on a source")
	}
	c.dicomCommon()
	c.common()
}

// dicomSender reads a DICOM Sender.
func (c *connector) dicomSender() {
	host := c.host("host")
	c.out.set("host", host)
	c.out.set("port", c.number("port", 104, 1, 65535))
	c.entity("applicationEntity")
	c.entity("localApplicationEntity")
	if local := c.fixed("localHost"); local != "" {
		if _, err := netip.ParseAddr(local); err != nil {
			c.refuse("localHost", "is not an IP address of this machine")
		}
		c.out.set("localHost", local)
	}
	c.expect(Info, "localPort", "reports of storage commitment are taken by a source here: see docs/dicom.md")
	c.wholeMessage("template", "${DICOMMESSAGE}")
	c.dicomIdentity(host)
	switch p := c.take("priority"); p {
	case "", "med":
	case "low", "high":
		c.out.set("priority", p)
		c.changed("priority", "means what it says here: Mirth sends the other one")
	default:
		c.refuse("priority", "is none of low, med and high")
	}
	if c.flag("stgcmt", false) {
		c.out.set("stgcmt", true)
		c.changed("stgcmt", "an object is delivered when the receiver vouches for it within 60 s; its report is taken by a source of type dicom, see docs/dicom.md")
	}
	c.timeout("connectTo", "0", 10*time.Second, time.Hour)
	c.timeout("acceptTo", "5000", 5*time.Second, time.Hour)
	c.timeout("rspTo", "60", 10*time.Second, time.Hour)
	c.timeout("releaseTo", "5", 5*time.Second, time.Hour)
	c.dicomCommon()
	c.common()
}

func (c *connector) dicomIdentity(host string) {
	user := c.fixed("username")
	secure := c.props.child("tls").str() != "notls" && c.props.child("tls").str() != ""
	switch {
	case user == "":
		c.skip("passcode", "uidnegrsp")
		return
	case len(user) > 1<<10:
		c.refuse("username", "is longer than 1 KiB")
	case c.take("passcode") != "" && !secure && !isLoopback(host):
		c.refuse("passcode", "would go over the network in the clear: set TLS up first")
	}
	c.out.set("username", user)
	c.secret("passcode", "passcode")
	if c.flag("uidnegrsp", false) {
		c.out.set("uidnegrsp", true)
	}
}

// dicomTLS reads the settings of TLS, in which noClientAuth is the other way round.
func (c *connector) dicomTLS() {
	mode := c.take("tls")
	if mode == "" || mode == "notls" {
		c.skip("keyStore", "keyStorePW", "keyPW", "trustStore", "trustStorePW", "noClientAuth", "nossl2")
		return
	}
	if mode != "aes" && mode != "3des" {
		c.refuse("tls", "is TLS that encrypts nothing, or unknown")
		return
	}
	c.out.set("tls", mode)
	for _, name := range []string{"keyStore", "trustStore"} {
		file := c.fixed(name)
		if file == "" || strings.Contains(file, ":") {
			c.refuse(name, "is empty, which is a public test key in Mirth, or no path of this system")
			continue
		}
		c.out.set(name, file)
	}
	c.secret("keyStorePW", "keyStorePW")
	c.secret("keyPW", "keyPW")
	c.secret("trustStorePW", "trustStorePW")
	if c.props.class != "" {
		c.out.set("noClientAuth", !c.flag("noClientAuth", true))
		c.info("noClientAuth", "is inverted: in Mirth true requires client certificates")
	} else {
		c.flag("noClientAuth", true)
		c.out.set("noClientAuth", false)
		c.changed("noClientAuth", "does not say what it means in an export without class names: client certificates are required until you say otherwise")
	}
	c.changed("trustStore", "the receiver's name is checked here, too: verification: chain-only does not")
	c.skip("nossl2")
}
