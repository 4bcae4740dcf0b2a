"""Who calls, and how often they may: keys, the users behind them, rate limits.

Takes the headers of a request, later what it asks for; gives a principal, or refuses. Keeps no secret: keys
are known by their hash alone.
"""

from .authentication import Access
from .limits import Admission, RateLimits, bounds_of
from .opening import opened_access
from .principal import MASTER, Principal, require_master, require_model

__all__ = [
    "MASTER",
    "Access",
    "Admission",
    "Principal",
    "RateLimits",
    "bounds_of",
    "opened_access",
    "require_master",
    "require_model",
]
