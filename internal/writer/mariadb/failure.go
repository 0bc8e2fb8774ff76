package mariadb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/go-sql-driver/mysql"

	"stillpoint/internal/problem"
)

// failure gives an error its code. The context is that under which it came.
func failure(ctx context.Context, err error) error {
	var said *mysql.MySQLError
	switch {
	case err == nil:
		return nil
	case problem.CodeOf(err) != problem.Uncatalogued:
		return err
	case errors.As(err, &said):
		return problem.New(codeOf(said.Number), "", err)
	case errors.Is(err, context.Canceled) || errors.Is(context.Cause(ctx), context.Canceled):
		return fmt.Errorf("%w: %w", context.Canceled, err)
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.WriterTimeout, "", err)
	case errors.Is(err, fs.ErrPermission):
		return problem.New(problem.WriterRights, "", err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return problem.New(problem.WriterResources, "", err)
	case errors.Is(err, mysql.ErrNativePassword), errors.Is(err, mysql.ErrOldPassword),
		errors.Is(err, mysql.ErrCleartextPassword), errors.Is(err, mysql.ErrUnknownPlugin):
		return problem.New(problem.WriterPassword, "", err) // it wants to know us in a way that we do not have
	}
	return problem.New(problem.WriterGone, "", err) // the connection was refused, or broke
}

// codes are those of the server's errors (mariadb-error-codes, and MySQL's
// server error reference).
var codes = map[uint16]problem.Code{
	1045: problem.WriterPassword, // ER_ACCESS_DENIED_ERROR
	1130: problem.WriterPassword, // ER_HOST_NOT_PRIVILEGED
	1251: problem.WriterPassword, // ER_NOT_SUPPORTED_AUTH_MODE
	1524: problem.WriterPassword, // ER_PLUGIN_IS_NOT_LOADED: that of the user
	1698: problem.WriterPassword, // ER_ACCESS_DENIED_NO_PASSWORD_ERROR
	1820: problem.WriterPassword, // ER_MUST_CHANGE_PASSWORD
	1862: problem.WriterPassword, // ER_MUST_CHANGE_PASSWORD_LOGIN
	4151: problem.WriterPassword, // ER_ACCOUNT_HAS_BEEN_LOCKED

	1044: problem.WriterRights, // ER_DBACCESS_DENIED_ERROR
	1142: problem.WriterRights, // ER_TABLEACCESS_DENIED_ERROR
	1227: problem.WriterRights, // ER_SPECIFIC_ACCESS_DENIED_ERROR

	1021: problem.WriterResources, // ER_DISK_FULL
	1037: problem.WriterResources, // ER_OUTOFMEMORY
	1038: problem.WriterResources, // ER_OUT_OF_SORTMEMORY
	1040: problem.WriterResources, // ER_CON_COUNT_ERROR
	1041: problem.WriterResources, // ER_OUT_OF_RESOURCES
	1114: problem.WriterResources, // ER_RECORD_FILE_FULL
	1135: problem.WriterResources, // ER_CANT_CREATE_THREAD
	1203: problem.WriterResources, // ER_TOO_MANY_USER_CONNECTIONS
	1226: problem.WriterResources, // ER_USER_LIMIT_REACHED

	1205: problem.WriterBusy, // ER_LOCK_WAIT_TIMEOUT
	1213: problem.WriterBusy, // ER_LOCK_DEADLOCK

	1317: problem.WriterRetryable, // ER_QUERY_INTERRUPTED, by somebody else
	1969: problem.WriterRetryable, // ER_STATEMENT_TIMEOUT

	1053: problem.WriterGone, // ER_SERVER_SHUTDOWN
	1159: problem.WriterGone, // ER_NET_READ_INTERRUPTED, by wait_timeout
	1927: problem.WriterGone, // ER_CONNECTION_KILLED
	4031: problem.WriterGone, // ER_CLIENT_INTERACTION_TIMEOUT of MySQL
}

func codeOf(number uint16) problem.Code {
	if c, ok := codes[number]; ok {
		return c
	}
	return problem.WriterFailed
}
