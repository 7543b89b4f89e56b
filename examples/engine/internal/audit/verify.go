package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// chainStart is in the first line there ever was, in the place of a hash.
const chainStart = "0000000000000000000000000000000000000000000000000000000000000000"

// BrokenError says where the chain does not hold.
type BrokenError struct {
	File string
	Line int // from 1
	Text string
}

// Error returns "file:line: text".
func (e *BrokenError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text) }

// chain goes along the lines of one or more files.
type chain struct {
	file  string
	begun bool
	first uint64
	seq   uint64
	last  string
}

// hashTail is what stands behind the fields that a hash is of.
const hashTail = len(`,"hash":"`) + 2*sha256.Size + len(`"}`)

// lines goes along text, which has whole lines, and hands each to visit.
func (c *chain) lines(text []byte, visit func(Record)) error {
	number := 0
	for len(text) > 0 {
		number++
		one, rest, found := bytes.Cut(text, []byte("\n"))
		if !found {
			return c.broken(number, "the line has no end")
		}
		rec, prev, err := decode(one)
		switch {
		case err != nil:
			return c.broken(number, err.Error())
		case !c.begun && rec.Seq == 1 && prev != chainStart:
			return c.broken(number, "the first line does not begin a chain")
		case c.begun && rec.Seq != c.seq+1:
			return c.broken(number, fmt.Sprintf("is number %d and follows number %d", rec.Seq, c.seq))
		case c.begun && prev != c.last:
			return c.broken(number, "does not follow the line before: one of the two was changed, or there was another between them")
		}
		if !c.begun {
			c.begun, c.first = true, rec.Seq
		}
		c.seq, c.last = rec.Seq, rec.Hash
		if visit != nil {
			visit(rec)
		}
		text = rest
	}
	return nil
}

func (c *chain) broken(number int, text string) error {
	return &BrokenError{File: c.file, Line: number, Text: text}
}

// decode reads a line without its end, and checks its hash. Its errors hold
// nothing of it.
func decode(text []byte) (rec Record, prev string, err error) {
	if len(text) > maxLine || len(text) < hashTail {
		return Record{}, "", errors.New("is not a line of the log")
	}
	head, tail := text[:len(text)-hashTail], string(text[len(text)-hashTail:])
	hash, ok := strings.CutPrefix(tail, `,"hash":"`)
	hash, okEnd := strings.CutSuffix(hash, `"}`)
	if !ok || !okEnd {
		return Record{}, "", errors.New("is not a line of the log")
	}
	sum := sha256.New()
	sum.Write(head)
	sum.Write([]byte("}"))
	if hex.EncodeToString(sum.Sum(nil)) != hash {
		return Record{}, "", errors.New("was changed: its hash is another")
	}
	var l line
	if json.Unmarshal(append(slices.Clone(head), '}'), &l) != nil || l.Seq == 0 {
		return Record{}, "", errors.New("is not a line of the log")
	}
	return Record{Seq: l.Seq, Time: l.Time, Hash: hash, Event: Event{
		Action: l.Action, Outcome: l.Outcome, UserID: l.UserID, User: l.User, Client: l.Client, Request: l.Request, Attributes: l.Attributes,
	}}, l.Prev, nil
}

// list returns the numbers of the files in dir, the oldest first.
func list(dir string) ([]int, error) {
	names, err := filepath.Glob(filepath.Join(dir, "audit-*.jsonl"))
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, name := range names {
		var n int
		if _, err := fmt.Sscanf(filepath.Base(name), "audit-%d.jsonl", &n); err != nil || n < 1 {
			return nil, fmt.Errorf("%s is not a file of the log: move it away", name)
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers, nil
}

// Summary says what a log that holds together has in it.
type Summary struct {
	Records int
	First   uint64 // number of the oldest record; more than 1: older ones were pruned
	Last    uint64
	Head    string // hash of the last record: keep it elsewhere, to notice what is cut off later
	// Unfinished is how many bytes there are of a line that was being written.
	Unfinished int
}

// Verify goes along the whole log in dir. The error is a *BrokenError where the
// chain does not hold.
func Verify(dir string) (Summary, error) {
	numbers, err := list(dir)
	if err != nil {
		return Summary{}, err
	}
	if len(numbers) == 0 {
		return Summary{}, fmt.Errorf("there is no audit log in %s", dir)
	}
	l := Log{dir: dir}
	var c chain
	var sum Summary
	for i, n := range numbers {
		c.file = l.path(n)
		if i > 0 && n != numbers[i-1]+1 {
			return Summary{}, c.broken(1, fmt.Sprintf("the file before is number %d: there was another between them", numbers[i-1]))
		}
		text, err := os.ReadFile(c.file)
		if err != nil {
			return Summary{}, err
		}
		if i == len(numbers)-1 {
			end := bytes.LastIndexByte(text, '\n') + 1
			sum.Unfinished = len(text) - end
			text = text[:end]
		}
		if err := c.lines(text, func(Record) { sum.Records++ }); err != nil {
			return Summary{}, err
		}
	}
	sum.First, sum.Last, sum.Head = c.first, c.seq, c.last
	return sum, nil
}

// Read returns up to limit records with numbers up to max, the latest first. Max
// 0 means the last.
func (l *Log) Read(limit int, maxSeq uint64) ([]Record, error) {
	l.mu.Lock()
	end, size, number := l.seq, l.size, l.number
	l.mu.Unlock()
	if maxSeq == 0 || maxSeq > end {
		maxSeq = end
	}
	found := []Record{}
	for ; number > 0 && len(found) < limit; number-- {
		text, err := os.ReadFile(l.path(number))
		if errors.Is(err, os.ErrNotExist) {
			break // pruned
		}
		if err != nil {
			return nil, err
		}
		if size >= 0 {
			text = text[:min(size, int64(len(text)))] // what counts
			size = -1
		}
		var of []Record
		c := chain{file: l.path(number)}
		if err := c.lines(text, func(r Record) {
			if r.Seq <= maxSeq {
				of = append(of, r)
			}
		}); err != nil {
			return nil, err
		}
		slices.Reverse(of)
		found = append(found, of[:min(len(of), limit-len(found))]...)
	}
	return found, nil
}
