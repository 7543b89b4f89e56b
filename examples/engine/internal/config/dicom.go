package config

import (
	"cmp"
	"net"
	"strconv"
	"time"

	"github.com/carewire/carewire/dicomtls"
)

// What an unset key of dicom means.
const (
	defaultDICOMPort              = 104 // as in Mirth, and what equipment is usually set to
	defaultMaxAssociations        = 256
	defaultMaxAssociationsPerHost = 64
	defaultMaxObjectSize          = 16 << 30
	// defaultLinger is shorter than any receiver's patience, so that it is we who
	// release.
	defaultLinger = 2 * time.Second
)

// DICOMSource takes DICOM objects in, as an SCP of storage. Each becomes a file,
// and a message that refers to it. Its names are those of the deployment guide and
// of Mirth.
type DICOMSource struct {
	Host string `yaml:"host"`
	Port int    `yaml:"port"` // unset: 104
	// ApplicationEntity is the AE title by which the source must be called. Unset:
	// any.
	ApplicationEntity string `yaml:"applicationEntity"`
	// Dest is the directory of the objects. Unset: dicom/ and the channel's id, in
	// dataDir.
	Dest string `yaml:"dest"`

	TLS dicomtls.Properties `yaml:",inline"`

	// CallingApplicationEntities are the AE titles of those who may send. None: all.
	CallingApplicationEntities []string `yaml:"callingApplicationEntities"`
	// Senders say in whose name the holder of a certificate may send. None: an AE
	// title is what the sender says it is.
	Senders []DICOMSender `yaml:"senders"`
	// Allow and Deny are the addresses that may connect; none in Allow: all.
	Allow []AddressRange `yaml:"allow"`
	Deny  []AddressRange `yaml:"deny"`

	// MaxAssociations is how many senders may be connected at once, 0: 256, and
	// MaxAssociationsPerHost how many of them from one address, 0: 64.
	MaxAssociations        int `yaml:"maxAssociations"`
	MaxAssociationsPerHost int `yaml:"maxAssociationsPerHost"`
	// MaxObjectSize is the longest data set that is taken, in bytes. 0: 16 GiB.
	MaxObjectSize int64 `yaml:"maxObjectSize"`
	// RcvPDULen is the longest P-DATA PDU that is taken, in bytes. 0: 128 KiB.
	RcvPDULen int `yaml:"rcvpdulen"`
	// RequestTo is how long a sender may take to ask for an association, 0: 30 s, and
	// IdleTo how long it may be silent between messages, 0: 60 s.
	RequestTo time.Duration `yaml:"requestTo"`
	IdleTo    time.Duration `yaml:"idleTo"`
}

// A DICOMSender binds AE titles to client certificates.
type DICOMSender struct {
	// Certificate describes a certificate: dns:, ip: or cn: and a name in it, or
	// sha256: and the hexadecimal SHA-256 of it.
	Certificate string `yaml:"certificate"`
	// ApplicationEntities are the AE titles that its holder may have.
	ApplicationEntities []string `yaml:"applicationEntities"`
}

// Server returns what package dicomtls needs to know, without what is the
// engine's: handler, files of TLS, hooks.
func (s *DICOMSource) Server() *dicomtls.Server {
	server := &dicomtls.Server{
		CallingAETitles: s.CallingApplicationEntities, Allow: prefixes(s.Allow), Deny: prefixes(s.Deny),
		TLS: &s.TLS, MaxPDUBytes: s.RcvPDULen, MaxObjectBytes: s.MaxObjectSize,
		MaxAssociations: s.MaxAssociations, MaxAssociationsPerHost: s.MaxAssociationsPerHost,
		AssociateTimeout: s.RequestTo, IdleTimeout: s.IdleTo,
	}
	if s.ApplicationEntity != "" {
		server.AETitles = []string{s.ApplicationEntity}
	}
	for _, rule := range s.Senders {
		if server.CertificateAEs == nil {
			server.CertificateAEs = make(map[string][]string)
		}
		server.CertificateAEs[rule.Certificate] = append(server.CertificateAEs[rule.Certificate], rule.ApplicationEntities...)
	}
	return server
}

// DICOMDestination sends the objects that messages refer to, as an SCU of storage.
type DICOMDestination struct {
	Host string `yaml:"host"`
	Port int    `yaml:"port"` // unset: 104
	// ApplicationEntity is the AE title of the receiver, unset: DCMRCV, and
	// LocalApplicationEntity ours, unset: DCMSND.
	ApplicationEntity      string `yaml:"applicationEntity"`
	LocalApplicationEntity string `yaml:"localApplicationEntity"`
	// LocalHost is the IP address that connections come from. Unset: as the system
	// likes.
	LocalHost string `yaml:"localHost"`

	TLS dicomtls.Properties `yaml:",inline"`

	// Username and Passcode are the user identity (PS3.7 D.3.3.7); UIDNegRsp asks the
	// receiver to confirm it, and sends nothing to one that does not.
	Username  string `yaml:"username"`
	Passcode  string `yaml:"passcode"`
	UIDNegRsp bool   `yaml:"uidnegrsp"`

	// Priority is low, med or high; unset: med.
	Priority string `yaml:"priority"`
	// Stgcmt asks for storage commitment after each object, and waits for the report
	// for StgcmtTimeout, 0: 60 s. An object is delivered when it is committed.
	Stgcmt        bool          `yaml:"stgcmt"`
	StgcmtTimeout time.Duration `yaml:"stgcmtTimeout"`
	// Linger is how long an association is kept on which nothing is sent. 0: 2 s.
	Linger time.Duration `yaml:"linger"`

	// RcvPDULen is the longest P-DATA PDU that is taken, in bytes. 0: 128 KiB.
	RcvPDULen int           `yaml:"rcvpdulen"`
	ConnectTo time.Duration `yaml:"connectTo"` // for the connection; 0: 10 s
	AcceptTo  time.Duration `yaml:"acceptTo"`  // for the answer to the request of an association; 0: 30 s
	RspTo     time.Duration `yaml:"rspTo"`     // for the response to an object; 0: 60 s
	ReleaseTo time.Duration `yaml:"releaseTo"` // for the end of an association; 0: 5 s
}

// Dialer returns what package dicomtls needs to know, without the files of TLS,
// which are the engine's to add to.
func (t *DICOMDestination) Dialer() *dicomtls.Dialer {
	d := &dicomtls.Dialer{
		AETitle: cmp.Or(t.LocalApplicationEntity, "DCMSND"), CalledAE: cmp.Or(t.ApplicationEntity, "DCMRCV"),
		TLS: &t.TLS, MaxPDUBytes: t.RcvPDULen,
		DialTimeout: t.ConnectTo, AssociateTimeout: t.AcceptTo, ResponseTimeout: t.RspTo,
		ReleaseTimeout: t.ReleaseTo, CommitTimeout: t.StgcmtTimeout,
	}
	if t.LocalHost != "" {
		d.NetDialer = &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(t.LocalHost)}}
	}
	if t.Username != "" {
		d.Identity = &dicomtls.UserIdentity{Type: dicomtls.IdentityUsername, Primary: []byte(t.Username), ResponseRequested: t.UIDNegRsp}
		if t.Passcode != "" {
			d.Identity.Type, d.Identity.Secondary = dicomtls.IdentityPasscode, []byte(t.Passcode)
		}
	}
	return d
}

// Address is where to send, "host:port".
func (t *DICOMDestination) Address() string { return net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) }

func (s *DICOMSource) setDefaults() {
	setDefault(&s.Port, defaultDICOMPort)
	setDefault(&s.MaxAssociations, defaultMaxAssociations)
	setDefault(&s.MaxAssociationsPerHost, defaultMaxAssociationsPerHost)
	setDefault(&s.MaxObjectSize, defaultMaxObjectSize)
}

func (t *DICOMDestination) setDefaults() {
	setDefault(&t.Port, defaultDICOMPort)
	setDefault(&t.ApplicationEntity, "DCMRCV")
	setDefault(&t.LocalApplicationEntity, "DCMSND")
	setDefault(&t.Priority, "med")
	setDefault(&t.Linger, defaultLinger)
}
