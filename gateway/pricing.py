"""What a call costs, in USD, exactly.

Takes a price and token counts; gives a Decimal, rounded once, half-even, to nine places. Knows no float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact

from .token_usage import TokenUsage

_NINE_PLACES = Decimal("1e-9")
_MAX_USD = 1_000_000
_MAX_PLACES = 30
_EXACT = Context(prec=100, traps=[Inexact])
"""Room for every sum of counts and prices; a digit that did not fit would raise, never vanish."""
_ROUNDING = Context(prec=100, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens. ``cached_input_per_million`` None: cached tokens cost as others.

    Raises ``ValueError`` for what cannot be reckoned with exactly.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    cached_input_per_million: Decimal | None = None

    def __post_init__(self) -> None:
        prices = (self.input_per_million, self.output_per_million, self.cached_input_per_million)
        if not all(price is None or _is_usable(price) for price in prices):
            raise ValueError(
                f"is no price; use 0 to {_MAX_USD} USD per million tokens, with {_MAX_PLACES} places at most"
            )


class Prices:
    """The configured prices, by ``provider:model``."""

    def __init__(self, entries: Mapping[str, Price]) -> None:
        self._entries = dict(entries)

    def lookup(self, name: str) -> Price | None:
        """The price of ``provider:model``, or None."""
        return self._entries.get(name)


def cost(price: Price, usage: TokenUsage) -> Decimal | None:
    """What ``usage`` costs; None when a count that it needs is unknown."""
    prompt, completion = usage.prompt_tokens, _completion_tokens(usage)
    if prompt is None or completion is None:
        return None
    cached = min(usage.cached_tokens or 0, prompt)  # part of the prompt, whatever a provider claims
    cached_price = price.cached_input_per_million
    if cached_price is None:
        cached_price = price.input_per_million
    per_million = _EXACT.add(
        _EXACT.add(_times(prompt - cached, price.input_per_million), _times(cached, cached_price)),
        _times(completion, price.output_per_million),
    )
    return _ROUNDING.quantize(_EXACT.scaleb(per_million, -6), _NINE_PLACES)


def _is_usable(price: Decimal) -> bool:
    exponent = price.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -_MAX_PLACES and 0 <= price <= _MAX_USD


def _times(tokens: int, per_million: Decimal) -> Decimal:
    return _EXACT.multiply(Decimal(tokens), per_million)


def _completion_tokens(usage: TokenUsage) -> int | None:
    """Embeddings report the prompt and the total only: the rest is what was completed."""
    if usage.completion_tokens is None and usage.prompt_tokens is not None and usage.total_tokens is not None:
        rest = usage.total_tokens - usage.prompt_tokens
        return rest if rest >= 0 else None
    return usage.completion_tokens
