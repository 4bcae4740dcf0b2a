"""What a call costs, in USD, exactly.

Takes a price and counts; gives a Decimal, rounded once, half-even, to nine places. Knows no float.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
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
    """USD per million tokens, and beside them per image that was made and per call. None: cached tokens cost
    as the prompt's others, reasoning tokens as the completion's.

    Raises ``ValueError`` for what cannot be reckoned with exactly.
    """

    input_per_million: Decimal
    output_per_million: Decimal
    cached_input_per_million: Decimal | None = None
    reasoning_per_million: Decimal | None = None
    per_image: Decimal = Decimal(0)
    per_request: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        prices = (getattr(self, each.name) for each in fields(self))
        if not all(price is None or _is_usable(price) for price in prices):
            raise ValueError(f"is no price; use 0 to {_MAX_USD} USD, with {_MAX_PLACES} places at most")


def cost(price: Price, usage: TokenUsage, images: int = 0) -> Decimal | None:
    """What ``usage`` and so many images cost; None when a count that it needs is unknown. Tokens that cost
    nothing need not be counted."""
    prompt, completion = _prompt_tokens(usage, price), _completion_tokens(usage, price)
    if prompt is None or completion is None:
        return None
    per_million = _EXACT.add(
        _parted(prompt, usage.cached_tokens, price.input_per_million, price.cached_input_per_million),
        _parted(completion, usage.reasoning_tokens, price.output_per_million, price.reasoning_per_million),
    )
    exact = _EXACT.add(_EXACT.scaleb(per_million, -6), _apart(price, images))
    return _ROUNDING.quantize(exact, _NINE_PLACES)


def foreseen(price: Price, prompt_tokens: int, output_tokens: int, images: int = 0) -> Decimal:
    """What a call is expected to cost before it is made, not rounded: nothing cached, and the dearer of the
    two kinds of output."""
    output = max(price.output_per_million, price.reasoning_per_million or Decimal(0))
    per_million = _EXACT.add(_times(prompt_tokens, price.input_per_million), _times(output_tokens, output))
    return _EXACT.add(_EXACT.scaleb(per_million, -6), _apart(price, images))


def _is_usable(price: Decimal) -> bool:
    exponent = price.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -_MAX_PLACES and 0 <= price <= _MAX_USD


def _apart(price: Price, images: int) -> Decimal:
    """What costs beside the tokens."""
    if not images or not price.per_image:
        return price.per_request
    return _EXACT.add(_times(images, price.per_image), price.per_request)


def _parted(count: int, part: int | None, price: Decimal, price_of_part: Decimal | None) -> Decimal:
    """``count`` tokens, of which ``part`` may have a price of its own. A part is no larger than its whole,
    whatever a provider claims."""
    if price_of_part is None or part is None:
        return _times(count, price)
    known = min(part, count)
    return _EXACT.add(_times(count - known, price), _times(known, price_of_part))


def _times(count: int, price: Decimal) -> Decimal:
    return _EXACT.multiply(count, price)


def _prompt_tokens(usage: TokenUsage, price: Price) -> int | None:
    is_free = not price.input_per_million and not price.cached_input_per_million
    return 0 if usage.prompt_tokens is None and is_free else usage.prompt_tokens


def _completion_tokens(usage: TokenUsage, price: Price) -> int | None:
    """Embeddings report the prompt and the total only: the rest is what was completed."""
    if usage.completion_tokens is None and not price.output_per_million and not price.reasoning_per_million:
        return 0
    if usage.completion_tokens is None and usage.prompt_tokens is not None and usage.total_tokens is not None:
        rest = usage.total_tokens - usage.prompt_tokens
        return rest if rest >= 0 else None
    return usage.completion_tokens
