"""The fake provider inside the test's own event loop, where a test can hold its answers back.

While it holds, a stream stops behind its first piece and a plain answer does not begin, for as long as the
test likes: what has to happen in the middle of a call happens there, however slow the machine is.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

_PROGRAM = Path(__file__).parents[2] / "load" / "fake_provider.py"

PATIENCE_S = 30.0


class HeldProvider:
    """``async with HeldProvider.running() as provider``; answers at once until ``hold``, and after ``go``."""

    def __init__(self) -> None:
        self.url = ""
        self._going = asyncio.Event()
        self._going.set()
        self._changed = asyncio.Condition()
        self._held = 0

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[HeldProvider]:
        provider = cls()
        # As the program has it: a call whose client left is over.
        runner = web.AppRunner(provider._app(), access_log=None, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            provider.url = "http://{}:{}".format(*runner.addresses[0][:2])
            yield provider
        finally:
            provider.go()
            await runner.cleanup()

    def hold(self) -> None:
        self._going.clear()

    def go(self) -> None:
        self._going.set()

    async def holds(self, calls: int) -> None:
        """Returns once so many calls wait for ``go``."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: self._held >= calls)

    def _app(self) -> web.Application:
        """Of a module of its own, so that no other provider is held."""
        spec = importlib.util.spec_from_file_location(f"held_provider_{id(self)}", _PROGRAM)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # its dataclasses look for themselves there
        spec.loader.exec_module(module)
        del sys.modules[spec.name]
        write, plain = module._write, module._plain

        async def write_and_wait(*piece: Any) -> None:
            await write(*piece)
            await self._wait()

        async def wait_and_answer(*answer: Any) -> web.StreamResponse:
            await self._wait()
            response: web.StreamResponse = await plain(*answer)
            return response

        vars(module).update(_write=write_and_wait, _plain=wait_and_answer)
        app: web.Application = module.make_app()
        return app

    async def _wait(self) -> None:
        if self._going.is_set():
            return
        async with self._changed:
            self._held += 1
            self._changed.notify_all()
        try:
            await self._going.wait()
        finally:
            self._held -= 1
