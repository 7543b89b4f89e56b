package sqlite_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	paths   []string // of descriptors, in order
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

// parseCall reads `name(args) = result`. As strace prints every string and path as
// hexadecimal digits, they hold no character that means something here.
func parseCall(line string) (systemCall, bool) {
	name, rest, ok := strings.Cut(line, "(")
	end := strings.LastIndex(rest, ") ")
	if !ok || end < 0 {
		return systemCall{}, false
	}
	call := systemCall{name: name, args: rest[:end]}
	result := strings.Fields(strings.TrimLeft(rest[end+1:], " ="))
	if len(result) == 0 {
		return systemCall{}, false
	}
	number, _, _ := strings.Cut(result[0], "<") // a descriptor comes with its path
	call.result, _ = strconv.ParseInt(number, 10, 64)

	behind := call.args
	if before, tail, ok := strings.Cut(call.args, `"`); ok {
		text, after, _ := strings.Cut(tail, `"`)
		call.data, behind = unhex(text), after
		call.paths = pathsIn(before)
	} else {
		call.paths = pathsIn(call.args)
	}
	for field := range strings.SplitSeq(behind, ",") {
		if n, err := strconv.ParseInt(strings.TrimSpace(field), 10, 64); err == nil {
			call.numbers = append(call.numbers, n)
		}
	}
	return call, true
}

// pathsIn returns the paths that stand in angle brackets behind descriptors.
func pathsIn(args string) (paths []string) {
	for {
		_, tail, ok := strings.Cut(args, "<")
		if !ok {
			return paths
		}
		path, after, _ := strings.Cut(tail, ">")
		paths, args = append(paths, string(unhex(path))), after
	}
}

// unhex decodes \x41\x42.
func unhex(s string) []byte {
	digits := make([]byte, 0, len(s)/2)
	for ; len(s) >= 4; s = s[4:] {
		digits = append(digits, s[2], s[3])
	}
	decoded := make([]byte, len(digits)/2)
	if _, err := hex.Decode(decoded, digits); err != nil {
		return nil
	}
	return decoded
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
