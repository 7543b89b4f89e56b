package sqlite_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/internal/interop"
)

// A systemCall is one line of a recording, strings decoded.
type systemCall struct {
	name    string
	args    string   // as strace printed them
	paths   []string // of descriptors and arguments, in order
	data    []byte   // what was written
	numbers []int64  // the plain numbers behind the data
	result  int64
}

// recordingOf runs a child under strace and returns its recording: every system
// call that changes a file, and the child's words, in one order.
func recordingOf(t *testing.T, name, dir string, synchronous int) []systemCall {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	c := start(t, name, dir, synchronous, interop.Need(t, "strace"), "-f", "-qq", "-y", "-xx", "-s", "10000000", "-o", trace,
		"-e", "trace=open,openat,pwrite64,write,fdatasync,fsync,ftruncate,rename,renameat,unlink,unlinkat", "-e", "signal=none")
	c.finish(t)
	f, err := os.Open(trace)
	require.NoError(t, err)
	defer f.Close()
	var calls []systemCall
	unfinished := make(map[string]string) // by thread
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<30)
	for scanner.Scan() {
		thread, line, _ := strings.Cut(scanner.Text(), " ")
		line = strings.TrimSpace(line)
		if head, ok := strings.CutSuffix(line, " <unfinished ...>"); ok {
			unfinished[thread] = head
			continue
		}
		if strings.HasPrefix(line, "<... ") {
			_, tail, _ := strings.Cut(line, " resumed>")
			line = unfinished[thread] + tail
		}
		if call, ok := parseCall(line); ok {
			calls = append(calls, call)
		}
	}
	require.NoError(t, scanner.Err())
	return calls
}

var (
	callLine  = regexp.MustCompile(`^(\w+)\((.*)\)\s+= (-?\d+)`)
	pathArg   = regexp.MustCompile(`<((?:\\x[0-9a-f]{2})*)>`)
	stringArg = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
)

func parseCall(line string) (systemCall, bool) {
	m := callLine.FindStringSubmatch(line)
	if m == nil {
		return systemCall{}, false
	}
	call := systemCall{name: m[1], args: m[2]}
	call.result, _ = strconv.ParseInt(m[3], 10, 64)
	text := stringArg.FindStringSubmatchIndex(m[2])
	rest := m[2]
	if text != nil {
		call.data, rest = unhex(m[2][text[2]:text[3]]), m[2][text[1]:]
	}
	for _, p := range pathArg.FindAllStringSubmatch(m[2], -1) {
		call.paths = append(call.paths, string(unhex(p[1])))
	}
	for field := range strings.SplitSeq(rest, ",") {
		if n, err := strconv.ParseInt(strings.TrimSpace(field), 10, 64); err == nil {
			call.numbers = append(call.numbers, n)
		}
	}
	return call, true
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil {
		return nil
	}
	return b
}

// A disk holds what the files of one directory are for a program, and what would
// be left of them if the power failed now. It believes in nothing but syncs: a
// file's content is durable up to its last fsync, its name up to the last fsync of
// the directory.
type disk struct {
	dir           string
	names         map[string]*inode
	durableNames  map[string]*inode
	acknowledged  []string
	syncs, writes int
}

type inode struct {
	content []byte
	durable []byte
	pending []change // since the last sync
}

// A change is a write, or, without data, a truncation.
type change struct {
	offset int64
	data   []byte
}

func (c change) apply(content []byte) []byte {
	if c.data == nil {
		if grow := c.offset - int64(len(content)); grow > 0 {
			return append(content, make([]byte, grow)...)
		}
		return content[:c.offset]
	}
	if grow := c.offset + int64(len(c.data)) - int64(len(content)); grow > 0 {
		content = append(content, make([]byte, grow)...)
	}
	copy(content[c.offset:], c.data)
	return content
}

func newDisk(dir string) *disk {
	return &disk{dir: dir, names: map[string]*inode{}, durableNames: map[string]*inode{}}
}

// file returns the file of a path, if it is one of the database's that a power
// failure leaves: the index (-shm) is only memory.
func (d *disk) file(path string) (*inode, string) {
	name, ok := strings.CutPrefix(path, d.dir+"/")
	if !ok || !strings.HasPrefix(name, "engine.db") || strings.HasSuffix(name, "-shm") {
		return nil, ""
	}
	return d.names[name], name
}

// syncing tells whether a call makes something of the disk durable.
func (d *disk) syncing(call systemCall) bool {
	if call.name != "fsync" && call.name != "fdatasync" || call.result != 0 {
		return false
	}
	f, _ := d.file(call.paths[0])
	return f != nil || call.paths[0] == d.dir
}

// do applies a call.
func (d *disk) do(t *testing.T, call systemCall) {
	t.Helper()
	if call.result < 0 {
		return
	}
	switch call.name {
	case "open", "openat":
		f, name := d.file(string(call.data))
		require.False(t, f != nil && strings.Contains(call.args, "O_TRUNC"), "%s is truncated", name)
		if f == nil && name != "" {
			d.names[name] = new(inode)
		}
	case "pwrite64":
		if f, _ := d.file(call.paths[0]); f != nil {
			d.writes++
			f.change(change{call.numbers[len(call.numbers)-1], call.data[:call.result]})
		}
	case "ftruncate":
		if f, _ := d.file(call.paths[0]); f != nil {
			f.change(change{offset: call.numbers[len(call.numbers)-1]})
		}
	case "unlink", "unlinkat":
		if _, name := d.file(string(call.data)); name != "" {
			delete(d.names, name)
		}
	case "fsync", "fdatasync":
		if f, _ := d.file(call.paths[0]); f != nil {
			f.durable, f.pending = bytes.Clone(f.content), nil
		} else if call.paths[0] == d.dir {
			d.durableNames = maps.Clone(d.names)
		}
	case "write":
		f, _ := d.file(call.paths[0])
		require.Nil(t, f, "the database is written with pwrite64 alone")
		d.acknowledged = append(d.acknowledged, saidIn(strings.Split(strings.TrimSpace(string(call.data)), "\n"), acknowledged)...)
	default:
		require.Fail(t, "unexpected call", call.name)
	}
}

func (f *inode) change(c change) {
	f.content = c.apply(f.content)
	f.pending = append(f.pending, c)
}

// How much of what was not synced survives a power failure.
type survival int

const (
	nothing survival = iota // of the unsynced
	prefix                  // the first changes of each file, the last of them torn
	subset                  // any of them, in order
)

// image writes to dir what a power failure now would leave, and tells whether
// that can differ from what nothing leaves.
func (d *disk) image(t *testing.T, dir string, how survival, rnd *rand.Rand) (differs bool) {
	t.Helper()
	names := d.durableNames
	if how != nothing && rnd.IntN(2) == 0 {
		names, differs = d.names, !maps.Equal(d.names, d.durableNames)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := names[name]
		content := bytes.Clone(f.durable)
		if how != nothing && len(f.pending) > 0 {
			differs = true
			for _, c := range surviving(f.pending, how, rnd) {
				content = c.apply(content)
			}
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return differs
}

func surviving(pending []change, how survival, rnd *rand.Rand) []change {
	if how == subset {
		return slices.DeleteFunc(slices.Clone(pending), func(change) bool { return rnd.IntN(2) == 0 })
	}
	left := slices.Clone(pending[:1+rnd.IntN(len(pending))])
	last := &left[len(left)-1]
	if sectors := len(last.data) / 512; sectors > 1 {
		last.data = last.data[:512*(1+rnd.IntN(sectors-1))]
	}
	return left
}
