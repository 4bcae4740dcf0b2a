"""ClickHouse for the tests: the real engine, 26.x, behind a bridge that speaks its HTTP interface.

No package at hand holds the server; ``chdb-core`` from PyPI holds its engine. With ``CLICKHOUSE_URL`` the
server that it names is used instead; its user has to be allowed to create databases.
"""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.error import URLError
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

from .base import Server, listens, venv_with

VERSION = "26.9.0"
LZ4 = "4.4.5"
PASSWORD = "p/a:s@s word"
"""It has to be quoted in a URL, which is the point."""
_BRIDGE = Path(__file__).with_name("clickhouse_bridge.py")
_ANSWER_S = 60


class ClickHouseServer(Server):
    """The engine in a process of its own."""

    name: ClassVar[str] = "clickhouse"
    stop_signal: ClassVar[signal.Signals] = signal.SIGKILL
    """The engine takes SIGTERM for itself and goes on; its data ends with it anyhow."""

    @classmethod
    def find(cls) -> ClickHouseServer:
        """The server that ``CLICKHOUSE_URL`` names, else one of ours, not started."""
        url = os.environ.get("CLICKHOUSE_URL")
        return GivenClickHouse(url) if url else cls()

    @property
    def url(self) -> str:
        """With user and password."""
        return f"http://default:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        """Where it listens, on ``port``."""
        return urlsplit(self.url).hostname or "127.0.0.1"

    def url_through(self, port: int) -> str:
        """The URL that leads through ``port`` of 127.0.0.1, where a proxy stands."""
        return self.url.replace(f"{self.host}:{self.port}", f"127.0.0.1:{port}")

    def prepare(self) -> None:
        # Without its dependencies, which are for results as data frames: 400 MB that nobody asks for.
        self._python = venv_with(f"clickhouse-{VERSION}", "--no-deps", f"chdb-core=={VERSION}", f"lz4=={LZ4}")

    def command(self) -> Sequence[str]:
        return [str(self._python), str(_BRIDGE), str(self.folder / "data"), str(self.port), PASSWORD]

    def is_ready(self) -> bool:
        if not listens(self.port):
            return False
        try:
            return bool(self.query("SELECT 1 AS one") == [{"one": 1}])
        except (URLError, ConnectionError):
            return False

    # --- around every driver

    def run(self, sql: str, *, database: str = "default", **settings: str) -> str:
        """What the server answers to ``sql``. Raises ``HTTPError``."""
        parts = urlsplit(self.url)
        credentials = f"{unquote(parts.username or 'default')}:{unquote(parts.password or '')}"
        address = f"{parts.scheme}://{parts.hostname}:{self.port}/"
        request = Request(
            f"{address}?{urlencode({'database': database, **settings})}",
            data=sql.encode(),
            headers={"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"},
        )
        with urlopen(request, timeout=_ANSWER_S) as answer:
            return str(answer.read().decode())

    def query(self, sql: str, *, database: str = "default") -> list[dict[str, Any]]:
        """The rows that ``sql`` selects; decimals and large integers as texts."""
        quoted = {"output_format_json_quote_64bit_integers": "1", "output_format_json_quote_decimals": "1"}
        answer = self.run(f"{sql} FORMAT JSONEachRow", database=database, **quoted)
        return [json.loads(line) for line in answer.split("\n") if line]

    @contextmanager
    def own_database(self) -> Iterator[str]:
        """The name of a new database, which is gone afterwards. The server has to be up at both ends."""
        name = f"test_{uuid4().hex}"
        self.run(f"CREATE DATABASE {name}")
        yield name
        self.run(f"DROP DATABASE {name} SYNC")  # else its files stay for minutes


class GivenClickHouse(ClickHouseServer):
    """A server that somebody else runs."""

    is_ours: ClassVar[bool] = False

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.port = urlsplit(url).port or 8123

    @property
    def url(self) -> str:
        return self._url

    def start(self) -> Self:
        self.query("SELECT 1")
        return self
