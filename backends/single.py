"""``single``: the row is committed within the call, before the answer's body or a stream's last event.

The batching core with no linger and a receipt for every row. Rows of calls that end together share a
statement, so a busy gateway is no slower than its database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from .batching import BatchingOptions
from .errors import NotDurable
from .ledger import Bucket, Entry
from .place import Receipt
from .record import UsageRecord
from .sink import LogSink
from .waiting import wait_for_end
from .writer import BatchLogWriter

KEPT: frozenset[Bucket] = frozenset(("committed", "duplicates", "dead_lettered"))
"""The buckets in which a row is as safe as this strategy promises."""


class SingleLogWriter(BatchLogWriter):
    """New calls are refused (``sink_down``) while the breaker is open; a row that cannot be committed within
    ``attempt_timeout_s`` is given up and its call told so."""

    strategy = "single"

    def __init__(self, sink: LogSink, options: BatchingOptions, **settings: Any) -> None:
        within_call = options.model_copy(update={"linger_s": 0.0})
        super().__init__(sink, within_call, give_up_after_s=options.attempt_timeout_s, **settings)
        self._receipts: dict[UUID, Receipt] = {}

    def _receipt(self, row: UsageRecord) -> Receipt | None:
        return self._receipts.setdefault(row.id, asyncio.get_running_loop().create_future())

    async def settled(self, receipt: Receipt) -> None:
        """Wait for the sink's answer, at most twice ``attempt_timeout_s``: a sink that ignores its timeout
        must not hold the client for ever. Raises ``NotDurable``."""
        await wait_for_end(receipt, 2 * self._options.attempt_timeout_s)
        bucket = receipt.result() if receipt.done() else "in_flight"
        if bucket not in KEPT:
            raise NotDurable(bucket)

    def _refusal(self) -> str | None:
        is_well = self._dispatcher.health.breaker.state == "closed"
        return super()._refusal() or (None if is_well else "sink_down")

    def _on_settled(self, bucket: Bucket, entries: Sequence[Entry]) -> None:
        super()._on_settled(bucket, entries)
        for entry in entries:
            receipt = self._receipts.pop(entry.row.id, None)
            if receipt is not None and not receipt.done():
                receipt.set_result(bucket)
