package dm

// A Named is a device by its UUID. A number may be another device's by now, when somebody
// has removed the device. A UUID is another one's only when who makes devices has given it
// twice, which is for that one to see to.
type Named struct {
	c    *Control
	uuid string
}

// Named is the device with the UUID, if there is one.
func (c *Control) Named(uuid string) Named { return Named{c, uuid} }

// Load is Control.Load.
func (n Named) Load(table []Target, readOnly bool) error {
	_, err := n.call("load a table into ", cmdLoad, loading(Number{}, table, readOnly))
	return err
}

// Clear is Control.Clear.
func (n Named) Clear() error {
	_, err := n.call("clear ", cmdClear, request{})
	return err
}

// Resume is Control.Resume.
func (n Named) Resume(udev UdevFlags) error {
	_, err := n.call("resume ", cmdSuspend, resuming(Number{}, udev))
	return err
}

// Remove is Control.Remove.
func (n Named) Remove(udev UdevFlags) error {
	_, err := n.call("remove ", cmdRemove, request{udev: udev})
	return err
}

// RemoveLater is Control.RemoveLater.
func (n Named) RemoveLater(udev UdevFlags) error {
	_, err := n.call("remove ", cmdRemove, request{udev: udev, flags: flagDeferred})
	return err
}

// Table is Control.Table.
func (n Named) Table() ([]Target, error) {
	b, err := n.call("table of ", cmdTable, looking(Number{}, flagTable))
	if err != nil {
		return nil, err
	}
	return targets(b)
}

func (n Named) call(what string, command uintptr, r request) ([]byte, error) {
	r.uuid = n.uuid
	return n.c.call(what+n.uuid, command, r)
}
