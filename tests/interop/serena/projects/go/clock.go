// Package clock counts hours.
package clock

// Hours of one day.
const Hours = 24

// Clock shows one hour.
type Clock struct {
	hour int
}

// Shower is whatever can say its hour.
type Shower interface {
	Show() int
}

// Show says the hour.
func (c *Clock) Show() int {
	return c.hour
}

// Turn moves the hand, past midnight too.
func (c *Clock) Turn(by int) *Clock {
	c.hour = (c.hour + by) % Hours
	return c
}
