package calendar_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/carewire/carewire/examples/engine/internal/calendar"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	london, err := time.LoadLocation("Europe/London")
	require.NoError(t, err)
	at := func(text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		parsed, err := time.ParseInLocation("2006-01-02 15:04", text, london)
		require.NoError(t, err)
		return parsed
	}
	// 2026-12-01 is a Tuesday; the clocks of London go forward on 2026-03-29 and back
	// on 2026-10-25, Sundays both.
	for name, tt := range map[string]struct {
		days, hours, now string
		since            string
		open             bool
	}{
		"without limits":                  {"", "", "2026-12-01 03:00", "", true},
		"in the hours":                    {"mon-fri", "07:00-19:00", "2026-12-01 12:00", "2026-12-01 07:00", true},
		"at their beginning":              {"mon-fri", "07:00-19:00", "2026-12-01 07:00", "2026-12-01 07:00", true},
		"at their end":                    {"mon-fri", "07:00-19:00", "2026-12-01 19:00", "", false},
		"before them":                     {"mon-fri", "07:00-19:00", "2026-12-01 06:59", "", false},
		"on another day":                  {"mon-fri", "07:00-19:00", "2026-12-05 12:00", "", false},
		"over midnight, before":           {"mon", "22:00-06:00", "2026-11-30 23:00", "2026-11-30 22:00", true},
		"over midnight, after":            {"mon", "22:00-06:00", "2026-12-01 05:59", "2026-11-30 22:00", true},
		"over midnight, the next evening": {"mon", "22:00-06:00", "2026-12-01 23:00", "", false},
		"whole days are one":              {"mon-fri", "", "2026-12-03 12:00", "2026-11-30 00:00", true},
		"every day, all day":              {"mon-sun", "", "2026-12-03 12:00", "", true},
		"until midnight":                  {"tue", "12:00-24:00", "2026-12-01 23:59", "2026-12-01 12:00", true},
		"from friday to monday":           {"fri-mon", "", "2026-12-06 12:00", "2026-12-04 00:00", true},
		"one day and another":             {"tue,thu", "", "2026-12-03 12:00", "2026-12-03 00:00", true},
		"in the missing hour of spring":   {"sun", "01:30-04:00", "2026-03-29 03:00", "2026-03-29 02:30", true},
		"in the hours after autumn":       {"sun", "01:00-04:00", "2026-10-25 03:00", "2026-10-25 01:00", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := calendar.Parse(tt.days, tt.hours, "Europe/London")
			require.NoError(t, err)
			since, open := c.Open(at(tt.now))
			assert.Equal(t, tt.open, open)
			assert.True(t, since.Equal(at(tt.since)), "since %v", since)
		})
	}
	since, open := new(calendar.Calendar).Open(time.Now())
	assert.True(t, open)
	assert.True(t, since.IsZero())
}

func TestParseRefusesWhatIsNoCalendar(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ days, hours, zone, want string }{
		{"monday", "", "", "days: "},
		{"mon-", "", "", "days: "},
		{"mon,,fri", "", "", "days: "},
		{"", "7-19", "", "hours: "},
		{"", "07:00", "", "hours: "},
		{"", "07:00-24:01", "", "hours: "},
		{"", "24:00-07:00", "", "hours: "},
		{"", "07:60-19:00", "", "hours: "},
		{"", "07:00-07:00", "", "hours: "},
		{"", "-7:00-07:00", "", "hours: "},
		{"", "", "Europe/Londinium", "zone: "},
		{"", "", "Local", "zone: "},
		{"", "", "../zone", "zone: "},
	} {
		_, err := calendar.Parse(tt.days, tt.hours, tt.zone)
		require.ErrorContains(t, err, tt.want, "%+v", tt)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("mon-fri", "07:00-19:00", int64(1796100000))
	f.Add("sat,sun", "22:00-06:00", int64(1774747800))
	f.Fuzz(func(t *testing.T, days, hours string, at int64) {
		c, err := calendar.Parse(days, hours, "Europe/London")
		if err != nil {
			return
		}
		now := time.Unix(at%(1<<33), 0)
		since, open := c.Open(now)
		if !open && !since.IsZero() {
			t.Fatal("closed since some time")
		}
		if since.After(now) {
			t.Fatalf("open since %v, which is after %v", since, now)
		}
		if open && !since.IsZero() {
			if _, at := c.Open(since); !at {
				t.Fatalf("not open at %v, since which it is", since)
			}
		}
	})
}
