package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"stillpoint/internal/problem"
)

// failure gives an error its code. The context is that under which it came.
func failure(ctx context.Context, err error) error {
	var said *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case problem.CodeOf(err) != problem.Uncatalogued:
		return err
	case errors.As(err, &said):
		return problem.New(codeOf(said.Code), "", err)
	case errors.Is(err, context.Canceled) || errors.Is(context.Cause(ctx), context.Canceled):
		return fmt.Errorf("%w: %w", context.Canceled, err)
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return problem.New(problem.WriterTimeout, "", err)
	case errors.Is(err, fs.ErrPermission):
		return problem.New(problem.WriterRights, "", err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return problem.New(problem.WriterResources, "", err)
	}
	return problem.New(problem.WriterGone, "", err) // the connection was refused, or broke
}

// codeOf understands an SQLSTATE (PostgreSQL's manual, appendix A).
func codeOf(state string) problem.Code {
	switch {
	case strings.HasPrefix(state, "28"): // invalid_authorization_specification, invalid_password
		return problem.WriterPassword
	case state == "42501": // insufficient_privilege
		return problem.WriterRights
	case strings.HasPrefix(state, "53"): // insufficient_resources: disk_full, too_many_connections …
		return problem.WriterResources
	case state == "57014", strings.HasPrefix(state, "40"), strings.HasPrefix(state, "55P"): // query_canceled, transaction_rollback, lock_not_available
		return problem.WriterRetryable
	case strings.HasPrefix(state, "57P"), strings.HasPrefix(state, "08"): // shutdown, cannot_connect_now, idle_session_timeout, connection_exception
		return problem.WriterGone
	}
	return problem.WriterFailed
}
