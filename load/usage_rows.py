"""Rows as the database itself has them, read around the gateway by the bare driver.

Takes where they are: ``{"sink": "sqlite", "path": ...}``, ``{"sink": "postgres", "dsn", "table"}``,
``{"sink": "mongo", "uri", "database"}`` or ``{"sink": "clickhouse", "url", "database"}``; gives rows that
look the same wherever they were. ClickHouse is read by its view ``usage_logs_once``, as everybody is told to.
Blocks, and knows nothing of the gateway's code.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias
from urllib.error import HTTPError
from urllib.parse import unquote, urlencode, urlsplit
from urllib.request import Request, urlopen

COLUMNS = (
    *("id", "boot_id", "request_id", "model", "status", "status_code", "end_reason", "usage_source"),
    *("prompt_tokens", "completion_tokens", "total_tokens", "cost"),
)
READ_S = 60.0
NO_TABLE = "60"
"""ClickHouse's code."""

Where: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One row, as far as an oracle looks at it."""

    id: str
    boot_id: str
    request_id: str
    model: str | None
    status: str
    status_code: int | None
    end_reason: str
    usage_source: str
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cost: Decimal | None


def read_rows(where: Where) -> list[Row]:
    """Every row; none from a table that nobody has made yet."""
    return [_row(*values) for values in _READERS[where["sink"]](where)]


def stored_rows(where: Where) -> int | None:
    """How many rows lie in the table, where that may be more than anybody reads: in ClickHouse a row that was
    sent twice is there twice until a merge. None for every other database."""
    if where["sink"] != "clickhouse":
        return None
    return sum(int(each[0]) for each in _clickhouse_rows(where, "SELECT count() FROM usage_logs"))


def _row(*values: Any) -> Row:
    found = dict(zip(COLUMNS, values, strict=True))
    numbers = ("status_code", "prompt_tokens", "completion_tokens", "total_tokens")
    exact = {name: None if found[name] is None else int(found[name]) for name in numbers}
    cost = None if found["cost"] is None else Decimal(str(found["cost"]))
    return Row(**{**found, **exact, "id": str(found["id"]), "boot_id": str(found["boot_id"]), "cost": cost})


def _sqlite(where: Where) -> list[Sequence[Any]]:
    if not Path(where["path"]).exists():
        return []
    with closing(sqlite3.connect(where["path"], timeout=READ_S)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'usage_logs'").fetchone():
            return []
        return connection.execute(f"SELECT {', '.join(COLUMNS)} FROM usage_logs").fetchall()


def _postgres(where: Where) -> list[Sequence[Any]]:
    return asyncio.run(_from_postgres(where))


async def _from_postgres(where: Where) -> list[Sequence[Any]]:
    asyncpg = importlib.import_module("asyncpg")
    connection = await asyncpg.connect(where["dsn"], timeout=READ_S)
    try:
        found = await connection.fetch(f"SELECT {', '.join(COLUMNS)} FROM {where['table']}")
        return [tuple(each) for each in found]
    except asyncpg.UndefinedTableError:
        return []
    finally:
        await connection.close()


def _mongo(where: Where) -> list[Sequence[Any]]:
    pymongo = importlib.import_module("pymongo")
    with pymongo.MongoClient(where["uri"], uuidRepresentation="standard") as client:
        found = list(client[where["database"]]["usage_logs"].find())
    for each in found:
        each["id"] = each.pop("_id")
        each["cost"] = None if each["cost"] is None else Decimal(each["cost"]) / 10**9
    return [[each[name] for name in COLUMNS] for each in found]


def _clickhouse(where: Where) -> list[Sequence[Any]]:
    return _clickhouse_rows(where, f"SELECT {', '.join(COLUMNS)} FROM usage_logs_once")


def _clickhouse_rows(where: Where, query: str) -> list[Sequence[Any]]:
    parts = urlsplit(where["url"])
    credentials = f"{unquote(parts.username or 'default')}:{unquote(parts.password or '')}"
    asked = {"database": where["database"], "output_format_json_quote_decimals": "1"}
    request = Request(
        f"{parts.scheme}://{parts.hostname}:{parts.port}/?{urlencode(asked)}",
        data=f"{query} FORMAT JSONCompactEachRow".encode(),
        headers={"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"},
    )
    try:
        with urlopen(request, timeout=READ_S) as answer:
            return [json.loads(line) for line in answer.read().decode().split("\n") if line]
    except HTTPError as error:
        if error.headers.get("X-ClickHouse-Exception-Code") == NO_TABLE:
            return []
        raise


_READERS: Mapping[str, Callable[[Where], list[Sequence[Any]]]] = {
    "sqlite": _sqlite,
    "postgres": _postgres,
    "mongo": _mongo,
    "clickhouse": _clickhouse,
}
