package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"stillpoint/internal/snapshot"
	"stillpoint/internal/snapshot/direct"
)

// How a snapshot in the agent is read without its Root: a request of its own
// becomes the socket on which a Holder is asked (package direct). The process of
// the reader opens the live files itself, through a mount that it gets from the
// agent.

// lend turns the connection of a request into that of a reader.
func (s *Server) lend(w http.ResponseWriter, r *http.Request) {
	snap, err := s.snapshot(r)
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = gob.NewEncoder(w).Encode(failureOf(err)) // else the client is gone
		return
	}
	lender, ok := snapshot.Ask[snapshot.Lender](snap)
	if !ok {
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return
	}
	if _, err := io.WriteString(c, switching); err != nil {
		c.Close()
		return
	}
	// What goes wrong here the reader notices, too: the connection ends.
	_ = lender.Lend(c)
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: stillpoint\r\n\r\n"

// Reader reads the snapshot, if the agent's provider makes such that can be read
// so.
func (r *remote) Reader(ctx context.Context) (snapshot.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	reader, err := direct.Attach(r.borrow)
	if err != nil {
		return nil, err
	}
	return reader, nil
}

// borrow opens one more connection to the snapshot.
func (r *remote) borrow() (*net.UnixConn, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.c.address, Net: "unix"})
	if err != nil {
		return nil, err
	}
	err = conn.SetDeadline(time.Now().Add(borrowTime))
	if err == nil {
		err = r.upgrade(conn)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// borrowTime is how long the agent may take to say that a snapshot can be read.
const borrowTime = 30 * time.Second

// upgrade asks for the snapshot on a connection. The agent sends nothing beyond
// the answer before it is asked for something.
func (r *remote) upgrade(conn *net.UnixConn) error {
	request, err := http.NewRequest(http.MethodPost, base+r.path+"/read", nil)
	if err != nil {
		return err
	}
	if err := request.Write(conn); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusSwitchingProtocols:
		return nil
	case http.StatusNotImplemented, http.StatusNotFound:
		return errors.ErrUnsupported
	case http.StatusUnprocessableEntity:
		f := &failure{}
		b, err := io.ReadAll(response.Body)
		if err == nil {
			err = gob.NewDecoder(bytes.NewReader(b)).Decode(f)
		}
		return errors.Join(err, f.err())
	}
	return fmt.Errorf("the agent answers %s", response.Status)
}

var _ snapshot.Readable = (*remote)(nil)
