"""The process: listens, waits for a signal, stops in order, reports, and says how it went.

The signals are our own: under aiohttp's runner a second SIGTERM would cancel the very steps that account
for the rows. No signal raises into the loop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from typing import NoReturn

from aiohttp import web

from backends import StopReport

from .app import build_app
from .fleet import Fleet
from .keys import CALLS, FLEET, LIFECYCLE, PUMPS, SETTLEMENTS, SHUTDOWN, WRITER
from .settings import Settings

log = logging.getLogger("gateway.serve")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
CANCELLED_CALLS_S = 1.0
"""How long calls that were told to end may take for their last word."""
AIOHTTP_SHUTDOWN_S = 0.5
"""aiohttp spends it up to twice; by then our own wait is over and nothing should be left to wait for."""
COLLECT_EVERY = (10_000, 20, 50)
"""How many new objects make the collector look for cycles, and how many of its turns make it look further."""


class Signals:
    """SIGTERM and SIGINT, counted: the first asks to stop, the second to hurry, the third ends it all. A
    worker's supervisor tells how many it had; the larger number counts."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._count = 0
        self._is_over = False
        self.stop = asyncio.Event()

    def install(self) -> None:
        """Begin to listen for signals."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._arrived, number)

    def ignore(self) -> None:
        """Listen no longer: to die of a signal behind the report would hide the exit status."""
        self._is_over = True
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _arrived(self, number: signal.Signals) -> None:
        self._count += 1
        log.info("signal", extra={"signal": signal.Signals(number).name, "count": self._count})
        self.obey(self._count)

    def obey(self, count: int) -> None:
        """Do what ``count`` signals ask for. May be repeated."""
        if count >= 1:
            self.stop.set()
        if count >= 2:
            self._app[SHUTDOWN].hurry.set()
        if count >= 3 and not self._is_over:
            self._end_now()

    def _end_now(self) -> NoReturn:
        if WRITER not in self._app:  # still starting: there is no row yet
            os._exit(0)
        self._app[CALLS].end_now()
        if (settlements := self._app[SETTLEMENTS]) is not None:
            settlements.name_the_rest()
        report = self._app[WRITER].close_now()
        log_report(report)
        if fleet := self._app.get(FLEET):
            fleet.leave_at_once(report)
        logging.shutdown()
        os._exit(exit_status(report))


async def serve(settings: Settings, fleet: Fleet | None = None) -> int:
    """Serve until a signal, alone or as one worker of ``fleet``; the exit status as the contract has it.
    Raises ``OSError``: the port is taken."""
    app = build_app(settings)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=AIOHTTP_SHUTDOWN_S)
    signals = Signals(app)
    signals.install()
    try:
        await runner.setup()
        if fleet is not None:
            fleet.attach(app, signals.obey)
        site = web.TCPSite(runner, settings.host, settings.port, reuse_port=fleet is not None)
        await site.start()
        _spare_collector()
        if fleet is not None:
            fleet.ready()
        else:
            url = url_of(settings.host, runner.addresses[0][1])
            log.info("listening", extra={"url": url, "pid": os.getpid()})
        await signals.stop.wait()
        await _take_leave(app, runner, site)
    finally:
        await runner.cleanup()
    signals.ignore()
    report = app[WRITER].close_now()
    log_report(report)
    if fleet is not None:
        await fleet.leave(report)
    return exit_status(report)


async def serve_as_worker(line: int) -> int:
    """Serve for the supervisor at the other end of the file ``line``; the same exit status."""
    fleet, settings = await Fleet.join(line)
    return 0 if settings is None else await serve(settings, fleet)


def _spare_collector() -> None:
    """Calls leave next to no cycles behind, so the collector need not look for them after every few; and what
    is here before the first of them stays, so it need not be looked through."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)


async def _take_leave(app: web.Application, runner: web.AppRunner, site: web.TCPSite) -> None:
    """Everything that comes before the contexts of the application close, in the contract's order."""
    shutdown, calls, lifecycle = app[SHUTDOWN], app[CALLS], app[LIFECYCLE]
    shutdown.begin()
    lifecycle.phase = "draining"
    await shutdown.spend("readiness_delay", asyncio.sleep)
    await site.stop()
    lifecycle.is_closed_to_calls = True
    if runner.server is not None:
        runner.server.pre_shutdown()  # idle keep-alive connections close, busy ones after their answer
    await shutdown.spend("drain", calls.ended, calls=len(calls))
    calls.cancel()
    await calls.ended(CANCELLED_CALLS_S)
    if shutdown.hurry.is_set():
        app[PUMPS].cancel()


def log_report(report: StopReport) -> None:
    """The one line by which a stop is judged."""
    log.info("shutdown_report", extra=report.to_json())


def exit_status(report: StopReport) -> int:
    """0: every accepted row is committed, spooled or dead-lettered; 3: rows were abandoned; 1: a bug."""
    if report.stats.counts.unaccounted:
        return 1
    return 3 if report.stats.counts.abandoned else 0


def url_of(host: str, port: int) -> str:
    """Where to reach us."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
