package sessions_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/carewire/carewire/examples/engine/internal/sessions"
)

func ended(s *sessions.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

func TestSessionEndsAfterHalfAnHourWithoutUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := sessions.New()
		id, s := table.Create(7)
		for range 5 {
			time.Sleep(29 * time.Minute)
			used, ok := table.Use(id)
			assert.True(t, ok)
			assert.Same(t, s, used)
			assert.Equal(t, 7, used.User())
		}
		time.Sleep(30*time.Minute - time.Nanosecond)
		synctest.Wait()
		assert.False(t, ended(s))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.True(t, ended(s))
		_, ok := table.Use(id)
		assert.False(t, ok)
	})
}

func TestSessionEndsAfterTwelveHoursInAnyCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := sessions.New()
		id, s := table.Create(7)
		for begun := time.Now(); time.Since(begun) < 12*time.Hour-time.Minute; time.Sleep(time.Minute) {
			table.Touch(s)
		}
		_, ok := table.Use(id)
		assert.True(t, ok)
		time.Sleep(time.Minute)
		synctest.Wait()
		_, ok = table.Use(id)
		assert.False(t, ok)
		assert.True(t, ended(s))
		table.Touch(s) // changes nothing
		assert.False(t, table.SignedIn(7))
	})
}

func TestSessionsOfAUserEndTogetherAndThoseOfOthersGoOn(t *testing.T) {
	table := sessions.New()
	defer table.Close()
	idA, a := table.Create(1)
	idB, b := table.Create(1)
	idC, c := table.Create(2)
	assert.NotEqual(t, idA, idB, "every sign-in has an ID of its own")
	assert.GreaterOrEqual(t, len(idA)*5, 128, "five bits a character")
	table.EndAllOf(1)
	assert.True(t, ended(a) && ended(b))
	assert.False(t, ended(c))
	assert.False(t, table.SignedIn(1))
	_, ok := table.Use(idC)
	assert.True(t, ok)
	table.End(c)
	table.End(c)
	_, ok = table.Use(idC)
	assert.False(t, ok)
	_, ok = table.Use("")
	assert.False(t, ok)
}

func TestSessionsOfOneUserAreBoundedAndTheLeastUsedGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := sessions.New()
		first, _ := table.Create(1)
		time.Sleep(time.Second)
		second, _ := table.Create(1)
		other, _ := table.Create(2)
		time.Sleep(time.Second)
		table.Use(first)
		for range 99 {
			table.Create(1)
		}
		_, ok := table.Use(second)
		assert.False(t, ok)
		_, ok = table.Use(first)
		assert.True(t, ok)
		_, ok = table.Use(other)
		assert.True(t, ok)
		table.Close()
		_, late := table.Create(1)
		assert.True(t, ended(late), "nobody signs in to a server that ends")
	})
}
