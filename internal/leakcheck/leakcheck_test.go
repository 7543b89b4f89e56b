package leakcheck

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAGoroutineThatStaysIsReported(t *testing.T) {
	before := len(strays())
	release := make(chan struct{})
	started := make(chan struct{})
	go func() {
		close(started)
		<-release
	}()
	<-started
	assert.Len(t, strays(), before+1)
	close(release)
	assert.Eventually(t, func() bool { return len(strays()) <= before }, time.Second, time.Millisecond)
}
