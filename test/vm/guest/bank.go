package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
)

const (
	accounts = 100
	balance  = 1000 // of each at the beginning
)

// A bank is a SQLite database, and the program that has it open.
type bank struct {
	program *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
}

// openBank makes the database and starts the program.
func openBank(ctx context.Context, path string) (*bank, error) {
	create := `PRAGMA journal_mode=WAL;
		CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT);
		CREATE TABLE payment(n INTEGER PRIMARY KEY, amount INT);
		WITH RECURSIVE i(n) AS (SELECT 0 UNION ALL SELECT n+1 FROM i WHERE n < ` + strconv.Itoa(accounts-1) + `)
		INSERT INTO account SELECT n, ` + strconv.Itoa(balance) + ` FROM i;`
	if _, err := sqlite(ctx, path, create); err != nil {
		return nil, err
	}
	c := exec.Command("sqlite3", "-bail", "-batch", "-cmd", ".timeout 60000", path)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &bank{c, in, bufio.NewScanner(out)}, c.Start()
}

// pay makes the payment n: money moves, none is lost.
func (b *bank) pay(n int64) error {
	amount := n % 7
	_, err := fmt.Fprintf(b.in, "BEGIN IMMEDIATE;\n"+
		"UPDATE account SET balance = balance - %d WHERE id = %d;\n"+
		"UPDATE account SET balance = balance + %d WHERE id = %d;\n"+
		"INSERT INTO payment VALUES(%d, %d);\n"+
		"COMMIT;\n.print done %d\n", amount, n%accounts, amount, (n*31+1)%accounts, n, amount, n)
	if err != nil {
		return err
	}
	if want := fmt.Sprint("done ", n); !b.out.Scan() || b.out.Text() != want {
		return fmt.Errorf("the database says %q, want %q (%v)", b.out.Text(), want, b.out.Err())
	}
	return nil
}

func (b *bank) close() {
	_ = b.in.Close() // it ends
	_ = b.program.Wait()
}

// sqlite returns what a database says to some SQL.
func sqlite(ctx context.Context, path, sql string) (string, error) {
	out, err := exec.CommandContext(ctx, "sqlite3", "-bail", "-batch", "-cmd", ".timeout 60000", path, sql).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sqlite3 %s: %w: %s", path, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
