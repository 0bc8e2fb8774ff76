package bank

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// A Moment is a point in the life of a bank.
type Moment time.Duration

// Now is the present moment.
func (b *Bank) Now() Moment { return Moment(time.Since(b.began)) }

// At is the moment of a time that somebody else has noted by the clock of this
// host. It is reckoned from now, so that a clock that is slewed does little.
func (b *Bank) At(t time.Time) Moment {
	return b.Now() - Moment(time.Now().Round(0).Sub(t.Round(0)))
}

// Check looks at a copy of the database that shows an instant between two
// moments, as the bank was then and is now.
func (b *Bank) Check(ctx context.Context, db *sql.DB, after, before Moment) error {
	if err := Sum(ctx, db); err != nil {
		return err
	}
	has, err := numbers(ctx, db)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range has {
		if c >= len(b.clients) {
			return fmt.Errorf("there is no client %d", c)
		}
	}
	return prefix(b.clients, has, time.Duration(after), time.Duration(before))
}

// Sum tells whether money has been made or lost.
func Sum(ctx context.Context, db *sql.DB) error {
	var n, sum int64
	if err := db.QueryRowContext(ctx, "SELECT count(*), sum(balance) FROM accounts").Scan(&n, &sum); err != nil {
		return err
	}
	if n != Accounts || sum != Accounts*1000 {
		return fmt.Errorf("%d accounts with %d", n, sum)
	}
	return nil
}

// numbers is how many transfers a database has of each client. They must be
// the first ones.
func numbers(ctx context.Context, db *sql.DB) (map[int]int, error) {
	rows, err := db.QueryContext(ctx, "SELECT client, count(*), max(number) FROM transfers GROUP BY client")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	has := map[int]int{}
	for rows.Next() {
		var client, n, last int
		if err := rows.Scan(&client, &n, &last); err != nil {
			return nil, err
		}
		if n != last+1 {
			return nil, fmt.Errorf("client %d: %d transfers, and the last is number %d", client, n, last)
		}
		has[client] = n
	}
	return has, rows.Err()
}

// prefix tells whether a database that has the first transfers of each client
// can be what was committed at one instant between the two.
func prefix(clients [][]transfer, has map[int]int, after, before time.Duration) error {
	var youngest time.Duration // begin of all that it has
	for c, all := range clients {
		n := has[c]
		if n > len(all) {
			return fmt.Errorf("client %d: %d transfers of %d", c, n, len(all))
		}
		if n > 0 {
			youngest = max(youngest, all[n-1].began)
		}
	}
	if youngest > before {
		return fmt.Errorf("a transfer that began at %v is there, and the instant was before %v", youngest, before)
	}
	for c, all := range clients {
		if n := has[c]; n < len(all) && all[n].ended != 0 {
			if missing := all[n]; missing.ended < after {
				return fmt.Errorf("client %d: transfer %d was acknowledged at %v and is missing, and the instant was after %v", c, n, missing.ended, after)
			} else if missing.ended < youngest {
				return fmt.Errorf("client %d: transfer %d was acknowledged at %v and is missing, and one that began at %v is there", c, n, missing.ended, youngest)
			}
		}
	}
	return nil
}
