"""How all workers stand together, asked of each one at the same time.

Takes the workers that run; gives ledgers and one set of metrics. Counters never go back: of a worker that
is silent or gone, what it had counted when it was last seen stays in the sum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .merging import UNREACHABLE, Family, Snapshot, gauge, lasting, merged
from .worker import Worker


class Census:
    """One for the supervisor's life. ``size`` is the number of workers that there should be."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._departed: Snapshot = []

    async def take(self, workers: Mapping[int, Worker], restarts: int) -> dict[str, Any]:
        """The ``ledgers``, one for each worker that there should be, and the ``metrics`` of all."""
        departed = self._departed  # a worker that departs while we ask is among those asked
        asked = [workers.get(number) for number in range(1, self._size + 1)]
        views = await asyncio.gather(*(_look(each) for each in asked))
        pairs = list(zip(asked, views, strict=True))
        silent = views.count(None)
        snapshots = [_metrics(worker, view) for worker, view in pairs]
        return {
            "ledgers": [_ledger(worker, view) for worker, view in pairs],
            "metrics": [*merged([*snapshots, departed]), *self._own(silent, restarts)],
        }

    def bury(self, worker: Worker) -> None:
        """``worker`` is gone; what it counted stays."""
        self._departed = merged([self._departed, lasting(worker.metrics)])

    def _own(self, silent: int, restarts: int) -> list[Family]:
        standing = {"answering": self._size - silent, "silent": silent}
        return [
            gauge("gateway_workers", "Workers, by whether they answer.", "state", standing),
            Family(
                name="gateway_worker_restarts",
                help="Workers that died and were replaced.",
                type="counter",
                samples=[("gateway_worker_restarts_total", {}, restarts)],
            ),
        ]


async def _look(worker: Worker | None) -> dict[str, Any] | None:
    return None if worker is None else await worker.look()


def _ledger(worker: Worker | None, view: dict[str, Any] | None) -> dict[str, Any]:
    if view is not None:
        ledger: dict[str, Any] = view["ledger"]
        return ledger
    return {"state": UNREACHABLE, "boot_id": None if worker is None else worker.boot_id}


def _metrics(worker: Worker | None, view: dict[str, Any] | None) -> Snapshot:
    if view is not None:
        metrics: Snapshot = view["metrics"]
        return metrics
    return [] if worker is None else lasting(worker.metrics)
