package leakcheck

import (
	"runtime"
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
	for deadline := time.Now().Add(grace); len(strays()) > before && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	assert.Len(t, strays(), before)
}
