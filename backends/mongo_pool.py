"""How many connections a MongoDB client has, from what the driver tells of its pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Lock

from pymongo.monitoring import ConnectionPoolListener


class PoolCount(ConnectionPoolListener):
    """How many connections there are. The driver tells of them in whatever thread it is."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def by_state(self) -> Mapping[str, int]:
        """As ``Store.pool`` and ``PooledSink.pool``."""
        in_use = self._counts["in_use"]
        return {"in_use": in_use, "idle": max(0, self._counts["open"] - in_use)}

    def _count(self, name: str, change: int) -> None:
        with self._lock:
            self._counts[name] += change

    def connection_created(self, event: object) -> None:
        self._count("open", 1)

    def connection_closed(self, event: object) -> None:
        self._count("open", -1)

    def connection_checked_out(self, event: object) -> None:
        self._count("in_use", 1)

    def connection_checked_in(self, event: object) -> None:
        self._count("in_use", -1)

    def connection_ready(self, event: object) -> None:
        pass

    def connection_check_out_started(self, event: object) -> None:
        pass

    def connection_check_out_failed(self, event: object) -> None:
        pass

    def pool_created(self, event: object) -> None:
        pass

    def pool_ready(self, event: object) -> None:
        pass

    def pool_cleared(self, event: object) -> None:
        pass

    def pool_closed(self, event: object) -> None:
        pass
