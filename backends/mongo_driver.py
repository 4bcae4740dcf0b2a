"""Motor and PyMongo, as the sink uses them: a client, its collections, rows as BSON, its errors.

Both drivers are used through the calls that they share. Takes usage rows and plain documents; gives the
contract's errors alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeAlias, cast

from bson import Int64, encode
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from .calls import in_daemon_thread
from .errors import Rejection, SinkBatchRejected, SinkFatal, SinkRetryable
from .mongo_codes import FATAL, UNSTORABLE, brief, code_text, server_error
from .mongo_documents import Document, Unstorable, document
from .mongo_pool import PoolCount
from .mongo_settings import client_settings
from .record import UsageRecord

_CODEC: CodecOptions[Document] = CodecOptions(
    document_class=dict, tz_aware=True, uuid_representation=UuidRepresentation.STANDARD
)
_RAW = CodecOptions(document_class=RawBSONDocument, uuid_representation=UuidRepresentation.STANDARD)

Client: TypeAlias = AsyncMongoClient[Document]
Collection: TypeAlias = AsyncCollection[Document]
Packed: TypeAlias = dict[int, RawBSONDocument]


def connect(
    uri: str,
    driver: Literal["motor", "pymongo"],
    timeout_s: float,
    max_connections: int,
    pool: PoolCount,
) -> tuple[Client, Callable[[], Awaitable[None]]]:
    """A client that has not connected yet, and how it says goodbye to its server."""
    settings = {**client_settings(timeout_s, max_connections), "event_listeners": [pool]}
    if driver == "pymongo":
        client: Client = AsyncMongoClient(uri, **settings)
        return client, client.close
    from motor.motor_asyncio import AsyncIOMotorClient  # who uses the other driver need not have it

    motor: Any = AsyncIOMotorClient(uri, io_loop=asyncio.get_running_loop(), **settings)
    # Its close() is synchronous, and would hold the loop for as long as the server takes to answer.
    return cast("Client", motor), partial(in_daemon_thread, motor.close)


def collection(client: Client, database: str, name: str) -> Collection:
    """``name``, with what has to hold for each of its reads and writes. There is no ``wtimeout``: with
    ``timeoutMS`` the driver leaves it out, and bounds the wait for the majority like everything else."""
    return client[database].get_collection(
        name,
        codec_options=_CODEC,
        write_concern=WriteConcern(w="majority", j=True),
        read_preference=ReadPreference.PRIMARY,
    )


async def upsert(collection: Any, key: Any, change: Document) -> None:
    """Make ``change`` to the document ``key``, which is made if it is not there."""
    try:
        await collection.update_one({"_id": key}, change, upsert=True)
    except DuplicateKeyError:  # another process was faster, and now there is something to update
        await collection.update_one({"_id": key}, change, upsert=True)


# --- rows


def packed(rows: Sequence[UsageRecord]) -> tuple[Packed, dict[int, Rejection]]:
    """The rows as bytes, by index, and those that cannot be. Packed here and not by the driver, which names
    no culprit and may have sent the rows before it."""
    found: Packed = {}
    rejected: dict[int, Rejection] = {}
    for index, row in enumerate(rows):
        try:
            found[index] = _pack(document(row))
        except Unstorable as error:
            rejected[index] = Rejection(error.code, error.column)
        except (BSONError, OverflowError, ValueError) as error:  # UnicodeEncodeError is a ValueError
            rejected[index] = Rejection(type(error).__name__)
    return found, rejected


def _pack(values: Document) -> RawBSONDocument:
    for name in ("cost", "timestamp_us"):  # one type for a column, however small the number
        if values[name] is not None:
            values[name] = Int64(values[name])
    return RawBSONDocument(encode(values, codec_options=_CODEC), _RAW)


# --- errors


@contextmanager
def translated() -> Iterator[None]:
    """What the driver raises, as one of the contract's errors."""
    try:
        yield
    except OperationFailure as error:
        if error.code in UNSTORABLE:
            raise SinkBatchRejected(_code(error)) from None
        raise server_error(error.code, _name(error)) from None  # the error quotes the command
    except ServerSelectionTimeoutError as error:
        raise SinkRetryable("no_server", brief(error), ambiguous=False) from error
    except ConfigurationError as error:
        raise SinkFatal(type(error).__name__, brief(error)) from error
    except InvalidOperation as error:
        raise SinkRetryable("closing", "the sink is closing", ambiguous=True) from error
    except (PyMongoError, OSError) as error:
        raise SinkRetryable(type(error).__name__, brief(error), ambiguous=True) from error


def refusal(error: Exception) -> str | None:
    """The code of an error that comes again whenever the same is asked."""
    return _code(error) if isinstance(error, OperationFailure) and error.code in FATAL else None


def _code(error: OperationFailure) -> str:
    return code_text(error.code, _name(error))


def _name(error: OperationFailure) -> object:
    return (error.details or {}).get("codeName")
