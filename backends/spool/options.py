"""The knobs of the spool, as they stand under ``spool`` in the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _named(path: Path) -> Path:
    """The dead letters' folder has its name from it."""
    if path.name in ("", ".."):
        raise ValueError("names no folder of its own; name one that nothing else is in")
    return path


class SpoolOptions(BaseModel):
    """``spill``: rows go to disk when memory is full, when their batch is overdue, and at the end of a stop.
    ``write_ahead``: every call's intent is on disk before its provider is called, its row before its answer.
    ``sync``: what a power cut may take: the last commits (``normal``) or nothing (``full``); a process that
    dies loses nothing either way. ``min_free_bytes``: the disk is left that much. ``max_age_s``: rows that
    the sink has not taken for so long go to the dead letters (None: never)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["off", "spill", "write_ahead"] = "spill"
    path: Annotated[Path, AfterValidator(_named)] = Path("./data/spool")
    sync: Literal["normal", "full"] = "normal"
    max_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024)
    min_free_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    max_age_s: float | None = Field(default=None, gt=0)
