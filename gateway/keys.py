"""Typed keys of what the application and a request carry: the one place where rooms meet by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backends import DeadLetterFile, LogSink, LogWriter, Spool, Store

    from .access import Access, Admission, Principal, RateLimits
    from .calls import RunningCalls
    from .fleet import Fleet
    from .metrics import Metrics
    from .money import Budgets, PriceBook, Settlements
    from .providers.base import Provider
    from .pumps import Pumps
    from .routing import Router
    from .settings import Settings
    from .shutdown import Shutdown


@dataclass(slots=True)
class Lifecycle:
    """Where the process stands. ``draining`` from the first signal on; ``is_closed_to_calls`` once the
    port is closed."""

    phase: Literal["starting", "running", "draining", "failed"] = "starting"
    is_closed_to_calls: bool = False


SETTINGS: web.AppKey[Settings] = web.AppKey("settings")
LIFECYCLE: web.AppKey[Lifecycle] = web.AppKey("lifecycle", Lifecycle)
STORE: web.AppKey[Store] = web.AppKey("store")
ACCESS: web.AppKey[Access] = web.AppKey("access")
LIMITS: web.AppKey[RateLimits] = web.AppKey("limits")
WRITER: web.AppKey[LogWriter] = web.AppKey("writer")
SINK: web.AppKey[LogSink | None] = web.AppKey("sink")
SPOOL: web.AppKey[Spool | None] = web.AppKey("spool")
LETTERS: web.AppKey[DeadLetterFile] = web.AppKey("letters")
PROVIDERS: web.AppKey[Mapping[str, Provider]] = web.AppKey("providers")
ROUTER: web.AppKey[Router] = web.AppKey("router")
PRICES: web.AppKey[PriceBook] = web.AppKey("prices")
BUDGETS: web.AppKey[Budgets] = web.AppKey("budgets")
SETTLEMENTS: web.AppKey[Settlements | None] = web.AppKey("settlements")
"""None: no budgets are kept."""
CALLS: web.AppKey[RunningCalls] = web.AppKey("calls")
PUMPS: web.AppKey[Pumps] = web.AppKey("pumps")
METRICS: web.AppKey[Metrics] = web.AppKey("metrics")
SHUTDOWN: web.AppKey[Shutdown] = web.AppKey("shutdown")
FLEET: web.AppKey[Fleet] = web.AppKey("fleet")
"""There only if this process is one of several workers."""

OPENAPI: web.AppKey[Callable[[], str]] = web.AppKey("openapi")
"""The API's description as text, made when it is first asked for."""

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal")
ADMISSION: web.RequestKey[Admission] = web.RequestKey("admission")
"""There once the rate limits let the call in."""
