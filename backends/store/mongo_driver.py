"""PyMongo, as the store uses it: a client, its collections, its errors. Knows nothing of what is stored.

Takes plain documents, in which every whole number goes out as one of 64 bits, however small: sums then stay
whole. Gives plain documents, and the store's errors. A condition with half a character in it, which cannot
be asked, is met by no document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from bson import Int64
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from pymongo import AsyncMongoClient, ReadPreference, ReturnDocument, UpdateOne, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.uri_parser import parse_uri

from ..errors import SinkRetryable, StoreUnavailable
from ..mongo_codes import brief, code_text, server_error
from ..mongo_pool import PoolCount
from ..mongo_settings import client_settings
from .contract import StoreOptions
from .mongo_documents import Document
from .mongo_moves import Move
from .mongo_records import Duplicate
from .rows import is_whole

Client: TypeAlias = AsyncMongoClient[Document]

_CODEC: CodecOptions[Document] = CodecOptions(document_class=dict, tz_aware=True)
_DATABASE = "gateway"
"""Of a URL that names none."""


def connect(options: StoreOptions, pool: PoolCount) -> tuple[Client, str]:
    """A client that has not connected yet, and the name of the database. Raises ``ValueError``, with a text
    that shows no secret."""
    url = options.url.get_secret_value()
    try:
        if not url.startswith("mongodb+srv://"):  # the rest of those stands in the DNS
            parse_uri(url, warn=False)
        name = _database_name(url)
        settings = client_settings(options.timeout_s, options.max_connections)
        client: Client = AsyncMongoClient(url, event_listeners=[pool], **settings)
    except (ConfigurationError, ValueError) as error:  # whose texts tell names, not values
        wrong = str(error).rstrip(".")
        raise ValueError(f"is no connection string ({wrong}); write mongodb://HOST:27017/gateway") from None
    return client, name


def _database_name(url: str) -> str:
    place = url.partition("://")[2].partition("?")[0]
    name = place.partition("/")[2] or _DATABASE
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", name):
        raise ValueError("the database has a name of letters, digits, - and _")
    return name


# --- collections


class Table:
    """One collection."""

    def __init__(self, collection: AsyncCollection[Document]) -> None:
        self._collection = collection

    async def find_one(self, condition: Document, *, without: Sequence[str] = ()) -> Document | None:
        """The document that matches, less some fields."""
        if not _can_be_met(condition):
            return None
        return await self._collection.find_one(condition, dict.fromkeys(without, 0) or None)

    async def find(self, condition: Document, limit: int, *, only: Sequence[str] = ()) -> Sequence[Document]:
        """The first ``limit`` documents by ``_id``; of them, ``only`` these fields."""
        if limit < 1 or not _can_be_met(condition):  # 0 is all, for the driver
            return []
        fields = {"_id": 0, **dict.fromkeys(only, 1)} if only else None
        cursor = self._collection.find(condition, fields, sort=[("_id", 1)], limit=limit, batch_size=limit)
        return await cursor.to_list(limit)

    async def insert(self, document: Document) -> None:
        """Raises ``Duplicate``."""
        try:
            await self._collection.insert_one(_wide(document))
        except DuplicateKeyError:
            raise Duplicate from None

    async def change(self, move: Move) -> bool:
        """Do ``move`` to one document; whether there was one that matched."""
        if not _can_be_met(move[0]):
            return False
        answer = await self._collection.update_one(*map(_wide, move))
        return bool(answer.matched_count)

    async def change_each(self, of: Sequence[Move]) -> int:
        """Do each of these moves by itself; how many met a document."""
        updates = [UpdateOne(*map(_wide, each)) for each in of if _can_be_met(each[0])]
        if not updates:
            return 0
        answer = await self._collection.bulk_write(updates, ordered=False)
        return answer.matched_count

    async def change_all(self, move: Move) -> int:
        """Do ``move`` to every document that matches; to how many."""
        return (await self._collection.update_many(*map(_wide, move))).matched_count

    async def changed(self, move: Move) -> Document | None:
        """The whole document after ``move``, for not every server can leave fields out; None if none matched.
        Raises ``Duplicate``."""
        if not _can_be_met(move[0]):
            return None
        try:
            found: Document | None = await self._collection.find_one_and_update(
                _wide(move[0]),
                _wide(move[1]),
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            raise Duplicate from None
        return found

    async def upsert(self, id: str, update: Document) -> None:
        """Change the document ``id``, or make it so."""
        try:
            await self._collection.update_one({"_id": id}, _wide(update), upsert=True)
        except DuplicateKeyError:  # another process was faster, and now there is something to update
            await self._collection.update_one({"_id": id}, _wide(update), upsert=True)

    async def delete(self, condition: Document) -> bool:
        """Remove the document that matches; whether there was one."""
        if not _can_be_met(condition):
            return False
        return bool((await self._collection.delete_one(_wide(condition))).deleted_count)

    async def create_index(self, name: str, fields: Sequence[str], *, unique: bool) -> None:
        more: dict[str, Any] = {"unique": True} if unique else {}
        await self._collection.create_index([(field, 1) for field in fields], name=name, **more)


class Database:
    """One database of ``client``. There is no ``wtimeout``: with ``timeoutMS`` the driver leaves it out, and
    bounds the wait for the majority like everything else."""

    def __init__(self, client: Client, name: str) -> None:
        self._database = client.get_database(
            name,
            codec_options=_CODEC,
            write_concern=WriteConcern(w="majority", j=True),
            read_preference=ReadPreference.PRIMARY,
        )

    def table(self, name: str) -> Table:
        return Table(self._database[name])

    async def server(self) -> Mapping[str, Any]:
        """What the server says of itself."""
        return await self._database.command("buildInfo")


def _can_be_met(condition: Any) -> bool:
    if isinstance(condition, dict):
        return all(map(_can_be_met, condition.values()))
    return all(map(_can_be_met, condition)) if isinstance(condition, list) else is_whole(condition)


def _wide(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _wide(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_wide(each) for each in value]
    return Int64(value) if isinstance(value, int) and not isinstance(value, bool) else value


# --- errors


@contextmanager
def translated() -> Iterator[None]:
    """What the driver raises, and the end of a deadline, as ``StoreUnavailable``."""
    try:
        yield
    except TimeoutError:
        raise StoreUnavailable("timeout", "the server did not answer in time") from None
    except SinkRetryable as error:  # of our own calls, when the store closes
        raise StoreUnavailable(error.code, "the store is closing") from None
    except BulkWriteError as error:
        codes = [each["code"] for each in error.details.get("writeErrors", ())]
        raise _refused(codes[0] if codes else None, None) from None
    except OperationFailure as error:
        raise _refused(error.code, (error.details or {}).get("codeName")) from None  # it quotes the command
    except ServerSelectionTimeoutError as error:
        raise StoreUnavailable("no_server", brief(error)) from error
    except InvalidOperation as error:
        raise StoreUnavailable("closing", "the store is closing") from error
    except (PyMongoError, BSONError, OSError) as error:
        raise StoreUnavailable(type(error).__name__, brief(error)) from error


def _refused(code: int | None, name: object) -> StoreUnavailable:
    return StoreUnavailable(code_text(code, name), server_error(code, name).message)
