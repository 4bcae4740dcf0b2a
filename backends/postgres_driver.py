"""The driver, asyncpg: a pool of its connections, and what its errors mean.

Takes an address and how long things may take; gives ``Connections``, of which none is made yet: nothing is
sent. No error that leaves has a text that could hold a row's, or the password.
Retries nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLCertVerificationError
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from .errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable
from .postgres_codes import MISSING_PARTITION, READ_ONLY, server_error
from .postgres_connections import Connections, Driver

UNFIT = (TypeError, ValueError, ArithmeticError, AttributeError)
"""What the driver raises for a value that it cannot send, beside errors of its own."""

_IDLE_S = 60.0
_ISOLATION = "READ COMMITTED"
"""Whatever the server's default is: a statement that waited for a row has to see what became of it."""


# --- connecting


async def connections_to(
    dsn: str,
    driver: Driver,
    *,
    size: int,
    acquire_timeout_s: float,
    statement_timeout_s: float,
    command_timeout_s: float,
    is_pooled: bool,
) -> Connections:
    """At most ``size`` connections to ``dsn``. ``statement_timeout_s``: after which the server gives up;
    ``command_timeout_s``: after which we do. ``is_pooled``: pgbouncer in transaction mode is in between."""
    patience = str(max(1, round(statement_timeout_s * 1000)))
    pool = await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        max_inactive_connection_lifetime=_IDLE_S,
        timeout=acquire_timeout_s,
        command_timeout=command_timeout_s,
        reset=_keep_as_it_is,
        **_settings(is_pooled, patience),
    )
    return Connections(
        pool,
        driver,
        acquire_timeout_s=acquire_timeout_s,
        begin=f"BEGIN ISOLATION LEVEL {_ISOLATION}; SET LOCAL statement_timeout = {patience}",
        is_pooled=is_pooled,
    )


def _settings(is_pooled: bool, patience: str) -> dict[str, Any]:
    """A pooler hands no settings on, and has no place for prepared statements."""
    if is_pooled:
        return {"statement_cache_size": 0}
    limits = dict.fromkeys(("statement_timeout", "idle_in_transaction_session_timeout"), patience)
    names = {"application_name": "tallygate", "default_transaction_isolation": _ISOLATION}
    return {"server_settings": {**names, **limits}}


async def _keep_as_it_is(connection: Any) -> None:
    """Nothing that we do outlives its transaction, so a connection that is given back needs no reset."""


# --- errors


@contextmanager
def translated(is_connecting: bool) -> Iterator[None]:
    """Within, what the driver or the operating system raises is one of the sink's errors."""
    try:
        yield
    except SinkError:
        raise
    except asyncpg.PostgresError as error:
        raise _server_error(error, is_connecting) from None  # the error quotes the row
    except SSLCertVerificationError as error:
        raise SinkFatal("tls", f"the server's certificate: {error.verify_message}") from error
    except TimeoutError:
        raise SinkRetryable("timeout", "no answer in time", ambiguous=not is_connecting) from None
    except OSError as error:
        text = error.strerror or type(error).__name__
        raise SinkRetryable("connection", text, ambiguous=not is_connecting) from error
    except asyncpg.TargetServerAttributeNotMatched:
        raise SinkRetryable(READ_ONLY, "no server of this kind among the hosts", ambiguous=False) from None
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if is_connecting and isinstance(error, ValueError):
            raise SinkFatal("configuration", "the dsn cannot be used") from None
        raise SinkRetryable(type(error).__name__, ambiguous=not is_connecting) from error


def is_missing_partition(error: asyncpg.PostgresError) -> bool:
    """Whether rows were refused because there is no partition for their time."""
    return error.sqlstate == MISSING_PARTITION and not error.constraint_name


def _server_error(error: asyncpg.PostgresError, is_connecting: bool) -> SinkError:
    if is_missing_partition(error):
        return SinkRetryable(MISSING_PARTITION, "a partition was dropped meanwhile", ambiguous=False)
    return server_error(error.sqlstate, error.message or "", is_connecting=is_connecting)


SINK_DRIVER = Driver(
    translated, (asyncpg.PostgresError, SinkFatal, *UNFIT), (SinkBatchRejected,), asyncpg.InterfaceError
)
