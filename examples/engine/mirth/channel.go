package mirth

import (
	"fmt"
	"slices"
	"strings"
)

// channel reads one channel.
func (im *importer) channel(n *node) {
	ch := &channel{key: n.child("id").str(), name: n.child("name").str(), accept: im.accept, variables: im.variables}
	if strings.ContainsFunc(ch.name, isControl) {
		ch.name = strings.Map(func(r rune) rune {
			if isControl(r) {
				return ' '
			}
			return r
		}, ch.name)
	}
	ch.id = unique(im.ids, identifier(ch.key, "channel"))
	if ch.id != ch.key {
		ch.note("", "id", "is written so that it fits here, and is no other channel's", Info)
	}
	if ch.name == "" {
		ch.name = ch.id
	}
	if im.names[ch.name] {
		renamed := ch.name
		for i := 2; im.names[renamed]; i++ {
			renamed = fmt.Sprintf("%s (%d)", ch.name, i)
		}
		ch.name = renamed
		ch.note("", "name", "is that of another channel: it has a number now", Info)
	}
	im.names[ch.name] = true
	im.channels = append(im.channels, ch)

	ch.general(n)
	ch.readSource(n.child("sourceConnector"))
	list := destinationsIn(n)
	names := make(map[string]bool)
	for _, d := range list {
		ch.readDestination(d, names)
	}
	if len(ch.dests) == 0 {
		ch.refuse("", "destinationConnectors", "none is left that could be imported: the channel would acknowledge messages and deliver them nowhere")
	}
	if len(ch.dests) > 1 {
		ch.note("", "destinationConnectors", "each has a queue of its own here: none waits for another one, or is left out because another one failed", Changed)
	}
}

// destinationsIn returns the destinations of a channel. JSON of Node.js has them
// without an element of their own.
func destinationsIn(n *node) []*node {
	var list []*node
	for _, around := range n.kids {
		if around.name != "destinationConnectors" {
			continue
		}
		if around.child("transportName") != nil || around.child("properties") != nil {
			list = append(list, around)
			continue
		}
		for _, k := range around.kids {
			if k.name == "connector" {
				list = append(list, k)
			}
		}
	}
	return list
}

// general reads what is of the channel as a whole.
func (ch *channel) general(n *node) {
	known := []string{
		"id", "name", "nextMetaDataId", "revision", "lastModified", "sourceConnector", "destinationConnectors", "properties", "exportData", "enabled",
		"preprocessingScript", "postprocessingScript", "deployScript", "undeployScript", "description",
	}
	for _, name := range []string{"preprocessingScript", "postprocessingScript", "deployScript", "undeployScript"} {
		if k := n.child(name); k != nil && !isDefaultScript(k.text) {
			ch.note("", name, "scripts are not run here", Lost)
		}
	}
	if n.child("description").str() != "" {
		ch.note("", "description", "has no place here: keep it as a comment", Info)
	}
	for _, k := range n.kids {
		if !slices.Contains(known, k.name) && !k.empty() {
			ch.note("", k.name, unknown, Lost)
		}
	}
	ch.exportData(n.child("exportData"))
	if n.child("enabled").str() == "false" || n.at("exportData.metadata.enabled").str() == "false" {
		ch.off = true
		ch.note("", "enabled", "is false: the channel is there as comments", Info)
	}
	ch.properties(n.child("properties"))
}

func (ch *channel) exportData(n *node) {
	if n == nil {
		return
	}
	for _, k := range n.kids {
		switch {
		case k.name == "metadata":
			for _, p := range []string{"pruneMetaDataDays", "pruneContentDays"} {
				if k.at("pruningSettings."+p).str() != "" {
					ch.note("", p, "how long messages are kept is not set for each channel here", Changed)
				}
			}
		case k.empty():
		case k.name == "dependentIds" || k.name == "dependencyIds":
			ch.note("", k.name, "channels are not started in an order of their own here: queues wait for who comes later", Changed)
		case k.name == "channelTags":
			ch.note("", k.name, "there are no tags here", Info)
		case k.name == "codeTemplateLibraries":
			ch.note("", k.name, "there are no scripts here that could use them", Info)
		default:
			ch.note("", "exportData."+k.name, "is not imported", Info)
		}
	}
}

// properties reads how a channel is kept and started.
func (ch *channel) properties(n *node) {
	if n == nil {
		return
	}
	c := &connector{ch: ch, props: n, used: make(map[*node]bool)}
	c.skip("clearGlobalChannelMap", "storeAttachments", "removeAttachmentsOnCompletion", "encryptAttachments", "encryptCustomMetaData",
		"attachmentProperties.className", "attachmentProperties.properties", "tags", "archiveEnabled")
	c.expect(Info, "messageStorageMode", "messages are always stored here before they are acknowledged", "DEVELOPMENT", "PRODUCTION")
	c.expect(Lost, "encryptData", "messages are not encrypted in the store here: put the data directory on an encrypted file system", "false")
	c.expect(Changed, "removeContentOnCompletion", "what becomes of delivered messages is not set for each channel here", "false")
	c.expect(Changed, "removeOnlyFilteredOnCompletion", "what becomes of delivered messages is not set for each channel here", "false")
	switch state := strings.ToUpper(c.take("initialState")); state {
	case "", "STARTED":
	case "PAUSED", "STOPPED":
		ch.initial = state
	default:
		ch.refuse("", "initialState", "is none of STARTED, PAUSED and STOPPED")
	}
	c.expect(Lost, "attachmentProperties.type", "attachments are not taken out of messages here", "None", "NONE")
	if k := n.child("metaDataColumns"); k != nil {
		c.used[k] = true
		for _, column := range k.kids {
			if name := column.child("mappingName").str(); name != "mirth_source" && name != "mirth_type" && name != "mirth_version" {
				c.info("metaDataColumns", "there are no columns of the user's own here")
				break
			}
		}
	}
	c.rest()
}

// identifier makes text fit for an id of the engine's: letters, digits, "-", "_" and
// ".", the first a letter or digit, not too long for a number behind it.
func identifier(text, otherwise string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
		if b.Len() == 56 {
			break
		}
	}
	id := strings.Trim(b.String(), "-_.")
	if id == "" {
		return otherwise
	}
	return id
}

// unique adds a number to an id that is taken, and takes it.
func unique(taken map[string]bool, id string) string {
	free := id
	for i := 2; taken[free]; i++ {
		free = fmt.Sprintf("%s-%d", id, i)
	}
	taken[free] = true
	return free
}
