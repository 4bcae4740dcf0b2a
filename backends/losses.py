"""Rows that were given up: each one named in the log, and a few for the report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

log = logging.getLogger("backends.writer")

IDS_IN_REPORT = 10
IDS_PER_LINE = 200


class Losses:
    """One writer's. ``sample`` has the ids of the first of them."""

    def __init__(self) -> None:
        self.sample: list[UUID] = []

    def name(self, ids: Sequence[UUID]) -> None:
        """Tell which rows nobody will have."""
        self.sample.extend(ids[: IDS_IN_REPORT - len(self.sample)])
        for start in range(0, len(ids), IDS_PER_LINE):
            line = [str(row_id) for row_id in ids[start : start + IDS_PER_LINE]]
            log.error("rows_abandoned", extra={"count": len(line), "ids": line})
