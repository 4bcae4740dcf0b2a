"""clickhouse-connect, as the sink uses it: a client, its requests, its errors.

Takes statements, and columns of usage rows to insert; gives what was selected. Raises the contract's
errors alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

from clickhouse_connect import get_async_client
from clickhouse_connect.driver import exceptions as driver
from clickhouse_connect.driver.asyncclient import AsyncClient

from .clickhouse_errors import sentence, server_error
from .clickhouse_queries import READ_SETTINGS
from .clickhouse_schema import TYPES
from .columns import Values
from .errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable
from .record import COLUMNS

_PORTS = {"http": 8123, "https": 8443}


def is_address(url: str) -> bool:
    """Whether ``url`` is that of a server's HTTP interface."""
    try:
        parts: SplitResult = urlsplit(url)
        is_complete = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return (
        is_complete
        and parts.scheme in _PORTS
        and parts.path in ("", "/")
        and not (parts.query or parts.fragment)
    )


class Database:
    """The driver's client; raises ``SinkError`` alone."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, url: str, database: str, connect_timeout_s: float, timeout_s: float) -> Self:
        """A client that knows its server: the driver asks it some questions first."""
        parts = urlsplit(url)
        with _translated():
            client = await get_async_client(
                interface=parts.scheme,
                host=parts.hostname,
                port=parts.port or _PORTS[parts.scheme],
                username=unquote(parts.username or "default"),
                password=unquote(parts.password or ""),
                database=database,
                connect_timeout=connect_timeout_s,
                send_receive_timeout=timeout_s,
                query_retries=0,  # when to try again is the core's to say
                autogenerate_session_id=False,
                tz_mode="aware",
                client_name="tallygate",
            )
        return cls(client)

    async def insert(self, table: str, columns: Sequence[Values], token: str) -> None:
        """Store ``columns``, in the order of ``COLUMNS``, unless the server knows ``token``."""
        with _translated():
            await self._client.insert(
                table,
                columns,
                column_names=COLUMNS,
                column_type_names=tuple(TYPES.values()),  # else the driver asks for them, each time
                column_oriented=True,
                settings={"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token},
            )

    async def fetch(self, sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows that ``sql`` selects."""
        with _translated():
            answer = await self._client.query(sql, parameters=dict(values), settings=READ_SETTINGS)
            return answer.result_rows

    async def execute(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """Run ``sql``."""
        with _translated():
            await self._client.command(sql, parameters=dict(values or {}))

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()


# --- errors


@contextmanager
def _translated() -> Iterator[None]:
    """What the driver raises, as one of the contract's errors."""
    try:
        yield
    except driver.Error as error:
        raise _sink_error(error) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise SinkBatchRejected(type(error).__name__, "a row holds a value that cannot be sent") from error
    except (OSError, RuntimeError) as error:
        raise SinkRetryable(type(error).__name__, "the connection is gone", ambiguous=True) from error


def _sink_error(error: driver.Error) -> SinkError:
    if error.code is not None:
        return server_error(error.code, error.name, str(error))
    if isinstance(error, driver.DataError):
        return SinkBatchRejected("DataError", "a row holds a value that cannot be sent")
    if isinstance(error, driver.ProgrammingError):
        return SinkFatal("driver_refused", sentence(str(error)))
    is_refused = isinstance(error.__cause__, ConnectionRefusedError)
    return SinkRetryable("unreachable", sentence(str(error)), ambiguous=not is_refused)
