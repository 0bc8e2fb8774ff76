// Package bank is a load for databases of which every later state can be
// checked: clients move money between accounts and write down when each
// transfer began and when it was acknowledged. A database that shows an instant
// has all that was acknowledged before it, nothing that began after it, and of
// any two transfers of which one was acknowledged before the other began, never
// the later one alone. The package speaks SQL that PostgreSQL, MariaDB and MySQL
// understand, and knows none of them.
package bank

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Accounts is how many there are.
const Accounts = 100

// A Bank is a load that runs.
type Bank struct {
	db     *sql.DB
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	began   time.Time     // all times are counted from here
	clients [][]transfer  // what each did, in order
	slowest time.Duration // since Slowest was asked
	err     error         // the first failure
}

// A transfer is one transaction.
type transfer struct{ began, ended time.Duration } // ended is 0 before it is acknowledged

// Found makes the tables. The options of a table are put after its columns:
// "ENGINE=Aria".
func Found(ctx context.Context, db *sql.DB, options string) error {
	for _, s := range []string{
		"CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL) " + options,
		"CREATE TABLE transfers (client INT NOT NULL, number INT NOT NULL, PRIMARY KEY (client, number)) " + options,
	} {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	for id := range Accounts {
		if _, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO accounts VALUES (%d, 1000)", id)); err != nil {
			return err
		}
	}
	return nil
}

// Open lets so many clients work until Close.
func Open(db *sql.DB, clients int) *Bank {
	ctx, cancel := context.WithCancel(context.Background())
	db.SetMaxIdleConns(clients) // each keeps its connection
	b := &Bank{db: db, cancel: cancel, began: time.Now(), clients: make([][]transfer, clients)}
	for c := range clients {
		b.done.Go(func() { b.work(ctx, c) })
	}
	return b
}

// Close ends the load, and tells whether a transfer failed before.
func (b *Bank) Close() error {
	b.cancel()
	b.done.Wait()
	return b.Err()
}

// Err is the first failure of a transfer.
func (b *Bank) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// Slowest is how long the longest transfer took that was under way since this
// was asked before, also of those that are not acknowledged yet.
func (b *Bank) Slowest() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	slowest := b.slowest
	b.slowest = 0
	for _, c := range b.clients {
		if n := len(c); n > 0 && c[n-1].ended == 0 {
			slowest = max(slowest, time.Since(b.began)-c[n-1].began)
		}
	}
	return slowest
}

// Waits are what the clients have logged of the time between two moments: how
// long each transfer took that was under way then. Who still waits counts with
// what he has waited until now.
func (b *Bank) Waits(from, to Moment) (all []time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Since(b.began)
	for _, c := range b.clients {
		for _, t := range slices.Backward(c) {
			ended := t.ended
			if ended == 0 {
				ended = now
			}
			if ended < time.Duration(from) {
				break
			}
			if t.began <= time.Duration(to) {
				all = append(all, ended-t.began)
			}
		}
	}
	return all
}

// Since is how long after a moment the last of those transfers was acknowledged
// that were under way then. Done says that all of them are.
func (b *Bank) Since(at Moment) (last time.Duration, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	done = true
	for _, c := range b.clients {
		for _, t := range slices.Backward(c) {
			switch {
			case t.began > time.Duration(at):
				continue
			case t.ended == 0:
				done = false
				last = max(last, time.Since(b.began)-time.Duration(at))
			default:
				last = max(last, t.ended-time.Duration(at))
			}
			break
		}
	}
	return last, done
}

// Made is how many transfers are acknowledged.
func (b *Bank) Made() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.clients {
		n += len(c)
		if len(c) > 0 && c[len(c)-1].ended == 0 {
			n--
		}
	}
	return n
}

func (b *Bank) work(ctx context.Context, client int) {
	for number := 0; ctx.Err() == nil; number++ {
		began := time.Since(b.began)
		b.mu.Lock()
		b.clients[client] = append(b.clients[client], transfer{began: began})
		b.mu.Unlock()
		err := b.transfer(ctx, client, number)
		b.mu.Lock()
		switch {
		case err == nil:
			t := &b.clients[client][number]
			t.ended = time.Since(b.began)
			b.slowest = max(b.slowest, t.ended-t.began)
		case ctx.Err() == nil && b.err == nil:
			b.err = fmt.Errorf("transfer %d of client %d: %w", number, client, err)
		}
		b.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// transfer moves an amount from one account to another. They are locked in the
// order of their ids, so that there is no deadlock.
func (b *Bank) transfer(ctx context.Context, client, number int) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	amount, from := 1+rand.IntN(50), rand.IntN(Accounts-1)
	to := from + 1 + rand.IntN(Accounts-1-from)
	for _, s := range []string{
		fmt.Sprintf("UPDATE accounts SET balance = balance - %d WHERE id = %d", amount, from),
		fmt.Sprintf("UPDATE accounts SET balance = balance + %d WHERE id = %d", amount, to),
		fmt.Sprintf("INSERT INTO transfers VALUES (%d, %d)", client, number),
	} {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return tx.Commit()
}
