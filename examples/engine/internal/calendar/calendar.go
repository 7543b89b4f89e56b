// Package calendar tells when something is expected to happen: on which days of the
// week, between which hours, in which time zone.
package calendar

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // an image without an operating system has no zones
)

// A Calendar is open at some times of the week. The zero value is always open.
type Calendar struct {
	days     [7]bool // by time.Weekday; of the day on which the hours begin
	from, to int     // minutes of the day; to <= from: on the next day
	zone     *time.Location
	limited  bool // by days or hours
}

// Parse reads a calendar. Each text may be empty.
//
//	days   mon-fri, or sat,sun, or fri-mon: every day
//	hours  07:00-19:00, or 22:00-06:00, which ends on the next day: all day
//	zone   Europe/London: the machine's own
func Parse(days, hours, zone string) (Calendar, error) {
	c := Calendar{zone: time.Local, limited: days != "" || hours != "", to: minutesOfDay}
	var err error
	if c.days, err = parseDays(days); err != nil {
		return Calendar{}, err
	}
	if hours != "" {
		if c.from, c.to, err = parseHours(hours); err != nil {
			return Calendar{}, err
		}
	}
	if zone != "" {
		if c.zone, err = time.LoadLocation(zone); err != nil || zone == "Local" {
			return Calendar{}, errors.New("zone: is not a time zone such as Europe/London")
		}
	}
	return c, nil
}

const minutesOfDay = 24 * 60

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func parseDays(text string) (days [7]bool, err error) {
	if text == "" {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	bad := errors.New("days: is neither days such as mon,wed nor a range such as mon-fri")
	number := func(name string) int {
		for i, day := range weekdays {
			if strings.EqualFold(strings.TrimSpace(name), day) {
				return i
			}
		}
		return -1
	}
	for item := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(item, "-")
		if !ranged {
			last = first
		}
		from, to := number(first), number(last)
		if from < 0 || to < 0 {
			return days, bad
		}
		for day := from; ; day = (day + 1) % 7 {
			days[day] = true
			if day == to {
				break
			}
		}
	}
	return days, nil
}

func parseHours(text string) (from, to int, err error) {
	bad := errors.New("hours: is not a range such as 07:00-19:00, in quotes")
	first, last, ok := strings.Cut(text, "-")
	if !ok {
		return 0, 0, bad
	}
	minutes := func(text string) (int, bool) {
		if text == "24:00" {
			return minutesOfDay, true
		}
		var h, m int
		n, err := fmt.Sscanf(text, "%02d:%02d", &h, &m)
		return h*60 + m, err == nil && n == 2 && len(text) == 5 && h >= 0 && h < 24 && m >= 0 && m < 60
	}
	from, ok1 := minutes(strings.TrimSpace(first))
	to, ok2 := minutes(strings.TrimSpace(last))
	if !ok1 || !ok2 || from == minutesOfDay || from == to {
		return 0, 0, bad
	}
	return from, to, nil
}

// Open tells whether the calendar is open at a time, and since when. One that has
// been open for more than a week, such as one without limits, has been so always:
// since is zero.
func (c *Calendar) Open(now time.Time) (since time.Time, open bool) {
	if !c.limited {
		return time.Time{}, true
	}
	at := now
	for range 8 {
		began, ok := c.window(at)
		if !ok {
			return since, open
		}
		since, open = began, true
		at = began.Add(-1) // does another one end where this one begins?
	}
	return time.Time{}, true
}

// window returns when the hours began in which a time lies.
func (c *Calendar) window(at time.Time) (began time.Time, ok bool) {
	local := at.In(c.zone)
	for _, back := range []int{0, 1} {
		day := time.Date(local.Year(), local.Month(), local.Day()-back, 0, 0, 0, 0, c.zone)
		if !c.days[day.Weekday()] {
			continue
		}
		// By the clock on the wall, whose days have 23 or 25 hours at times.
		began := time.Date(day.Year(), day.Month(), day.Day(), 0, c.from, 0, 0, c.zone)
		next := 0
		if c.to <= c.from {
			next = 1
		}
		ends := time.Date(day.Year(), day.Month(), day.Day()+next, 0, c.to, 0, 0, c.zone)
		if !at.Before(began) && at.Before(ends) {
			return began, true
		}
	}
	return time.Time{}, false
}
