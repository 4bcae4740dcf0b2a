"""The token counts that a provider reports, read without trust.

Takes the ``usage`` object of an answer or of a stream's event; gives counts that fit every sink.
Anything else than a plain count is unknown, never zero and never an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_MAX_COUNT = 2**63 - 1
"""The largest integer that every sink's column holds."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Counts of one call. ``cached_tokens`` are part of the prompt's, ``reasoning_tokens`` of the
    completion's. None means that the provider did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    def updated(self, later: TokenUsage) -> TokenUsage:
        """What is known after both reports of one stream: for each count the last that was given."""
        return TokenUsage(
            _last(self.prompt_tokens, later.prompt_tokens),
            _last(self.completion_tokens, later.completion_tokens),
            _last(self.total_tokens, later.total_tokens),
            _last(self.cached_tokens, later.cached_tokens),
            _last(self.reasoning_tokens, later.reasoning_tokens),
        )


_NOTHING = TokenUsage()


def read_usage(usage: object) -> TokenUsage | None:
    """The counts in an OpenAI ``usage`` object; None when there is no usable count in it."""
    if not isinstance(usage, Mapping):
        return None
    counts = TokenUsage(
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        total_tokens=_count(usage, "total_tokens"),
        cached_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )
    return None if counts == _NOTHING else counts


def _last(earlier: int | None, later: int | None) -> int | None:
    return earlier if later is None else later


def _count(holder: object, name: str) -> int | None:
    value = holder.get(name) if isinstance(holder, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_COUNT else None
