package mirth

import (
	"slices"
	"strings"
)

// unknown is said of what nobody has foreseen.
const unknown = "is not known here, and so nobody can say what is missing without it"

// connectorParts are what a connector has.
var connectorParts = []string{
	"metaDataId", "name", "properties", "transformer", "responseTransformer", "filter", "transportName", "mode", "enabled", "waitForPrevious", "queueEnabled",
}

// steps reads what a connector does with a message besides moving it: filters,
// transformers, and what the types of data bring with them.
func (c *connector) steps(n *node) {
	for _, k := range n.kids {
		if !slices.Contains(connectorParts, k.name) && !k.empty() {
			c.lost(k.name, unknown)
		}
	}
	const why = "is not run here, and the channel would deliver something else without it"
	c.active(n.child("filter"), "filter", "filters nothing here: "+why)
	for _, name := range []string{"transformer", "responseTransformer"} {
		t := n.child(name)
		c.active(t, name, why)
		in, out := t.child("inboundDataType").str(), t.child("outboundDataType").str()
		if in != "" && out != "" && in != out {
			c.lost(name+".outboundDataType", "is another type than the inbound one: messages are not converted here")
		}
		c.dataType(t.child("inboundProperties"), name+".inboundProperties")
		c.dataType(t.child("outboundProperties"), name+".outboundProperties")
	}
}

// active reports the rules or steps in n that are on, and what is not known.
func (c *connector) active(n *node, what, why string) {
	if n == nil {
		return
	}
	on, off := 0, 0
	for _, k := range n.kids {
		switch k.name {
		case "elements", "rules", "steps":
			items := k.kids
			if k.child("enabled") != nil || k.child("sequenceNumber") != nil || k.child("type") != nil || k.child("script") != nil {
				items = []*node{k} // of a list in JSON
			}
			if len(items) == 0 && k.str() != "" {
				on++
			}
			for _, item := range items {
				if item.child("enabled").str() == "false" {
					off++
				} else {
					on++
				}
			}
		case "inboundTemplate", "outboundTemplate", "inboundDataType", "outboundDataType", "inboundProperties", "outboundProperties", "name", "enabled", "metaDataId":
		default:
			if !k.empty() {
				c.lost(what+"."+k.name, unknown)
			}
		}
	}
	if on > 0 {
		c.lost(what, why)
	}
	if off > 0 {
		c.info(what, "has steps that are switched off: they are left out")
	}
}

// dataTypeDefaults are what a type of data has where nobody has touched it. None of
// it matters where nothing is taken apart.
var dataTypeDefaults = map[string][]string{
	"handleRepetitions": {"true", "false"}, "handleSubcomponents": {"true", "false"}, "stripNamespaces": {"true", "false"},
	"convertLineBreaks": {"true", "false"}, "segmentDelimiter": {`\r`, `\\r`}, "useStrictParser": {"false"}, "useStrictValidation": {"false"},
	"splitType": {"MSH_Segment", "Element_Name", "Record", "Delimiter", "JavaScript"}, "batchScript": {}, "elementName": {}, "level": {"1"}, "query": {},
	"successfulACKCode": {"AA", "AA,CA"}, "successfulACKMessage": {}, "errorACKCode": {"AE", "AE,CE"}, "rejectedACKCode": {"AR", "AR,CR"},
	"errorACKMessage": {"An Error Occurred Processing Message."}, "rejectedACKMessage": {"Message Rejected."},
	"msh15ACKAccept": {"false"}, "dateFormat": {"yyyyMMddHHmmss.SSS", "yyyyMMddHHmmss"},
	"validateMessageControlId": {"true"}, "originalMessageControlId": {"Destination_Encoded"}, "originalIdMapVariable": {},
}

// dataType reports what somebody has set in the properties of a type of data.
func (c *connector) dataType(n *node, at string) {
	if n == nil {
		return
	}
	for _, k := range n.kids {
		path := at + "." + k.name
		if len(k.kids) > 0 {
			c.dataType(k, path)
			continue
		}
		if same, known := dataTypeDefaults[k.name]; k.str() == "" || known && slices.Contains(same, k.str()) {
			continue
		}
		switch {
		case strings.HasSuffix(at, ".batchProperties"):
			c.info(path, "matters for batches alone, which are reported where they are taken apart")
		case strings.Contains(at, ".responseGenerationProperties"):
			c.changed(path, "the engine makes acknowledgements itself: AA when a message is stored, AE when it is not, AR when it is none")
		case strings.Contains(at, ".responseValidationProperties"):
			c.changed(path, "an acknowledgement is judged by MSA here: AA and CA of this message deliver it")
		default:
			c.changed(path, "messages are not taken apart here, and so not checked or rewritten by this")
		}
	}
}
