// Command guest is what the tests in a virtual machine have in it: it serves
// them, keeps the machine busy while they look, and checks what came back.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: guest serve               do what the test says, at the serial port
       guest busy FOLDER         write there until SIGTERM
       guest churn FILE MIB      write it over and over until SIGTERM
       guest churned FILE        is this copy of it of one moment?
       guest figures             print what busy or churn did, and its longest write since the last time
       guest check FOLDER A B    is this copy of one moment between A and B records?
       guest rounds FOLDER...    put a number into each in turn, until SIGTERM
       guest ordered FOLDER...   are these copies of them of one moment?
       guest ledger FOLDER...    make records in each, and say of which the disk has them
       guest safe FOLDER N       is all there up to the record N?
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "serve":
		err = serve(ctx)
	case len(args) == 2 && args[0] == "busy":
		err = busy(ctx, args[1])
	case len(args) == 3 && args[0] == "churn":
		err = churn(ctx, args[1], args[2])
	case len(args) == 2 && args[0] == "churned":
		err = churned(args[1])
	case len(args) == 1 && args[0] == "figures":
		err = printFigures()
	case len(args) == 4 && args[0] == "check":
		err = check(ctx, args[1], args[2], args[3])
	case len(args) > 1 && args[0] == "rounds":
		err = rounds(ctx, args[1:])
	case len(args) >= 2 && args[0] == "ordered":
		err = ordered(args[1:])
	case len(args) >= 2 && args[0] == "ledger":
		err = ledger(ctx, args[1:])
	case len(args) == 3 && args[0] == "safe":
		err = checkLedger(args[1], args[2])
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}
