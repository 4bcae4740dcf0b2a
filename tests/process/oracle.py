"""The oracle of ``load/oracle.py``, a process of its own, as the tests order it about."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from process.durable import Durable, load_module

PROGRAM = Path(__file__).parents[2] / "load" / "oracle.py"
HEAL_S = 60.0


class Oracle:
    """Calls a gateway as told, and knows what became of every call."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._numbers = itertools.count(1)

    async def do(self, what: str, **order: Any) -> dict[str, Any]:
        """One order and its answer."""
        number = next(self._numbers)
        self._process.tell(json.dumps({"do": what, "n": number, **order}))
        reply: dict[str, Any] = await self._process.said(f"reply-{number}")
        assert "error" not in reply, reply
        return reply

    async def begin(self, gateway: Any, mode: str, clients: int = 16, **more: Any) -> None:
        """Its clients call ``gateway`` from now on."""
        await self.do("begin", url=gateway.url, clients=clients, is_journalled=mode == "write_ahead", **more)

    async def reach(self, calls: int, within_s: float = 15.0) -> dict[str, Any]:
        """Returns once so many more calls ended."""
        return await self.do("reach", calls=calls, within_s=within_s)

    async def ended(self, gateway: Any, ending: str, **told: Any) -> dict[str, Any]:
        """The run is over; what the gateway named as abandoned is passed on."""
        abandoned = [str(each) for each in gateway.abandoned()]
        return await self.do("end", ending=ending, abandoned=abandoned, **told)

    async def healed(self, gateway: Any) -> None:
        """A fresh call is answered, and nothing is on its way any more."""
        assert (await self.do("heal", url=gateway.url))["outcome"] == "answered"

    async def verdict(self, durable: Durable) -> dict[str, Any]:
        """What it found, with nothing wrong among it."""
        verdict = await self.do("judge", where=durable.where)
        assert verdict["problems"] == [], verdict
        return verdict


@pytest.fixture
async def oracle(start: Any, provider_url: str, tmp_path: Path, master_key: str) -> AsyncIterator[Oracle]:
    """An oracle that has seen nothing yet."""
    command = (sys.executable, str(PROGRAM), "--provider", provider_url, "--key", master_key)
    async with start(*command, "--seed", tmp_path.name) as process:
        yield Oracle(process)


@pytest.fixture(scope="session")
def priced() -> dict[str, Any]:
    """The section that prices the oracle's calls, so that their cost can be compared."""
    return {"pricing": {"local:fake": load_module("obligations").PRICE}}
