package lvm

import (
	"fmt"
	"strconv"
	"strings"

	"stillpoint/internal/sys/dm"
	"stillpoint/internal/thinpool"
)

// A pool is a thin pool as device-mapper sees it, whatever LVM has made it of.
type pool struct {
	number         dm.Number
	uuid           string // for a number may be another device's one day
	suspended      bool
	block          uint64 // bytes
	used, all      uint64 // blocks
	metaUsed, meta uint64
	trouble        string // what is wrong with it
	transaction    string // the last that LVM has made in it, to add or to remove volumes
}

// poolState asks a pool how full it is. It reads no disk and waits for nothing.
func poolState(c *dm.Control, n dm.Number) (pool, error) {
	d, err := c.Status(n)
	if err != nil {
		return pool{number: n}, err
	}
	p := pool{number: n, uuid: d.UUID, suspended: d.Suspended}
	table, err := c.Table(n)
	if err != nil {
		return p, err
	}
	state, err := c.State(n)
	if err != nil {
		return p, err
	}
	if len(table) != 1 || len(state) != 1 || table[0].Type != "thin-pool" {
		return p, fmt.Errorf("%s is not a thin pool", n)
	}
	// thin-pool METADATA DATA BLOCK-IN-SECTORS …
	f := strings.Fields(table[0].Params)
	if len(f) < 3 {
		return p, fmt.Errorf("the table of the thin pool %s is %q", n, table[0].Params)
	}
	if p.block, err = strconv.ParseUint(f[2], 10, 64); err != nil {
		return p, err
	}
	p.block *= 512
	return p, p.read(state[0].Params)
}

// now asks the same pool again. What its blocks are it keeps for life.
func (p pool) now(c *dm.Control) (pool, error) {
	d, err := c.Status(p.number)
	if err != nil {
		return p, err
	}
	if d.UUID != p.uuid {
		return p, p.gone()
	}
	state, err := c.State(p.number)
	if err != nil {
		return p, err
	}
	if len(state) != 1 || state[0].Type != "thin-pool" {
		return p, p.gone()
	}
	p.suspended = d.Suspended
	return p, p.read(state[0].Params)
}

// found is the same pool by the number that it has now. Where it is not active the error is
// dm.ErrNone.
func (p pool) found(c *dm.Control) (pool, error) {
	d, err := c.StatusOf(p.uuid)
	if err != nil {
		return p, err
	}
	p.number = d.Number
	return p.now(c)
}

// holds tells whether a thin volume is in the pool: UUIDs in device-mapper are without dashes,
// after the group's.
func (p pool) holds(lv logical) bool {
	return lv.PoolUUID != "" && strings.Contains(p.uuid, strings.ReplaceAll(lv.PoolUUID, "-", ""))
}

// tell sends a message to the pool.
func (p pool) tell(c *dm.Control, format string, args ...any) error {
	d, err := c.Status(p.number)
	if err != nil {
		return err
	}
	if d.UUID != p.uuid {
		return p.gone()
	}
	return c.Message(p.number, 0, fmt.Sprintf(format, args...))
}

func (p pool) gone() error {
	return fmt.Errorf("the device %s is not the thin pool any more", p.number)
}

// read takes the state.
func (p *pool) read(state string) error {
	s, err := thinpool.Parse(state)
	if err != nil {
		return fmt.Errorf("the thin pool %s: %w", p.number, err)
	}
	p.used, p.all, p.metaUsed, p.meta, p.trouble = s.Used, s.All, s.MetaUsed, s.Meta, s.Trouble
	p.transaction, _, _ = strings.Cut(state, " ")
	return nil
}

// How much of a pool a snapshot must leave free, for the volumes that live in it.
const (
	dataReserve     = thinpool.DataReserve
	dataReserveMost = thinpool.DataReserveMost
	metaReserve     = thinpool.MetaReserve
	metaReserveMost = thinpool.MetaReserveMost
	metaBlock       = thinpool.MetaBlock
)
