package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/store"
	"github.com/carewire/carewire/examples/engine/internal/store/sqlite"
)

// The environment of a test binary that a test starts as a process of its own:
// which of children it is, its data directory, and the level of synchronous.
const (
	childEnv       = "CAREWIRE_STORE_CHILD"
	childDir       = "CAREWIRE_STORE_DIR"
	childSync      = "CAREWIRE_STORE_SYNCHRONOUS"
	childDone      = "done"
	acknowledged   = "ack"
	sent           = "sent"
	refused        = "refused"
	drained, quiet = "drained", "quiet" // the destinations of every child's messages
)

// children are the processes that tests start, by name. They say what they have
// done in lines of a word and a control id, each in one write.
var children = map[string]func(){
	"load":         func() { load(false) },
	"load-lying":   func() { load(true) },
	"sequence":     sequence,
	"until-better": untilBetter,
	"rounds":       rounds,
	"hold":         hold,
	"skip":         skip,
	"migrate":      migrate,
	"prune":        pruning,
	"backups":      backups,
}

func say(word string, what any) {
	fmt.Printf("%s %v\n", word, what)
}

func openAsChild() *sqlite.Store {
	level, err := strconv.ParseInt(os.Getenv(childSync), 10, 64)
	if err != nil {
		level = sqlite.SynchronousFull
	}
	st, err := sqlite.OpenWithSynchronous(context.Background(), os.Getenv(childDir), noReserve, level)
	if err != nil {
		say("open", err)
		os.Exit(1)
	}
	return st
}

func intake(st store.Store, controlID string) error {
	_, err := st.Intake(context.Background(), store.Intake{
		Channel: "c", ControlID: controlID, Raw: []byte("MSH|" + strings.Repeat(controlID, 40)), Destinations: []string{drained, quiet},
	})
	return err
}

// load takes in from 50 callers and empties one of the two queues, until it is
// killed. When lying it acknowledges before the store has answered.
func load(lying bool) { loadOn(openAsChild(), lying) }

func loadOn(st *sqlite.Store, lying bool) {
	var number atomic.Int64
	for range 50 {
		go func() {
			for {
				id := fmt.Sprintf("%d-%d", os.Getpid(), number.Add(1))
				if lying {
					say(acknowledged, id)
				}
				if err := intake(st, id); err != nil {
					say(refused, id)
				} else if !lying {
					say(acknowledged, id)
				}
			}
		}()
	}
	for {
		list, _ := st.Pending(context.Background(), "c", drained, 0, 8)
		for i := range list {
			st.Attempting(&list[i])
			say(sent, list[i].Message.ControlID)
			if err := st.Delivered(context.Background(), &list[i]); err != nil {
				say(refused, err)
			}
		}
	}
}

// sequence takes in 300 messages one after the other, or until 20 were refused,
// which is long before the store tries to reopen.
func sequence() {
	st := openAsChild()
	for i, refusals := 0, 0; i < 300 && refusals < 20; i++ {
		if err := intake(st, strconv.Itoa(i)); err != nil {
			say(refused, err)
			refusals++
		} else {
			say(acknowledged, i)
		}
	}
	say(childDone, st.Close())
}

// untilBetter takes in until the store has failed and become well again.
func untilBetter() {
	st := openAsChild()
	failed := false
	for i := range 1000 {
		err := intake(st, strconv.Itoa(i))
		if err == nil {
			say(acknowledged, i)
			if failed {
				break
			}
			continue
		}
		say(refused, err)
		if _, err := st.Pending(context.Background(), "c", quiet, 0, 1); !failed && !errors.Is(err, store.ErrFailed) {
			say("read", err)
		}
		failed = errors.Is(err, store.ErrFailed) && errors.Is(st.Healthy(), store.ErrFailed)
		time.Sleep(50 * time.Millisecond)
	}
	say(childDone, st.Close())
}

// rounds opens and closes the store a few times with some work between, so that a
// recording holds commits, checkpoints, and the log's end and beginning.
func rounds() {
	for round := range 3 {
		st := openAsChild()
		for i := range 15 {
			id := fmt.Sprintf("%d-%d", round, i)
			if err := intake(st, id); err != nil {
				say(refused, err)
				os.Exit(1)
			}
			say(acknowledged, id)
		}
		list, _ := st.Pending(context.Background(), "c", drained, 0, 5)
		for i := range list {
			say(sent, list[i].Message.ControlID)
			_ = st.Delivered(context.Background(), &list[i])
		}
		if err := st.Close(); err != nil {
			say("close", err)
			os.Exit(1)
		}
	}
	say(childDone, nil)
}

// hold keeps the store open until its standard input ends, which is when its parent
// ends or has waited for it.
func hold() {
	st := openAsChild()
	say("open", nil)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	_ = st.Close()
}

// skip skips two of four messages, and waits to be killed.
func skip() {
	st := openAsChild()
	for i := range 4 {
		if err := intake(st, strconv.Itoa(i)); err != nil {
			say(refused, err)
		}
	}
	list, _ := st.Pending(context.Background(), "c", drained, 0, 2)
	for i := range list {
		if err := st.Skip(context.Background(), &list[i], time.Now(), false, "AR"); err != nil {
			say(refused, err)
		}
	}
	say(childDone, nil)
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

// migrate opens the store with a migration that takes all day.
func migrate() {
	sqlite.AddMigration(`CREATE TABLE grown AS
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT zeroblob(100000) FROM n`)
	hold()
}

// A child is a running process and what it has said.
type child struct {
	*exec.Cmd

	mu    sync.Mutex
	lines []string // guarded by mu
	more  chan struct{}
	ended chan struct{} // closed when its output has ended
}

// start runs a child, under the programs named before it, if any.
func start(t *testing.T, name, dir string, synchronous int, under ...string) *child {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	args := append(under, self)
	c := &child{Cmd: exec.CommandContext(t.Context(), args[0], args[1:]...), more: make(chan struct{}, 1), ended: make(chan struct{})}
	c.Env = append(os.Environ(), childEnv+"="+name, childDir+"="+dir, childSync+"="+strconv.Itoa(synchronous))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	_, err = c.StdinPipe() // without one the child's input ends at once
	require.NoError(t, err)
	require.NoError(t, c.Start())
	go func() {
		defer close(c.ended)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			c.mu.Lock()
			c.lines = append(c.lines, scanner.Text())
			c.mu.Unlock()
			select {
			case c.more <- struct{}{}:
			default:
			}
		}
	}()
	return c
}

// said returns what followed the word in the child's lines so far.
func (c *child) said(word string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return saidIn(c.lines, word)
}

func saidIn(lines []string, word string) []string {
	var all []string
	for _, line := range lines {
		if what, ok := strings.CutPrefix(line, word+" "); ok {
			all = append(all, what)
		}
	}
	return all
}

// waitFor waits until the child has said the word n times.
func (c *child) waitFor(t *testing.T, word string, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	for len(c.said(word)) < n {
		select {
		case <-c.more:
		case <-c.ended:
			require.GreaterOrEqual(t, len(c.said(word)), n, "the child ended: %v", c.lines)
			return
		case <-deadline:
			require.FailNow(t, "the child is silent", "%v", c.lines)
		}
	}
}

// finish waits for the child's own end.
func (c *child) finish(t *testing.T) {
	t.Helper()
	<-c.ended
	require.NoError(t, c.Wait(), "%v", c.lines)
}

// kill ends the child at once, as kill -9 does.
func (c *child) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, c.Process.Kill())
	<-c.ended
	require.Error(t, c.Wait())
}
