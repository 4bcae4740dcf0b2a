"""The knobs of the batching core, as they stand under ``batching`` in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .record import MAX_ROW_BYTES


class BatchingOptions(BaseModel):
    """Limits in rows, bytes and seconds. The defaults are the contract's; a sink may declare others.

    ``on_full`` None: ``spill`` with a spool, else ``block``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_rows: int = Field(default=1000, ge=1)
    max_bytes: int = Field(default=8 * 1024 * 1024, ge=MAX_ROW_BYTES)
    linger_s: float = Field(default=0.2, ge=0)
    max_queue_rows: int = Field(default=20_000, ge=1)
    max_queue_bytes: int = Field(default=64 * 1024 * 1024, ge=MAX_ROW_BYTES)
    flush_concurrency: int = Field(default=2, ge=1)
    attempt_timeout_s: float = Field(default=10, gt=0)
    batch_deadline_s: float = Field(default=120, gt=0)
    on_full: Literal["block", "spill", "shed", "reject"] | None = None
    max_block_s: float = Field(default=0.25, ge=0)

    @property
    def max_places(self) -> int:
        """How many rows of the largest size fit."""
        return min(self.max_queue_rows, self.max_queue_bytes // MAX_ROW_BYTES)

    def with_defaults_of(self, sink_defaults: Mapping[str, Any]) -> BatchingOptions:
        """These options, where a knob that nobody set takes the sink's own default."""
        chosen = {name: getattr(self, name) for name in self.model_fields_set}
        return BatchingOptions(**{**sink_defaults, **chosen})

    def with_policy(self, *, has_spool: bool) -> BatchingOptions:
        """These options, ``on_full`` being one of its words."""
        return self.model_copy(update={"on_full": self.on_full or ("spill" if has_spool else "block")})
