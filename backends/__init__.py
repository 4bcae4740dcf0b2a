"""Persistence: usage rows into their sink; keys, users, budgets and prices in their store. Knows no HTTP.

This is the door for those who write rows: what is named here is public. Those who write a sink build on
``backends.sink``, ``record``, ``errors``, ``codec``, ``usage_query`` and ``testing``; all else may change.
"""

from .audit import BootAudit, UnreadableBoot
from .auditing import Audited, audit_usage
from .batching import BatchingOptions
from .codec import to_json
from .dead_letters import (
    DEFAULT_MAX_BYTES,
    DeadLetterFile,
    KeptLetter,
    Replayed,
    UnownedLetters,
    letters_in,
    mark_letters,
    unowned_letters,
)
from .errors import (
    BackendsError,
    DeadLettersUnavailable,
    NotDurable,
    SinkDriverMissing,
    SinkError,
    SinkNotFound,
    StateError,
    StoreConflict,
    StoreDriverMissing,
    StoreError,
    StoreNotFound,
    StoreUnavailable,
    StrategyError,
)
from .log_writer import LogWriter
from .noop import NoopLogWriter
from .place import Place, Refused
from .ranges import Ranges
from .record import EndReason, Status, UsageRecord, UsageSource
from .registry import SinkRegistry, Strategy, parse_strategy, sinks
from .reports import FlushReport, LedgerCounts, StopReport, WriterObserver, WriterStats
from .sanitise import tags_text
from .single import SingleLogWriter
from .sink import LogSink, PooledSink, SinkOptions, UsageAuditor, UsageReader
from .spool import Spool, SpoolOptions
from .spool.reading import FolderReport, read_letters, read_spools
from .store import (
    MAX_NANO_USD,
    Account,
    ApiKey,
    Budget,
    Claim,
    KeyHolder,
    PriceEntry,
    Record,
    Settlement,
    Store,
    StoreOptions,
    User,
    Verdict,
    load_store,
    nano_usd,
    store_schemes,
    to_millisecond,
    usd,
)
from .usage_query import (
    FILTER_COLUMNS,
    GROUP_COLUMNS,
    GROUP_TIMES,
    MAX_PAGE_ROWS,
    Cursor,
    SummaryQuery,
    SummaryRow,
    UsagePage,
    UsageQuery,
)
from .write_ahead import WriteAheadLogWriter
from .writer import BatchLogWriter

__all__ = [
    "Account",
    "ApiKey",
    "Audited",
    "BackendsError",
    "BatchLogWriter",
    "BatchingOptions",
    "BootAudit",
    "Budget",
    "Claim",
    "Cursor",
    "DEFAULT_MAX_BYTES",
    "DeadLetterFile",
    "DeadLettersUnavailable",
    "EndReason",
    "FILTER_COLUMNS",
    "FlushReport",
    "FolderReport",
    "GROUP_COLUMNS",
    "GROUP_TIMES",
    "KeptLetter",
    "KeyHolder",
    "LedgerCounts",
    "LogSink",
    "LogWriter",
    "MAX_NANO_USD",
    "MAX_PAGE_ROWS",
    "NoopLogWriter",
    "NotDurable",
    "Place",
    "PooledSink",
    "PriceEntry",
    "Ranges",
    "Record",
    "Refused",
    "Replayed",
    "Settlement",
    "SingleLogWriter",
    "SinkDriverMissing",
    "SinkError",
    "SinkNotFound",
    "SinkOptions",
    "SinkRegistry",
    "Spool",
    "SpoolOptions",
    "StateError",
    "Status",
    "StopReport",
    "Store",
    "StoreConflict",
    "StoreDriverMissing",
    "StoreError",
    "StoreNotFound",
    "StoreOptions",
    "StoreUnavailable",
    "Strategy",
    "StrategyError",
    "SummaryQuery",
    "SummaryRow",
    "UnownedLetters",
    "UnreadableBoot",
    "UsageAuditor",
    "UsagePage",
    "UsageQuery",
    "UsageReader",
    "UsageRecord",
    "UsageSource",
    "User",
    "Verdict",
    "WriteAheadLogWriter",
    "WriterObserver",
    "WriterStats",
    "audit_usage",
    "letters_in",
    "load_store",
    "mark_letters",
    "nano_usd",
    "parse_strategy",
    "read_letters",
    "read_spools",
    "sinks",
    "store_schemes",
    "tags_text",
    "to_json",
    "to_millisecond",
    "unowned_letters",
    "usd",
]
