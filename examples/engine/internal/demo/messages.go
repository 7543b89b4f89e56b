package demo

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// The people and places below are invented.
var (
	families = []string{"ABERNATHY", "BJÖRKLUND", "CHAUDHRY", "DELACROIX", "EKWUEME", "FERNÁNDEZ", "GRUBER", "HALVORSEN"}
	givens   = []string{"ADA", "BRAM", "CHIARA", "DMITRI", "ESI", "FINN", "GRÁINNE", "HANA"}
	wards    = []string{"MED^201^A", "SURG^114^B", "ICU^7^A", "PED^32^C", "MAT^5^B"}
)

// kind is one sort of message and how to write its segments after the MSH.
type kind struct {
	event string // MSH-9
	body  func(p patient, r *rand.Rand) []string
}

var kinds = []kind{
	{"ADT^A01^ADT_A01", admission},
	{"ADT^A08^ADT_A01", admission},
	{"ADT^A03^ADT_A03", admission},
	{"ORM^O01^ORM_O01", order},
	{"ORU^R01^ORU_R01", result},
	{"SIU^S12^SIU_S12", appointment},
	{"MDM^T02^MDM_T02", document},
}

// patient is who a message is about.
type patient struct {
	mrn, name, born, sex, ward string
	at                         string // HL7 time stamp of the message
}

// message returns the n-th message of the demo under the control id given. The
// same n and id always give the same bytes, so that a resent message can be
// told from an altered one.
func message(n int, id string, at time.Time) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 2575)) //nolint:gosec // invented patients need no secrecy
	p := patient{
		mrn:  fmt.Sprintf("%07d", 4_000_000+r.IntN(900_000)),
		name: families[r.IntN(len(families))] + "^" + givens[r.IntN(len(givens))],
		born: fmt.Sprintf("%04d%02d%02d", 1930+r.IntN(90), 1+r.IntN(12), 1+r.IntN(28)),
		sex:  string("MF"[r.IntN(2)]),
		ward: wards[r.IntN(len(wards))],
		at:   at.UTC().Format("20060102150405"),
	}
	k := kinds[n%len(kinds)]
	segments := append([]string{
		// MSH-15 and MSH-16 stay empty: original mode, one acknowledgement.
		`MSH|^~\&|DEMO|GENERAL|LAB|GENERAL|` + p.at + `||` + k.event + `|` + id + `|P|2.5.1||||||UNICODE UTF-8`,
	}, k.body(p, r)...)
	return []byte(strings.Join(segments, "\r") + "\r")
}

func (p patient) pid() string {
	return "PID|1||" + p.mrn + "^^^GENERAL^MR||" + p.name + "||" + p.born + "|" + p.sex
}

func admission(p patient, r *rand.Rand) []string {
	return []string{
		"EVN||" + p.at,
		p.pid(),
		fmt.Sprintf("PV1|1|I|%s||||%04d^ATTENDING^DOCTOR|||MED||||||||VISIT-%06d", p.ward, r.IntN(9999), r.IntN(999_999)),
	}
}

func order(p patient, r *rand.Rand) []string {
	number := fmt.Sprintf("ORD-%06d", r.IntN(999_999))
	return []string{
		p.pid(),
		"PV1|1|I|" + p.ward,
		"ORC|NW|" + number + "|||||^^^" + p.at + "^^R",
		"OBR|1|" + number + "||CBC^Complete blood count^L|R|" + p.at,
	}
}

func result(p patient, r *rand.Rand) []string {
	segments := []string{
		p.pid(),
		fmt.Sprintf("OBR|1|ORD-%06d||CBC^Complete blood count^L|||%s|||||||||||||||||F", r.IntN(999_999), p.at),
	}
	tests := []string{"WBC^Leukocytes^L", "RBC^Erythrocytes^L", "HGB^Haemoglobin^L", "HCT^Haematocrit^L", "PLT^Platelets^L", "CRP^C-reactive protein^L"}
	for i, test := range tests {
		segments = append(segments, fmt.Sprintf("OBX|%d|NM|%s||%.1f|10*9/L|4.0-11.0||||F", i+1, test, 1+20*r.Float64()))
	}
	return segments
}

func appointment(p patient, r *rand.Rand) []string {
	return []string{
		fmt.Sprintf("SCH|APP-%06d||||||ROUTINE|||30|min|^^30^%s", r.IntN(999_999), p.at),
		p.pid(),
		"RGS|1|A",
		"AIS|1|A|CONS^Consultation^L|" + p.at,
	}
}

// document carries a scanned letter: a large OBX, as they come in practice.
func document(p patient, r *rand.Rand) []string {
	letter := make([]byte, 6<<10+r.IntN(40<<10))
	for i := range letter {
		letter[i] = byte(r.Uint32())
	}
	return []string{
		"EVN||" + p.at,
		p.pid(),
		fmt.Sprintf("TXA|1|DS^Discharge summary^L|AP|%s|||||||DOC-%06d", p.at, r.IntN(999_999)),
		"OBX|1|ED|DS^Discharge summary^L||^APPLICATION^PDF^Base64^" + base64.StdEncoding.EncodeToString(letter) + "||||||F",
	}
}
