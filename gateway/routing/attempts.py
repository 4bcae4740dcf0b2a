"""What is tried again, and after which pause.

Pure. Takes the error of an attempt and dice; gives verdicts and seconds. A client's own mistake is never
tried again, nor are our credentials; what failed for a moment is, as long as the client has had no byte.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

from ..providers.errors import ProviderError

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 4.0
LONGEST_REST_S = 10.0
"""A provider that asks for a longer rest (``Retry-After``) is not tried again by the same call."""
_PASSING = frozenset((408, 409, 425, 429))
_OUR_CREDENTIALS = frozenset((401, 403))


def is_tried_again(error: ProviderError) -> bool:
    """Whether another attempt may end better: no connection, no answer in time, an answer that is none, or a
    status that passes: 408, 409, 425, 429, 5xx. Elsewhere, also what could not be put to the provider."""
    status = error.provider_status if error.was_asked else None
    return status is None or status in _PASSING or status >= 500


def is_fault(error: ProviderError) -> bool:
    """Whether ``error`` tells against the target, and not against what the client asked for."""
    if not error.was_asked:
        return False
    return is_tried_again(error) or error.provider_status in _OUR_CREDENTIALS


def rest_s(error: ProviderError, now: datetime) -> float:
    """For how many seconds the provider wants to be left alone; 0 if it does not say."""
    value = error.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        return 0.0
    return max(0.0, (moment.astimezone(UTC) - now).total_seconds())


def pause_s(tries: int, rest_s: float, rng: Random) -> float:
    """Seconds before a target is tried again that was tried so many times: anything up to a bound that
    doubles (full jitter), behind the rest that it asked for. One that was not tried yet needs none."""
    if tries == 0:
        return 0.0
    bound = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10))
    return rest_s + rng.uniform(0.0, bound)
