"""What a PostgreSQL server's SQLSTATE means for a batch. Takes the code; gives one of the contract's errors.

Only a code that says that the statement was rolled back makes a retry certain to find nothing stored; of all
others the answer may have been lost on its way.
"""

from __future__ import annotations

from .errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable

MISSING_PARTITION = "23514"
"""A check, too; but a partition that is missing has no constraint's name."""
READ_ONLY = "25006"
UNKNOWN = "unknown"

_REFUSED = ("22", "23", "54")
"""A value, a constraint, a limit: the same rows are refused again."""
_FATAL = ("0A", "28", "3D", "3F", "42")
"""Features, credentials, database, schema, tables and rights."""
_ROLLED_BACK = {
    READ_ONLY,
    "40001",
    "40P01",
    "53100",
    "53200",
    "53300",
    "53400",
    "55P03",
    "57014",
    "57P03",
}
_SET_SWITCH = "; behind pgbouncer in transaction mode set `pgbouncer: true`, of a store `?pgbouncer=true`"
_POOLER_MIXES_STATEMENTS = ("26000", "42P05")
_POOLER_REFUSES_SETTINGS = "unsupported startup parameter"


def server_error(sqlstate: str | None, text: str, *, is_connecting: bool = False) -> SinkError:
    """The error for ``sqlstate``. ``text`` is the server's sentence, which for refused rows is left out: it
    may quote them. While ``is_connecting`` no row has been sent."""
    code = sqlstate or UNKNOWN
    if code.startswith(_REFUSED) and not is_connecting:
        return SinkBatchRejected(code, "the server refuses a value in these rows")
    if code in _POOLER_MIXES_STATEMENTS or _POOLER_REFUSES_SETTINGS in text:  # 08P01 says many other things
        return SinkFatal(code, text + _SET_SWITCH)
    if code.startswith(_FATAL):
        return SinkFatal(code, text)
    return SinkRetryable(code, text, ambiguous=not (is_connecting or code in _ROLLED_BACK))
