"""ClickHouse's own engine behind its HTTP interface: a program, run by the Python of its own environment.

    python clickhouse_bridge.py DATA_FOLDER PORT PASSWORD

Takes requests as the server does: the statement in the body or in ``query``, an INSERT's data behind its
first line, settings and ``param_*`` in the URL, bodies chunked and compressed with lz4; answers with the
engine's own results, and its errors with their numbers in ``X-ClickHouse-Exception-Code``. Each request has
its own connection to the engine, so that no setting outlives it. The user is ``default``. Nothing is kept in
this process that a SIGKILL could take: what was answered is in DATA_FOLDER.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tempfile
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame

_HTTP_ONLY = frozenset(
    {
        "query",
        "database",
        "user",
        "password",
        "quota_key",
        "role",
        "query_id",
        "session_id",
        "session_check",
        "session_timeout",
        "default_format",
        "wait_end_of_query",
        "buffer_size",
        "compress",
        "decompress",
        "client_protocol_version",
        "enable_http_compression",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
    }
)
"""What a URL says to the HTTP interface and not to the engine."""

_INSERT = re.compile(rb"\A\s*(INSERT\s+INTO\s[^\n]*?)\s+FORMAT\s+(\w+)[ \t]*(?:\r?\n|\Z)", re.IGNORECASE)
_FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)\.")
_STATUS = {516: 403, 497: 403, 60: 404, 81: 404, 62: 400, 47: 400, 115: 400}


@dataclass(frozen=True)
class Answer:
    """What is sent back. ``code`` is the engine's number of an error."""

    status: int
    body: bytes
    code: int | None = None
    format: str = "TabSeparated"
    written: int = 0


class Engine:
    """The one engine of this process."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._awake = chdb.connect(folder)  # as long as one connection is open, the others cost no start

    def answer(self, parameters: dict[str, str], body: bytes) -> Answer:
        """Run the statement; an error of the engine is an answer as well."""
        connection = chdb.connect(self._folder)
        try:
            self._prepare(connection, parameters)
            return self._run(connection, parameters, body)
        except (chdb.ChdbError, RuntimeError) as error:
            return _refusal(str(error))
        finally:
            connection.close()

    def _prepare(self, connection: Any, parameters: dict[str, str]) -> None:
        if database := parameters.get("database"):
            connection.query(f"USE {_quoted(database, '`')}")
        settings = [
            f"{name} = {_quoted(value, chr(39))}"
            for name, value in parameters.items()
            if name not in _HTTP_ONLY and not name.startswith("param_")
        ]
        if settings:
            connection.query(f"SET {', '.join(settings)}")

    def _run(self, connection: Any, parameters: dict[str, str], body: bytes) -> Answer:
        text = parameters.get("query", "").encode()
        statement = text + b"\n" + body if text else body
        if insert := _INSERT.match(statement):
            return _insert(connection, insert, statement[insert.end() :])
        sql = statement.decode()
        bound = {
            name[len("param_") :]: value for name, value in parameters.items() if name.startswith("param_")
        }
        wanted = _FORMAT.search(sql)
        answer_format = wanted.group(1) if wanted else parameters.get("default_format", "TabSeparated")
        result = connection.query(sql, answer_format, params=bound)
        return Answer(200, bytes(result.bytes() or b""), format=answer_format)


def _insert(connection: Any, insert: re.Match[bytes], data: bytes) -> Answer:
    """By way of a file: the engine's own streaming insert does not tell of an error at its very end."""
    statement, data_format = (group.decode() for group in insert.groups())
    with tempfile.NamedTemporaryFile(suffix=".insert") as file:
        file.write(data)
        file.flush()
        result = connection.query(
            f"{statement} FROM INFILE '{file.name}' FORMAT {data_format}", "TabSeparated"
        )
    return Answer(200, b"", written=int(result.rows_read()))


def _refusal(message: str) -> Answer:
    found = _CODE.search(message)
    code = int(found.group(1)) if found else 1002
    text = (
        message[found.start() :] if found else f"Code: {code}. DB::Exception: {message} (UNKNOWN_EXCEPTION)"
    )
    return Answer(_STATUS.get(code, 500), f"{text} (version {chdb.engine_version})\n".encode(), code)


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    engine: Engine
    password: str

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping":
            self._send(Answer(200, b"Ok.\n"))
        else:
            self.do_POST()

    def do_POST(self) -> None:
        body = self._body()
        if body is None:  # the client went in the middle of its request: nothing is run
            self.close_connection = True
            return
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        self._send(self._answer(parameters, body))

    def _answer(self, parameters: dict[str, str], body: bytes) -> Answer:
        if not self._is_allowed(parameters):
            return _refusal(
                "Code: 516. DB::Exception: default: Authentication failed. (AUTHENTICATION_FAILED)"
            )
        try:
            statement = self._decompressed(body)
        except RuntimeError:
            return _refusal("Code: 271. DB::Exception: Cannot decompress. (CANNOT_DECOMPRESS)")
        return self.engine.answer(parameters, statement)

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: a test run has no use for an access log."""

    def _is_allowed(self, parameters: dict[str, str]) -> bool:
        user = self.headers.get("X-ClickHouse-User", parameters.get("user", "default"))
        password = self.headers.get("X-ClickHouse-Key", parameters.get("password", ""))
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            user, _, password = base64.b64decode(credentials).decode().partition(":")
        return (user, password) == ("default", self.password)

    def _body(self) -> bytes | None:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            return body if len(body) == length else None
        chunks = []
        while size := self._chunk_size():
            chunks.append(self.rfile.read(size))
            if len(chunks[-1]) < size or self.rfile.readline() != b"\r\n":
                return None
        return b"".join(chunks) if size == 0 and self.rfile.readline() == b"\r\n" else None

    def _chunk_size(self) -> int | None:
        line = self.rfile.readline()
        return int(line, 16) if line.endswith(b"\r\n") else None

    def _decompressed(self, body: bytes) -> bytes:
        is_lz4 = self.headers.get("Content-Encoding") == "lz4"
        return bytes(lz4.frame.decompress(body)) if is_lz4 and body else body

    def _send(self, answer: Answer) -> None:
        counts = {"read_rows": "0", "written_rows": str(answer.written), "written_bytes": "0"}
        headers = {
            "Content-Type": "text/plain; charset=UTF-8",
            "Content-Length": str(len(answer.body)),
            "X-ClickHouse-Summary": json.dumps(counts),
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Format": answer.format,
            "X-ClickHouse-Server-Display-Name": "bridge",
        }
        if answer.code is not None:
            headers["X-ClickHouse-Exception-Code"] = str(answer.code)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:  # as one piece: two small ones would wait for each other's acknowledgement
            self.wfile.write(f"HTTP/1.1 {answer.status} Answer\r\n{head}\r\n".encode() + answer.body)
        except OSError:
            self.close_connection = True


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is told in the log."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main(folder: str, port: str, password: str) -> None:
    """Serve until killed."""
    Handler.engine, Handler.password = Engine(folder), password
    Listener(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
