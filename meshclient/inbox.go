package meshclient

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// A Query says which messages of the inbox are wanted.
type Query struct {
	// MaxResults is how many ids a page may have, from 10 to 5000; 0: 500.
	MaxResults int
	// WorkflowFilter takes one workflow, or all but that: W, !W, W*, !W*, *W* or
	// !*W*, from 2 to 255 bytes. "": all.
	WorkflowFilter string
	// Next is that of the page before this one, "" for the first.
	Next string
}

// A Page is a part of the inbox.
type Page struct {
	MessageIDs []string
	// Next is for the Query of the page after this; "": there is none. With a
	// filter a page may be empty and have one.
	Next string
	// Approx is about how many messages are in the inbox; -1: not told.
	Approx int
	// Full tells that the page has as many ids as it may have, and no Next: as
	// version 1 of the API lists no more, list again when they are acknowledged.
	Full bool
}

const (
	defaultResults = 500
	maxPages       = 100_000 // of one Messages
)

type inboxBody struct {
	Messages []text `json:"messages"`
	Links    struct {
		Next text `json:"next"`
	} `json:"links"`
	Approx *int `json:"approx_inbox_count"`
}

// values returns the query of the first page.
func (q *Query) values() (url.Values, error) {
	v := url.Values{}
	switch {
	case q.MaxResults != 0 && (q.MaxResults < 10 || q.MaxResults > 5000):
		return nil, local("inbox", ErrInvalid, fmt.Sprintf("MaxResults is %d, and MESH takes 10 to 5000", q.MaxResults))
	case q.WorkflowFilter != "" && (len(q.WorkflowFilter) < 2 || len(q.WorkflowFilter) > 255):
		return nil, local("inbox", ErrInvalid, "WorkflowFilter has not 2 to 255 bytes")
	}
	if q.MaxResults != 0 {
		v.Set("max_results", strconv.Itoa(q.MaxResults))
	}
	if q.WorkflowFilter != "" {
		v.Set("workflow_filter", q.WorkflowFilter)
	}
	return v, nil
}

// Inbox returns one page of the ids of messages that wait, the oldest first. A nil
// Query asks for the first page of all. MESH wants the inbox to be listed at most
// every five minutes, unless there is more to fetch, or something was just sent.
func (c *Client) Inbox(ctx context.Context, q *Query) (*Page, error) {
	if q == nil {
		q = &Query{}
	}
	values, err := q.values()
	if err != nil {
		return nil, err
	}
	k := &call{op: "inbox", method: http.MethodGet, path: path(c.conf.Mailbox, "inbox"), query: values.Encode()}
	if q.Next != "" {
		if k.query, err = c.nextQuery(q.Next); err != nil {
			return nil, err
		}
	}
	var b inboxBody
	if err := c.call(ctx, k, &b); err != nil {
		return nil, err
	}
	p := &Page{Next: string(b.Links.Next), Approx: -1}
	if b.Approx != nil {
		p.Approx = *b.Approx
	}
	for _, id := range b.Messages {
		if id == "" || word(string(id), maxID) == "" {
			return nil, badAnswer("inbox", http.StatusOK, "it lists what is no message id")
		}
		p.MessageIDs = append(p.MessageIDs, string(id))
	}
	limit := q.MaxResults
	if limit == 0 {
		limit = defaultResults
	}
	p.Full = p.Next == "" && len(p.MessageIDs) >= limit
	return p, nil
}

// nextQuery returns the query of a link to the next page. Of the link itself
// nothing else is used: it is the base URL that says where the token goes.
func (c *Client) nextQuery(link string) (string, error) {
	u, err := url.Parse(link)
	switch {
	case err != nil || len(link) > 8<<10:
		return "", badAnswer("inbox", 0, "the link to the next page is not well-formed")
	case u.Host != "" && !strings.EqualFold(u.Host, c.base.Host), u.Scheme != "" && u.Scheme != c.base.Scheme, u.User != nil:
		return "", badAnswer("inbox", 0, "the link to the next page leads to another host")
	case !strings.HasSuffix(strings.ToUpper(u.Path), strings.ToUpper("/"+c.conf.Mailbox+"/inbox")):
		return "", badAnswer("inbox", 0, "the link to the next page does not lead to this inbox")
	case u.RawQuery == "":
		return "", badAnswer("inbox", 0, "the link to the next page is one to the first")
	}
	return u.RawQuery, nil
}

// Messages lists all that waits, page by page, each id once. An error ends it. The
// inbox may change in the meantime: what comes later may be on no page.
func (c *Client) Messages(ctx context.Context, q *Query) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var one Query
		if q != nil {
			one = *q
		}
		listed, followed := make(map[string]bool), make(map[string]bool)
		for range maxPages {
			p, err := c.Inbox(ctx, &one)
			if err != nil {
				yield("", err)
				return
			}
			for _, id := range p.MessageIDs {
				if listed[id] {
					continue
				}
				listed[id] = true
				if !yield(id, nil) {
					return
				}
			}
			if p.Next == "" {
				return
			}
			if followed[p.Next] {
				yield("", badAnswer("inbox", http.StatusOK, "the links to the next pages go in a circle"))
				return
			}
			followed[p.Next] = true
			one.Next = p.Next
		}
		yield("", badAnswer("inbox", http.StatusOK, "there is no end of pages"))
	}
}

// Count returns how many messages wait. NHS has it marked as deprecated: a Page
// tells about the same.
func (c *Client) Count(ctx context.Context) (int, error) {
	var b struct {
		Count *int `json:"count"`
	}
	if err := c.call(ctx, &call{op: "count", method: http.MethodGet, path: path(c.conf.Mailbox, "count")}, &b); err != nil {
		return 0, err
	}
	if b.Count == nil || *b.Count < 0 {
		return 0, badAnswer("count", http.StatusOK, "it has no count")
	}
	return *b.Count, nil
}

// Acknowledge takes a message out of the inbox, after which it cannot be received
// again. Do so when it is stored durably, and not before. It may be repeated.
func (c *Client) Acknowledge(ctx context.Context, messageID string) error {
	if messageID == "" {
		return local("acknowledge", ErrInvalid, "the message id is missing")
	}
	err := c.call(ctx, &call{
		op: "acknowledge", method: http.MethodPut, path: path(c.conf.Mailbox, "inbox", messageID, "status", "acknowledged"),
	}, nil)
	if e, ok := errors.AsType[*Error](err); ok {
		e.MessageID = messageID
	}
	return err
}

// Head tells what Receive would, without the content.
func (c *Client) Head(ctx context.Context, messageID string) (*Info, error) {
	if messageID == "" {
		return nil, local("head", ErrInvalid, "the message id is missing")
	}
	resp, err := c.do(ctx, &call{op: "head", method: http.MethodHead, path: path(c.conf.Mailbox, "inbox", messageID)})
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close() // there is none
	i := parseInfo(resp.Header)
	if i.MessageID == "" {
		i.MessageID = messageID
	}
	if i.Chunks == 1 && resp.ContentLength > 0 && resp.Header.Get("Content-Encoding") == "" {
		i.Size = resp.ContentLength
	}
	return &i, nil
}
