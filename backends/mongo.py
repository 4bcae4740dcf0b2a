"""MongoDB, or another server that speaks its protocol, by way of motor or of PyMongo's own asyncio client.

Takes batches, each one unordered insert; gives ``Committed`` once a majority of the servers has it in its
journal. A row is one document whose ``_id`` is the row's id, so a row that is sent again is refused by the
server, and that refusal is a success. Both drivers are used through the calls that they share, and no server
is asked for more than plain inserts, updates, finds and indexes.

A call that is cancelled is over for its caller and goes on without one, for ``timeout_s`` at most: its rows
may be stored. Motor's calls run on threads that nobody can end; PyMongo's, ended in the wrong moment, leave
sockets open or do not notice. So both are left alone until the sink closes or is told to abort.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, Self, TypeVar
from uuid import UUID

from bson.errors import BSONError
from pydantic import ConfigDict, Field, SecretStr, field_validator
from pymongo.errors import BulkWriteError, ConfigurationError
from pymongo.uri_parser import parse_uri

from . import mongo_audit
from .calls import Calls, take_leave
from .errors import Rejection, SinkBatchRejected, SinkFatal, SinkRowsRejected
from .mongo_codes import settled
from .mongo_documents import (
    NEWEST_FIRST,
    Document,
    matching,
    page,
    partial_record,
    readable,
    summed_fields,
)
from .mongo_driver import Collection, collection, connect, packed, refusal, translated, upsert
from .mongo_pool import PoolCount
from .mongo_schema import BOOTS, VERSIONS, Schema
from .numbers import NumberedRow, Run
from .record import Batch, Boot
from .sink import Capabilities, Committed, SinkOptions
from .summary import Summary
from .usage_query import Cursor, SummaryQuery, SummaryRow, UsagePage, UsageQuery

_CLOSE_S = 0.5
"""How long calls under way, and then the server, may take when we leave."""
_SUMMARY_PAGE_ROWS = 5000
T = TypeVar("T")


class MongoOptions(SinkOptions):
    """``uri``: a connection string; what it says of write concern, retries and timeouts is overruled.
    ``driver``: motor, or pymongo for PyMongo's asyncio client. ``retention_days``: rows older than that are
    removed by the server; None keeps them. ``migrate``: make collection and indexes when first needed.
    ``timeout_s``: the longest that one request takes, the choice of a server included; keep it below
    ``attempt_timeout_s``. ``max_connections``: to each server."""

    model_config = ConfigDict(hide_input_in_errors=True)

    uri: SecretStr = SecretStr("mongodb://localhost")
    database: str = Field(default="gateway", pattern=r"^[A-Za-z0-9_-]{1,63}$")
    collection: str = Field(default="usage_logs", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    driver: Literal["motor", "pymongo"] = "motor"
    retention_days: int | None = Field(default=None, ge=1, le=24_000)
    migrate: bool = True
    timeout_s: float = Field(default=8.0, ge=0.5, le=300)
    max_connections: int = Field(default=10, ge=1, le=1000)

    @field_validator("uri")
    @classmethod
    def _is_a_connection_string(cls, uri: SecretStr) -> SecretStr:
        text = uri.get_secret_value()
        if not text.startswith("mongodb+srv://"):  # the rest of those stands in the DNS
            try:
                parse_uri(text, warn=False)
            except (ConfigurationError, ValueError) as error:  # whose texts tell names, not values
                wrong = str(error).rstrip(".")
                raise ValueError(f"is no connection string ({wrong}); write mongodb://HOST:27017") from None
        return uri

    @field_validator("collection")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name in (BOOTS, VERSIONS):
            raise ValueError(f"{name} is taken for the sink's own use; choose another name")
        return name

    @field_validator("driver")
    @classmethod
    def _is_installed(cls, driver: str) -> str:
        if find_spec(driver) is None:
            raise ValueError(f"{driver} is not installed; pip install 'tallygate[mongo]'")
        return driver


class MongoSink:
    """One client, whose connections serve writes and reads alike; each call is a task of the sink's own."""

    Options: ClassVar[type[SinkOptions]] = MongoOptions
    capabilities: ClassVar[Capabilities] = Capabilities(atomic_batch=False)
    batching_defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, options: MongoOptions) -> None:
        self._options = options
        self._pool = PoolCount()
        self._client, self._take_leave = connect(
            options.uri.get_secret_value(),
            options.driver,
            options.timeout_s,
            options.max_connections,
            self._pool,
        )
        self._rows = self._collection(options.collection)
        self._boots = self._collection(BOOTS)
        self._schema = Schema(
            self._rows,
            self._collection(VERSIONS),
            options.retention_days,
            upsert=upsert,
            refusal=refusal,
        )
        self._calls = Calls()
        self._is_prepared = False

    @classmethod
    @asynccontextmanager
    async def open(cls, options: MongoOptions) -> AsyncIterator[Self]:
        sink = cls(options)
        try:
            yield sink
        finally:
            await sink._close()

    async def write(self, batch: Batch) -> Committed:
        """As the contract says. Where rows are refused the others are stored, and the error tells so."""
        documents, rejected = packed(batch.rows)
        stored, refused = Committed(0), dict[int, Rejection]()
        if documents:
            stored, refused = await self._run(self._insert(list(documents.values())))
        indexes = list(documents)
        rejected |= {indexes[at]: why for at, why in refused.items()}
        if rejected:
            raise SinkRowsRejected(rejected, stored)
        return stored

    async def ping(self) -> None:
        """As the contract says: writes, to a majority, that the schema is what it is."""
        await self._run(self._ping())

    def abort(self) -> None:
        """As the contract says. What motor's threads have begun they finish, within ``timeout_s``."""
        self._calls.end()

    async def migrate(self) -> None:
        """As the contract says."""
        await self._run(self._migrate())

    async def record_boot(self, boot: Boot) -> None:
        await self._run(self._record_boot(boot))

    async def read_usage(self, query: UsageQuery) -> UsagePage:
        """As the contract says. Raises ``ValueError`` for a filter that is none of ``FILTER_COLUMNS``."""
        return page(await self._run(self._find(matching(query), query.limit + 1)), query.limit)

    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        """As the contract says, page by page: no server has to group, or to keep a cursor for long."""
        return await self._run(self._summarise(query))

    async def read_boots(self) -> tuple[Boot, ...]:
        return await self._run(self._read_boots())

    async def read_runs(self) -> tuple[Run, ...]:
        return await self._run(mongo_audit.read_runs(self._find_numbers))

    async def read_repeated(self, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
        return await self._run(mongo_audit.read_repeated(self._find_numbers, boot_id, limit))

    def pool(self) -> Mapping[str, int]:
        return self._pool.by_state()

    # --- calls

    async def _run(self, call: Coroutine[Any, Any, T]) -> T:
        """What ``call`` gives, in the contract's errors. After a fatal one the schema is looked at again."""
        try:
            with translated():
                return await self._calls.run(call)
        except SinkFatal:
            self._is_prepared = False
            raise

    async def _insert(self, documents: Sequence[Any]) -> tuple[Committed, dict[int, Rejection]]:
        """How many were stored or were there, and which were refused, by index."""
        await self._prepared()
        try:
            await self._rows.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            answer: Mapping[str, Any] = error.details
        except BSONError as error:  # too large for the server; nothing else is left to be found now
            raise SinkBatchRejected(type(error).__name__) from None
        else:
            return Committed(len(documents)), {}
        return settled(answer)  # outside, as the error holds the rows

    async def _ping(self) -> None:
        await self._prepared()
        if not await self._schema.touch():  # somebody dropped the database, or migrated it
            self._is_prepared = False
            await self._prepared()

    async def _migrate(self) -> None:
        await self._schema.ensure(may_change=True)
        self._is_prepared = True

    async def _prepared(self) -> None:
        """Look at the schema once, in the first call that needs it."""
        if not self._is_prepared:
            await self._schema.ensure(may_change=self._options.migrate)
            self._is_prepared = True

    async def _record_boot(self, boot: Boot) -> None:
        await self._prepared()
        close = {"closed_at": boot.closed_at, "last_seq": boot.last_seq, "abandoned": boot.abandoned}
        told = {name: value for name, value in close.items() if value not in (None, "")}
        unknown = {name: value for name, value in close.items() if name not in told}
        change: Document = {"$setOnInsert": {"started_at": boot.started_at, **unknown}}
        await upsert(self._boots, boot.id, {**change, "$set": told} if told else change)

    async def _read_boots(self) -> tuple[Boot, ...]:
        await self._prepared()
        found = await self._boots.find({}, sort=list(mongo_audit.BY_ID)).to_list(None)
        return tuple(map(mongo_audit.boot, found))

    async def _find_numbers(self, condition: Document) -> list[Document]:
        return await self._find(condition, mongo_audit.PAGE_ROWS, mongo_audit.FIELDS, mongo_audit.BY_ID)

    async def _find(
        self,
        condition: Document,
        rows: int,
        fields: Sequence[str] = (),
        order: Sequence[tuple[str, int]] = NEWEST_FIRST,
    ) -> list[Document]:
        """The first ``rows`` documents that match."""
        await self._prepared()
        fields_only = dict.fromkeys(fields, 1) or None
        cursor = self._rows.find(condition, fields_only, sort=list(order), limit=rows, batch_size=rows)
        return await cursor.to_list(rows)

    async def _summarise(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        summary, fields = Summary(query), summed_fields(query)
        after: Cursor | None = None
        while True:
            part = UsageQuery(start=query.start, end=query.end, filters=query.filters, after=after)
            found = await self._find(matching(part), _SUMMARY_PAGE_ROWS, fields)
            rows = [readable(partial_record, each) for each in found]
            for row in rows:
                summary.add(row)
            if len(rows) < _SUMMARY_PAGE_ROWS:
                return summary.rows()
            after = Cursor(rows[-1].timestamp, rows[-1].id)

    async def _close(self) -> None:
        """Let go of calls and client, in bounded time."""
        await self._calls.close(_CLOSE_S)
        await take_leave(self._take_leave, self._client.close, _CLOSE_S)

    def _collection(self, name: str) -> Collection:
        return collection(self._client, self._options.database, name)
