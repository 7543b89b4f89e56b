package smtpx

import (
	"bufio"
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

var enhancedForm = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}$`)

// Whatever a server sends, what is made of it is bounded, can be logged, and does
// not depend on how it arrives.
func FuzzReply(f *testing.F) {
	for _, seed := range []string{
		"250 ok\r\n", "250-a\r\n250 b\r\n", "250\r\n", "550 5.1.1 no\r\n", "550 4.1.1 no\r\n", "250-a\r\n550 b\r\n", "2\r\n", "250-\n250 \n",
		"999 x\r\n", "250 2.0.0\r\n", "250 2.0.0000 x\r\n", "250x\r\n", "\r\n", "250-" + strings.Repeat("x", 5000) + "\r\n", strings.Repeat("250-x\r\n", 200),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		whole := bufio.NewReaderSize(bytes.NewReader(data), maxReplyLine)
		a, err := readAnswer(whole, true)
		b, err2 := readAnswer(bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(data)), maxReplyLine), true)
		if (err == nil) != (err2 == nil) || a.Reply != b.Reply || len(a.lines) != len(b.lines) {
			t.Fatalf("%v %v, byte by byte %v %v", a, err, b, err2)
		}
		if err != nil {
			if a.Code != 0 || a.lines != nil {
				t.Fatal("an error, and an answer too")
			}
			return
		}
		if a.Code < 200 || a.Code > 599 || len(a.lines) == 0 || len(a.lines) > maxReplyLines {
			t.Fatalf("%v", a)
		}
		if a.Enhanced != "" && (!enhancedForm.MatchString(a.Enhanced) || int(a.Enhanced[0]-'0') != a.Code/100) {
			t.Fatalf("enhanced %q", a.Enhanced)
		}
		extensions(a.lines)
	})
}

// No template ends in a value being expanded, and none that has no ${ changes.
func FuzzExpand(f *testing.F) {
	f.Add("a ${x} $${x} ${y}", "${x}", "x")
	f.Add("${", "v", "")
	f.Add("$$${x}", "$", "x")
	f.Fuzz(func(t *testing.T, text, value, name string) {
		out, err := Expand(text, map[string]string{name: value})
		if err != nil {
			if out != "" {
				t.Fatal("an error, and a text too")
			}
			return
		}
		if !strings.Contains(text, "${") && out != text {
			t.Fatalf("%q became %q", text, out)
		}
		// Put in by a marker that no template knows, the values are where they were.
		const marker = "\x00marker\x00"
		if strings.Contains(text+value, marker) {
			return
		}
		marked, err := Expand(text, map[string]string{name: marker})
		if err != nil || strings.ReplaceAll(marked, marker, value) != out {
			t.Fatalf("%q with %q: %q", text, value, out)
		}
	})
}

// An address that is taken stands between < and > as it is.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"a@example.org", "A B <a@example.org>", `"a>b"@x`, "a@[127.0.0.1]", "jörg@bücher.example", "=?utf-8?q?a=0db?= <a@b>", "g:a@b;", "(c)a@b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAddress(text)
		if err != nil {
			return
		}
		if box := a.Address.Address; strings.ContainsAny(box, " <>\r\n\t\x00\"\\") || strings.Count(box, "@") != 1 || len(box) > 254 {
			t.Fatalf("%q", box)
		}
		if strings.ContainsAny(a.Address.String(), "\r\n\x00") {
			t.Fatalf("%q", a.Address.String())
		}
	})
}

// Dots are doubled and nothing else changes, however the message is cut.
func FuzzDots(f *testing.F) {
	f.Add([]byte(".\r\n..\r\na.\r\n.b"), 3)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		size = min(max(size, 1), 64)
		var out bytes.Buffer
		if err := copyDots(&out, bytes.NewReader(data), make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		var want []byte
		for line := range bytes.SplitAfterSeq(data, []byte("\n")) {
			if bytes.HasPrefix(line, []byte(".")) {
				want = append(want, '.')
			}
			want = append(want, line...)
		}
		if !bytes.Equal(want, out.Bytes()) {
			t.Fatalf("%q became %q, want %q", data, out.Bytes(), want)
		}
	})
}

// What a spool takes has no line end but CRLF, no NUL and no line that is too
// long, and does not depend on how it is cut.
func FuzzSpool(f *testing.F) {
	for _, seed := range []string{
		"a\r\nb\r\n", "a\nb", "a\rb", "\r\r\n", "\n", "\r", "a\x00", strings.Repeat("x", 998) + "\r\n", strings.Repeat("x", 999), "\xff", "",
	} {
		f.Add([]byte(seed), 1)
	}
	foul := regexp.MustCompile("(?s)(^|[^\r])\n|\r([^\n]|$)|\x00")
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		size = min(max(size, 1), 64)
		s := &spool{limit: 1 << 20}
		for chunk := range slices.Chunk(data, size) {
			_, _ = s.Write(chunk) // the error is kept
		}
		err := s.finish()
		bad := foul.Match(data)
		for line := range bytes.SplitSeq(data, []byte("\r\n")) {
			bad = bad || len(line) > maxLine
		}
		if len(data) < 1<<20 && (err != nil) != bad {
			t.Fatalf("%q: %v", data, err)
		}
		if err == nil && s.size > 0 && !bytes.HasSuffix(s.memory.Bytes(), []byte("\r\n")) {
			t.Fatalf("%q has no end", data)
		}
	})
}
