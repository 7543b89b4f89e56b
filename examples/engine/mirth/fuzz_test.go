package mirth_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/carewire/carewire/examples/engine/mirth"
)

func itoa(n int) string { return strconv.Itoa(n) }

// seeds are exports of every transport.
func seeds() []string {
	return []string{
		channelXML("a", "A", tcpListener(6661), tcpSender("Destination 1", 6662), fileWriter("f", "/var/out")),
		channelXML("b", "B", channelReader(), httpSender("h", "https://fhir.example.org/"), smtpSender("m")),
		"<list>" + channelXML("c", "C", tcpListener(6663), channelWriter("w", "d")) + channelXML("d", "D", channelReader(), fileWriter("f", "out")) + "</list>",
		channelXML("e", "E", dicomListener(104), dicomSender("PACS")),
		channelXML("f", "F", httpListener(8081), tcpSender("Destination 1", 6662)),
		channelJSON(6661, 6662),
		`{"list":{"channel":[` + channelJSON(1, 2) + `]}}`,
		`{"channel":{"@version":"4.5.2","id":"a","name":{"$":"n"},"sourceConnector":{"transportName":"Channel Reader","properties":{"@class":"x"}},"destinationConnectors":{"connector":{"name":"f","transportName":"File Writer","properties":{"host":"o","outputPattern":"${UUID}","template":"${message.rawData}"}}}}}`,
	}
}

// FuzzImport: whatever comes in, an import ends, and the engine takes what it says is
// imported. Files that the configuration names (of DICOM over TLS) are not there.
func FuzzImport(f *testing.F) {
	for _, seed := range seeds() {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, accept bool) {
		res, err := try(mirth.Options{AcceptLosses: accept}, string(data))
		if err != nil {
			return
		}
		for _, ch := range res.Channels {
			lost := 0
			for _, finding := range res.Findings {
				if finding.Channel == ch.Name && finding.Severity == mirth.Lost {
					lost++
				}
			}
			if ch.State == mirth.Imported && !accept && lost > 0 || (ch.State == mirth.Held || ch.State == mirth.Refused) && lost == 0 {
				t.Fatalf("channel %q is %s with %d losses", ch.ID, ch.State, lost)
			}
		}
		if !strings.Contains(string(res.YAML), "noClientAuth:") {
			checkLoads(t, res)
		}
	})
}
