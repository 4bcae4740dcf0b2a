"""Persistence of usage rows: record in, database row out. Knows nothing of HTTP.

This is the door for those who write rows: what is named here is public. Those who write a sink build on
``backends.sink``, ``record``, ``errors``, ``codec``, ``usage_query`` and ``testing``; all else may change.
"""

from .admission import Place, Refused
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
    StrategyError,
)
from .ledger import LedgerCounts
from .log_writer import LogWriter
from .noop import NoopLogWriter
from .ranges import Ranges
from .record import EndReason, Status, UsageRecord, UsageSource
from .registry import SinkRegistry, Strategy, parse_strategy, sinks
from .reports import FlushReport, StopReport, WriterObserver, WriterStats
from .sanitise import tags_text
from .single import SingleLogWriter
from .sink import LogSink, SinkOptions, UsageAuditor, UsageReader
from .spool import Spool, SpoolOptions
from .spool.reading import FolderReport, read_letters, read_spools
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
    "DEFAULT_MAX_BYTES",
    "FILTER_COLUMNS",
    "GROUP_COLUMNS",
    "GROUP_TIMES",
    "MAX_PAGE_ROWS",
    "Audited",
    "BackendsError",
    "BatchLogWriter",
    "BatchingOptions",
    "BootAudit",
    "Cursor",
    "DeadLetterFile",
    "DeadLettersUnavailable",
    "EndReason",
    "FlushReport",
    "KeptLetter",
    "FolderReport",
    "LedgerCounts",
    "LogSink",
    "LogWriter",
    "NoopLogWriter",
    "NotDurable",
    "Place",
    "Ranges",
    "Refused",
    "Replayed",
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
    "WriteAheadLogWriter",
    "WriterObserver",
    "WriterStats",
    "letters_in",
    "mark_letters",
    "audit_usage",
    "parse_strategy",
    "read_letters",
    "read_spools",
    "sinks",
    "tags_text",
    "to_json",
    "unowned_letters",
]
