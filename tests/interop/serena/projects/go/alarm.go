package clock

// Alarm rings at one hour.
type Alarm struct {
	Clock
	at int
}

// Rings says whether it is time.
func (a *Alarm) Rings() bool {
	return a.Show() == a.at
}

// Morning is an alarm for seven.
func Morning() *Alarm {
	alarm := &Alarm{at: 7}
	alarm.Turn(7)
	return alarm
}
