"""What the gateway knows beside its usage rows: keys, users, budgets, prices, and who holds which money.

Records in, records out, behind one Protocol (``contract``). One file for each database; none of them knows
HTTP, and none is the sink: a storm of rows must not keep anybody from being let in.
"""

from .accounts import Account
from .contract import Claim, Settlement, Store, StoreOptions, Verdict
from .records import (
    MAX_NANO_USD,
    ApiKey,
    Budget,
    KeyHolder,
    PriceEntry,
    Record,
    User,
    nano_usd,
    to_millisecond,
    usd,
)
from .registry import load_store, store_schemes

__all__ = [
    "MAX_NANO_USD",
    "Account",
    "ApiKey",
    "Budget",
    "Claim",
    "KeyHolder",
    "PriceEntry",
    "Record",
    "Settlement",
    "Store",
    "StoreOptions",
    "User",
    "Verdict",
    "load_store",
    "nano_usd",
    "store_schemes",
    "to_millisecond",
    "usd",
]
