package mirth

import (
	"io"
	"slices"
	"strings"
	"time"

	"github.com/carewire/carewire/smtpx"
)

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
	for _, h := range c.headers("headers") {
		mail.Headers[h.key] = h.value
	}
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
