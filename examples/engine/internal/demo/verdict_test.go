package demo

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/mllp"
)

func acked(ids ...string) *line {
	l := &line{}
	for _, id := range ids {
		l.sent = append(l.sent, sent{id: id, digest: sha256.Sum256([]byte(id)), acked: true})
	}
	return l
}

func arrived(ids ...string) []delivered {
	var ds []delivered
	for _, id := range ids {
		ds = append(ds, delivered{id: id, digest: sha256.Sum256([]byte(id))})
	}
	return ds
}

func TestTheVerdictFindsWhatWentWrong(t *testing.T) {
	unanswered := acked("a1", "a2")
	unanswered.sent[1].acked = false
	altered := arrived("a1", "a2")
	altered[1].digest[0] ^= 1

	for name, tc := range map[string]struct {
		lines   []*line
		arrived []delivered
		want    verdict
		held    bool
	}{
		"all there, lines interleaved": {
			[]*line{acked("a1", "a2"), acked("b1", "b2")},
			arrived("b1", "a1", "a2", "b2"),
			verdict{sent: 4, acked: 4, delivered: 4},
			true,
		},
		"an acknowledged message is missing": {
			[]*line{acked("a1", "a2", "a3")},
			arrived("a1", "a3"),
			verdict{sent: 3, acked: 3, delivered: 2, lost: 1},
			false,
		},
		"a message that nobody acknowledged may be missing": {
			[]*line{unanswered},
			arrived("a1"),
			verdict{sent: 2, acked: 1, delivered: 1},
			true,
		},
		"a message overtook another": {
			[]*line{acked("a1", "a2", "a3")},
			arrived("a2", "a1", "a3"),
			verdict{sent: 3, acked: 3, delivered: 3, misordered: 1},
			false,
		},
		"a message came twice": {
			[]*line{acked("a1", "a2")},
			arrived("a1", "a1", "a2"),
			verdict{sent: 2, acked: 2, delivered: 2, duplicated: 1},
			true,
		},
		"a message arrived altered": {
			[]*line{acked("a1", "a2")},
			altered,
			verdict{sent: 2, acked: 2, delivered: 1, lost: 1, altered: 1},
			false,
		},
		"a message that nobody sent": {
			[]*line{acked("a1")},
			arrived("a1", "x1"),
			verdict{sent: 1, acked: 1, delivered: 1, altered: 1},
			false,
		},
		"nothing happened at all": {nil, nil, verdict{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := judge(tc.lines, tc.arrived)
			assert.Equal(t, tc.want, got)
			assert.Equal(t, tc.held, got.held())
		})
	}
}

func TestMessagesAreOfSeveralKindsAndAlwaysTheSame(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	events := make(map[string]bool)
	for n := range 2 * len(kinds) {
		msg := message(n, "ID-7", at)
		require.Equal(t, msg, message(n, "ID-7", at))
		var h mllp.Header
		require.NoError(t, h.Parse(msg))
		assert.Equal(t, "ID-7", string(h.ControlID))
		assert.Empty(t, h.AcceptAck)
		assert.True(t, bytes.HasSuffix(msg, []byte("\r")))
		events[strings.SplitN(string(h.MessageType), "^", 2)[0]] = true
	}
	assert.GreaterOrEqual(t, len(events), 5)
}
