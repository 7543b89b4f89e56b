package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/carewire/carewire/dicomtls"
	"github.com/carewire/carewire/mllp"
	"github.com/carewire/carewire/tlsprops"
)

// What a P-DATA PDU may be long.
const (
	leastPDU = 4 << 10
	mostPDU  = 1 << 20
)

// maxObjectSize is far more than any object has.
const maxObjectSize = 1 << 40

func (d *decoder) dicomSource(key string, s *DICOMSource, others []listener) []listener {
	hostOK := d.host(join(key, "host"), s.Host, "0.0.0.0 accepts from every network, 127.0.0.1 from this machine only")
	if d.dicomPort(key, s.Port) && hostOK {
		others = d.claim(others, listener{s.Host, cmp.Or(s.Port, defaultDICOMPort), join(key, "port")})
	}
	d.entity(join(key, "applicationEntity"), s.ApplicationEntity)
	for i, title := range s.CallingApplicationEntities {
		d.entity(entry(join(key, "callingApplicationEntities"), i), title)
	}
	d.dicomSenders(key, s)
	d.between(key, "maxAssociations", int64(s.MaxAssociations), 100_000, "associations")
	d.between(key, "maxAssociationsPerHost", int64(s.MaxAssociationsPerHost), 100_000, "associations")
	d.between(key, "maxObjectSize", s.MaxObjectSize, maxObjectSize, "bytes")
	d.pdu(key, s.RcvPDULen)
	d.within(key, "requestTo", s.RequestTo, maxTimeout)
	d.within(key, "idleTo", s.IdleTo, 24*time.Hour)
	d.dicomTLS(key, s.TLS, tlsprops.Listener)
	return others
}

// objects checks that the directory of a source's objects is that of nobody else.
func (d *decoder) objects(cfg *Config, i int, directories map[string]string) {
	s := cfg.Channels[i].Source.DICOM
	if s == nil {
		return
	}
	key := fmt.Sprintf("channels[%d].source.dest", i)
	switch {
	case s.Dest != "":
		d.directory(key, s.Dest, directories)
	case d.has(key) && d.clean(key):
		d.at(key, "is empty: name the directory of the objects, or remove the key")
	case cfg.Channels[i].ID != "":
		d.distinct(directories, key, filepath.Clean(s.Directory(cmp.Or(cfg.DataDir, d.resolve("data")), cfg.Channels[i].ID)))
	}
}

// Directory is where the objects are of the source of the channel id.
func (s *DICOMSource) Directory(dataDir, id string) string {
	return cmp.Or(s.Dest, filepath.Join(dataDir, "dicom", id))
}

// dicomSenders checks the rules for certificates, and that there are certificates.
func (d *decoder) dicomSenders(key string, s *DICOMSource) {
	at := join(key, "senders")
	if len(s.Senders) > 0 && (!s.TLS.TLS.Enabled() || s.TLS.NoClientAuth) {
		d.at(at, "needs client certificates: set tls to aes or bcp195, and noClientAuth to false")
		return
	}
	for i, rule := range s.Senders {
		at := entry(at, i)
		kind, name, _ := strings.Cut(rule.Certificate, ":")
		switch certificate := join(at, "certificate"); {
		case !d.clean(certificate):
		case rule.Certificate == "":
			d.at(certificate, "is missing: dns:, ip: or cn: and a name in the certificate, or sha256: and its SHA-256")
		case name == "" || kind != "dns" && kind != "ip" && kind != "cn" && kind != "sha256":
			d.at(certificate, "is not dns:, ip: or cn: and a name in the certificate, nor sha256: and its SHA-256")
		}
		titles := join(at, "applicationEntities")
		if len(rule.ApplicationEntities) == 0 && d.clean(titles) {
			d.at(titles, "is missing: list the AE titles that the certificate's holder may have")
		}
		for j, title := range rule.ApplicationEntities {
			d.entity(entry(titles, j), title)
		}
	}
}

func (d *decoder) dicomDestination(key string, t *DICOMDestination) {
	d.host(join(key, "host"), t.Host, "the name or address to send to")
	d.dicomPort(key, t.Port)
	d.entity(join(key, "applicationEntity"), t.ApplicationEntity)
	d.entity(join(key, "localApplicationEntity"), t.LocalApplicationEntity)
	if at := join(key, "localHost"); d.has(at) && d.clean(at) {
		if _, err := netip.ParseAddr(t.LocalHost); err != nil {
			d.at(at, "is not an IP address of this machine: write it without a port")
		}
	}
	d.identity(key, t)
	d.oneOf(join(key, "priority"), t.Priority, "low", "med", "high")
	if !t.Stgcmt {
		d.refuse(key, "is used only with stgcmt: true", "stgcmtTimeout")
	}
	d.within(key, "stgcmtTimeout", t.StgcmtTimeout, 24*time.Hour)
	d.within(key, "linger", t.Linger, maxTimeout)
	d.pdu(key, t.RcvPDULen)
	for name, value := range map[string]time.Duration{
		"connectTo": t.ConnectTo, "acceptTo": t.AcceptTo, "rspTo": t.RspTo, "releaseTo": t.ReleaseTo,
	} {
		d.within(key, name, value, maxTimeout)
	}
	d.dicomTLS(key, t.TLS, tlsprops.Client)
}

// identity checks who we say to be.
func (d *decoder) identity(key string, t *DICOMDestination) {
	if t.Username == "" {
		d.refuse(key, "is used only with username", "passcode", "uidnegrsp")
	}
	const most = 1 << 10 // in bytes; more is a mistake
	for name, value := range map[string]string{"username": t.Username, "passcode": t.Passcode} {
		if at := join(key, name); len(value) > most && d.clean(at) {
			d.at(at, "is longer than %d bytes", most)
		}
	}
	if at := join(key, "passcode"); t.Passcode != "" && !t.TLS.TLS.Enabled() && !isLoopback(t.Host) && d.clean(at) {
		d.at(at, "would go over the network in the clear: set tls to aes or bcp195, or remove it")
	}
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// carries checks that a destination can do something with what its source takes
// in.
func (d *decoder) carries(key string, s *Source, dest *Destination) {
	at := join(key, "type")
	switch {
	case dest.DICOM != nil && s.Type != "" && s.DICOM == nil && s.Type != "channel":
		d.at(at, "sends what a source of type dicom took in, and this channel's source is of type %s", s.Type)
	case dest.TCP != nil && s.DICOM != nil && isMLLP(dest.TCP.MLLP().Mode):
		d.at(at, "with MLLP carries HL7, and what a source of type dicom takes in is none: use type dicom or file, or transmissionMode FRAME or RAW for the reference alone")
	}
}

func isMLLP(mode mllp.Mode) bool {
	return mode == "" || mode == mllp.ModeMLLP || mode == mllp.ModeMLLPv2
}

func (d *decoder) dicomPort(key string, port int) bool {
	at := join(key, "port")
	return !d.has(at) || d.port(at, port)
}

// pdu checks a length of PDUs, which Mirth has in bytes, but for its default.
func (d *decoder) pdu(parent string, value int) {
	if at := join(parent, "rcvpdulen"); d.clean(at) && value != 0 && (value < leastPDU || value > mostPDU) {
		d.at(at, "must be between %d and %d bytes; for Mirth's 16, which means 16384, remove the key", leastPDU, mostPDU)
	}
}

// entity checks an AE title (PS3.5 6.2).
func (d *decoder) entity(key, title string) {
	if !d.has(key) || !d.clean(key) {
		return
	}
	bad := strings.ContainsFunc(title, func(r rune) bool { return r < ' ' || r > '~' || r == '\\' })
	if title == "" || len(title) > 16 || bad || strings.TrimSpace(title) != title {
		d.at(key, "is no AE title: 1 to 16 characters of ASCII, no backslash, no spaces around")
	}
}

// dicomTLS checks the settings of TLS, files and all, in the role they are for.
func (d *decoder) dicomTLS(parent string, p dicomtls.Properties, role tlsprops.Role) {
	fields := make(map[string]reflect.Value)
	collect(fields, reflect.ValueOf(&p).Elem())
	for name := range fields {
		if !d.cleanUnder(join(parent, name)) {
			return // what is wrong already would only be reported again in other words
		}
	}
	if d.has(join(parent, "tls")) && p.TLS == "" {
		d.at(join(parent, "tls"), "is empty: use notls, 3des, aes or bcp195")
		return
	}
	err := p.Check(role)
	if err == nil {
		return
	}
	fe, ok := errors.AsType[*dicomtls.FieldError](err)
	if !ok {
		d.at(parent, "%v", err)
		return
	}
	text := fe.Err.Error()
	if strings.HasSuffix(fe.Field, "Store") || fe.Field == "crlPaths" {
		text = strings.TrimPrefix(fe.Path+": "+text, ": ") // of other fields it would be a value
	}
	d.at(join(parent, fe.Field), "%s", text)
}
