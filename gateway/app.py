"""The composition root: the only file that knows every room, and the order in which they open and close.

The contexts open in the order of the list and close in reverse: pumps, provider connections, writer, sink,
money, who may call, store.
The writer must outlive everything that can still put a row, so nothing of it hangs on ``on_shutdown``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from aiohttp import web

from backends import (
    BatchLogWriter,
    DeadLetterFile,
    LogWriter,
    NoopLogWriter,
    PooledSink,
    SingleLogWriter,
    Spool,
    Strategy,
    WriteAheadLogWriter,
    sinks,
)

from .access import RateLimits, opened_access
from .calls import RunningCalls
from .keys import (
    ACCESS,
    BUDGETS,
    CALLS,
    LETTERS,
    LIFECYCLE,
    LIMITS,
    METRICS,
    PRICES,
    PROVIDERS,
    PUMPS,
    ROUTER,
    SETTINGS,
    SETTLEMENTS,
    SHUTDOWN,
    SINK,
    SPOOL,
    STORE,
    WRITER,
    Lifecycle,
)
from .metrics import Metrics
from .middlewares import add_middlewares
from .money import opened_money
from .providers.pool import open_providers
from .pumps import Pumps
from .routes import add_routes
from .routing import Router, named_models
from .sections import CLOSING_S
from .settings import Settings, sink_options
from .shutdown import Shutdown
from .store import opened_store

T = TypeVar("T")

log = logging.getLogger("gateway.app")

MAX_BODY_BYTES = 32 * 1024 * 1024
"""aiohttp's own limit of 1 MiB refuses ordinary images."""
CANCELLED_PUMPS_S = 1.0


def build_app(settings: Settings) -> web.Application:
    """The gateway, not started. Nothing is opened before the application starts up."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[SETTINGS] = settings
    app[LIFECYCLE] = Lifecycle()
    app[METRICS] = Metrics()
    app[CALLS] = RunningCalls()
    app[LIMITS] = RateLimits()
    app[PUMPS] = Pumps(settings.streams.max_pumps, settings.streams.after_disconnect_s)
    app[ROUTER] = Router(settings.providers, named_models(settings.models), **settings.cooldown.model_dump())
    app[SHUTDOWN] = Shutdown(settings.shutdown)
    add_middlewares(app, settings.cors_allow_origins)
    add_routes(app)
    app.cleanup_ctx.extend([_store, _access, _money, _sink, _spool, _letters, _writer, _providers, _pumps])
    return app


async def _store(app: web.Application) -> AsyncIterator[None]:
    async with closing_within(opened_store(app[SETTINGS]), CLOSING_S / 4, "store") as store:
        app[STORE] = store
        app[METRICS].watch_store(store.pool)
        yield


async def _access(app: web.Application) -> AsyncIterator[None]:
    async with opened_access(app[SETTINGS], app[STORE]) as access:
        app[ACCESS] = access
        yield


async def _money(app: web.Application) -> AsyncIterator[None]:
    opening = opened_money(app[SETTINGS], app[STORE], app[METRICS].registry, CLOSING_S / 4)
    async with opening as money:
        app[PRICES], app[BUDGETS], app[SETTLEMENTS] = money.prices, money.budgets, money.settlements
        yield


async def _sink(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    if settings.log_writer_strategy.sink is None:
        app[SINK] = None
        yield
        return
    sink_class = sinks.load(settings.log_writer_strategy.sink)
    async with closing_within(sink_class.open(sink_options(settings)), CLOSING_S / 2, "sink") as sink:
        app[SINK] = sink
        if isinstance(sink, PooledSink):
            app[METRICS].watch_sink(sink.pool)
        yield


async def _spool(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    is_needed = settings.spool.mode != "off" and settings.log_writer_strategy.sink is not None
    spool = app[SPOOL] = Spool(settings.spool) if is_needed else None
    yield
    if spool is not None:
        await spool.close()


async def _letters(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    letters = app[LETTERS] = DeadLetterFile(settings.dead_letters_folder, settings.dead_letters.max_bytes)
    yield
    letters.close()


async def _writer(app: web.Application) -> AsyncIterator[None]:
    writer = app[WRITER] = _build_writer(app)
    app[METRICS].watch(writer)
    app[METRICS].watch_pumps(lambda: len(app[PUMPS]))
    await writer.start()
    app[LIFECYCLE].phase = "running"
    yield
    counts = writer.stats().counts
    await app[SHUTDOWN].spend("stop", writer.stop, rows=counts.queued + counts.in_flight)
    await writer.stop(0.0)  # the same drain: done already, or the second signal cuts it short


async def _providers(app: web.Application) -> AsyncIterator[None]:
    async with open_providers(app[SETTINGS].providers) as providers:
        app[PROVIDERS] = providers
        yield


async def _pumps(app: web.Application) -> AsyncIterator[None]:
    yield
    shutdown, pumps = app[SHUTDOWN], app[PUMPS]
    await shutdown.spend("pump", pumps.ended, pumps=len(pumps))
    pumps.cancel()
    await pumps.ended(CANCELLED_PUMPS_S)


def _build_writer(app: web.Application) -> LogWriter:
    settings, sink, spool = app[SETTINGS], app[SINK], app[SPOOL]
    strategy = settings.log_writer_strategy
    if sink is None or strategy.sink is None:
        return NoopLogWriter()
    return _writer_class(strategy, spool)(
        sink,
        settings.batching,
        sink_name=strategy.sink,
        dead_letters=app[LETTERS],
        observer=app[METRICS],
        stop_deadline_s=settings.shutdown.stop_deadline_s,
        cancel_grace_s=settings.shutdown.cancel_grace_s,
        spool=spool,
    )


def _writer_class(strategy: Strategy, spool: Spool | None) -> type[BatchLogWriter]:
    if strategy.kind == "single":
        return SingleLogWriter
    return WriteAheadLogWriter if spool is not None and spool.is_write_ahead else BatchLogWriter


@asynccontextmanager
async def closing_within(
    context: AbstractAsyncContextManager[T], seconds: float, name: str
) -> AsyncIterator[T]:
    """``context``, of a thing called ``name``, whose exit is not waited for longer than ``seconds``: every
    row is accounted for by then, and a driver that hangs must not cost the process its clean end."""
    opened = await context.__aenter__()
    try:
        yield opened
    finally:
        closing = asyncio.ensure_future(context.__aexit__(None, None, None))
        done, _ = await asyncio.wait({closing}, timeout=seconds)
        if not done:
            log.warning("%s_still_closing", name, extra={"after_s": seconds})
        elif error := closing.exception():
            log.warning("%s_not_closed", name, exc_info=error)
