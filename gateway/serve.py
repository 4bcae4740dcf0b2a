"""The process: listens, waits for a signal, stops in order, reports, and says how it went.

The signals are our own: under aiohttp's runner a second SIGTERM would cancel the very steps that account
for the rows. No signal raises into the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import NoReturn

from aiohttp import web

from backends import StopReport

from .app import build_app
from .keys import CALLS, LIFECYCLE, PUMPS, SHUTDOWN, WRITER
from .settings import Settings

log = logging.getLogger("gateway.serve")

CANCELLED_CALLS_S = 1.0
"""How long calls that were told to end may take for their last word."""
AIOHTTP_SHUTDOWN_S = 0.5
"""aiohttp spends it up to twice; by then our own wait is over and nothing should be left to wait for."""


class Signals:
    """SIGTERM and SIGINT, counted: the first asks to stop, the second to hurry, the third ends it all."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._count = 0
        self.stop = asyncio.Event()

    def install(self) -> None:
        """Begin to listen for signals."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._arrived, number)

    def _arrived(self, number: signal.Signals) -> None:
        self._count += 1
        log.info("signal", extra={"signal": signal.Signals(number).name, "count": self._count})
        if self._count == 1:
            self.stop.set()
        elif self._count == 2:
            self._app[SHUTDOWN].hurry.set()
        else:
            self._end_now()

    def _end_now(self) -> NoReturn:
        report = self._app[WRITER].close_now()
        log_report(report)
        logging.shutdown()
        os._exit(exit_status(report))


async def serve(settings: Settings) -> int:
    """Serve until a signal; the exit status as the contract has it. Raises ``OSError``: the port is taken."""
    app = build_app(settings)
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=AIOHTTP_SHUTDOWN_S)
    await runner.setup()
    try:
        signals = Signals(app)
        signals.install()
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        log.info("listening", extra={"url": _url(runner, settings.host), "pid": os.getpid()})
        await signals.stop.wait()
        await _take_leave(app, runner, site)
    finally:
        await runner.cleanup()
    report = app[WRITER].close_now()
    log_report(report)
    return exit_status(report)


async def _take_leave(app: web.Application, runner: web.AppRunner, site: web.TCPSite) -> None:
    """Everything that comes before the contexts of the application close, in the contract's order."""
    shutdown, calls, lifecycle = app[SHUTDOWN], app[CALLS], app[LIFECYCLE]
    shutdown.begin()
    lifecycle.phase = "draining"
    await shutdown.wait(asyncio.sleep(shutdown.left_s("readiness_delay")))
    await site.stop()
    lifecycle.is_closed_to_calls = True
    if runner.server is not None:
        runner.server.pre_shutdown()  # idle keep-alive connections close, busy ones after their answer
    await shutdown.wait(calls.ended(shutdown.left_s("drain")))
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


def _url(runner: web.AppRunner, host: str) -> str:
    port = runner.addresses[0][1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
