"""An oracle: a process of its own that calls a gateway and knows afterwards what the gateway owes.

Takes orders as JSON lines on stdin, ``{"do": ..., "n": 7, ...}``; answers each by ``{"event": "reply-7"}`` on
stderr. Knows the gateway by HTTP alone, the provider by its list, the rows by the database's bare driver.
Each call that ended with a promise has a line in ``--journal``, for whoever looks into a failure.

    begin    url, clients, is_journalled, rate   calls until ``end``
    reach    calls                          answered once so many more calls ended
    end      ending, abandoned, may_abandon, is_journalled    the clients leave off; the run is over
    heal     url                            one fresh call; answered once nothing is on its way any more
    judge    where                          the verdict; ``where`` as in usage_rows.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import aiohttp
from obligations import Call, Kind, Run, judge
from usage_rows import read_rows

MODEL = "local:fake"
CALL_S = 40.0
LOOK_S = 0.05
"""Between two looks at the ledger."""
AGAIN_S = 0.05
"""A client waits so long before it calls a gateway again that is not there."""
HEAL_S = 120.0
KINDS: tuple[Kind, ...] = ("plain", "stream", "plain", "stream", "leave", "fails")
ERRORS = (400, 429, 500)
BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)


class Oracle:
    """All calls and runs of one database, from its first row on."""

    def __init__(self, provider_url: str, key: str, seed: str, journal: TextIO) -> None:
        self._provider_url = provider_url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._rng = random.Random(seed)
        self._prefix = f"{self._rng.getrandbits(32):08x}"
        self._journal = journal
        self._calls: dict[str, Call] = {}
        self._runs: list[Run] = []
        self._clients: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None
        self._is_ending = False
        self._ended = 0
        self._changed = asyncio.Condition()
        self._next_at = 0.0
        self._interval = 0.0

    # --- orders

    async def begin(
        self, url: str, clients: int, is_journalled: bool, rate: float = 0.0
    ) -> Mapping[str, Any]:
        """``rate``: calls per second in all; 0 is as fast as the clients get their answers."""
        self._run = Run(len(self._runs), is_journalled)
        self._runs.append(self._run)
        self._is_ending = False
        self._interval = 1 / rate if rate else 0.0
        self._next_at = asyncio.get_running_loop().time()
        self._clients = [asyncio.ensure_future(self._client(url)) for _ in range(clients)]
        self._watch = asyncio.ensure_future(self._look(url))
        return {"run": self._run.number}

    async def reach(self, calls: int, within_s: float = 30.0) -> Mapping[str, Any]:
        """Also when the time is over: a gateway may be unable to answer anybody."""
        goal = self._ended + calls
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: self._ended >= goal)
        return {"ended": self._ended, "run": asdict_of(self._run)}

    async def end(self, ending: Any, **told: Any) -> Mapping[str, Any]:
        """The run is over, or about to be: then ``ending`` is told again."""
        self._is_ending = True
        await asyncio.gather(*self._clients)
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        run = self._run
        run.ending = ending
        run.abandoned = frozenset(told.get("abandoned", ()))
        run.may_abandon = told.get("may_abandon", False)
        run.is_journalled = run.is_journalled and told.get("is_journalled", True)
        run.shed = max(run.shed, told.get("shed", 0))
        return asdict_of(run)

    async def heal(self, url: str) -> Mapping[str, Any]:
        """A fresh call has its answer, and every row has found its place."""
        run = self._run = Run(len(self._runs), False)
        self._runs.append(run)
        async with self._session(url) as session, asyncio.timeout(HEAL_S):
            call = self._new_call("plain")
            await self._make(session, call)
            while not _is_at_rest(ledger := await _ledger(session)):  # it has no event
                self._note(ledger)
                await asyncio.sleep(LOOK_S)
        run.ending = "stopped"
        return {"fresh": call.promised, "outcome": call.outcome, "ledger": ledger}

    async def judge(self, where: Mapping[str, Any]) -> Mapping[str, Any]:
        """See ``obligations``."""
        rows = await asyncio.to_thread(read_rows, where)
        async with self._session(self._provider_url) as session, session.get("/calls") as answer:
            seen = await answer.json()
        return asdict(judge(self._calls, self._runs, seen, rows))

    # --- calls

    @asynccontextmanager
    async def _session(self, url: str) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(
            base_url=url, headers=self._headers, timeout=aiohttp.ClientTimeout(total=CALL_S)
        ) as session:
            yield session

    async def _client(self, url: str) -> None:
        async with self._session(url) as session:
            while not self._is_ending:
                await self._turn()
                call = self._new_call(self._rng.choice(KINDS))
                await self._make(session, call)
                if call.outcome in ("unreached", "refused"):
                    await asyncio.sleep(AGAIN_S)

    async def _turn(self) -> None:
        """At a rate: wait for the next moment that a call is due."""
        if self._interval:
            now = asyncio.get_running_loop().time()
            self._next_at = max(self._next_at + self._interval, now - 1.0)
            await asyncio.sleep(max(0.0, self._next_at - now))

    def _new_call(self, kind: Kind) -> Call:
        call = Call(f"{self._prefix}-{len(self._runs) - 1}-{len(self._calls)}", len(self._runs) - 1, kind)
        self._calls[call.request_id] = call
        return call

    async def _make(self, session: aiohttp.ClientSession, call: Call) -> None:
        try:
            await self._ask(session, call)
        except BROKEN:
            call.outcome = "broken" if call.status else "unreached"
        if call.promised:
            call.place = self._run.promises
            self._run.promises += 1
            self._journal.write(json.dumps(asdict(call)) + "\n")
            self._journal.flush()
        self._ended += 1
        async with self._changed:
            self._changed.notify_all()

    async def _ask(self, session: aiohttp.ClientSession, call: Call) -> None:
        body = self._body(call)
        headers = {"x-request-id": call.request_id}
        async with session.post("/v1/chat/completions", json=body, headers=headers) as answer:
            call.status, call.promised = answer.status, answer.headers.get("x-usage-id")
            if call.kind == "leave" and answer.ok:
                await answer.content.readany()
                answer.close()
                call.outcome = "left"
                return
            call.outcome = _outcome(call, await answer.read())

    def _body(self, call: Call) -> dict[str, Any]:
        rng = self._rng
        fake: dict[str, Any] = {"delay_ms": rng.uniform(0, 60), "chunk_ms": rng.uniform(0, 20)}
        if call.kind == "fails":
            fake["status"] = rng.choice(ERRORS)
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": "word " * rng.randrange(1, 40)}],
            "max_tokens": rng.randrange(1, 30),
            "stream": call.kind in ("stream", "leave"),
            "fake": fake,
        }

    # --- looking

    async def _look(self, url: str) -> None:
        async with self._session(url) as session:
            while True:
                place = self._run.promises
                with suppress(*BROKEN, KeyError, ValueError):
                    ledger = await _ledger(session)
                    self._note(ledger)
                    self._run.shown_place = place
                    self._run.shown_floating = ledger["queued"] + ledger["in_flight"]
                await asyncio.sleep(LOOK_S)

    def _note(self, ledger: Mapping[str, Any]) -> None:
        self._run.unaccounted = self._run.unaccounted or ledger["unaccounted"]
        self._run.shed = max(self._run.shed, sum(ledger["shed"].values()))


def _outcome(call: Call, body: bytes) -> Any:
    if call.kind == "fails":
        return "answered" if call.promised and call.status in ERRORS else "refused"
    if call.status != 200:
        return "broken" if call.promised else "refused"
    is_whole = call.kind == "plain" or body.rstrip().endswith(b"data: [DONE]")
    return "answered" if is_whole else "broken"


async def _ledger(session: aiohttp.ClientSession) -> dict[str, Any]:
    async with session.get("/v1/log-writer") as answer:
        answer.raise_for_status()
        ledger: dict[str, Any] = await answer.json()
        return ledger


def _is_at_rest(ledger: Mapping[str, Any]) -> bool:
    return not (ledger["queued"] or ledger["in_flight"] or ledger["spooled"])


def asdict_of(run: Run) -> dict[str, Any]:
    """``run`` as JSON knows it."""
    return {**asdict(run), "abandoned": sorted(run.abandoned)}


async def obey(oracle: Oracle) -> None:
    """Orders until stdin ends, one after the other."""
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        order = json.loads(line)
        do, number = order.pop("do"), order.pop("n")
        try:
            answer: Mapping[str, Any] = await getattr(oracle, do)(**order)
        except Exception as error:  # whoever gave the order decides what that means
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"event": f"reply-{number}", **answer}), file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--provider", required=True, help="the fake provider's URL")
    parser.add_argument("--key", required=True, help="the gateway's master key")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--journal", type=Path, default=Path("oracle.jsonl"))
    given = parser.parse_args()
    with given.journal.open("a", encoding="utf-8") as journal:
        asyncio.run(obey(Oracle(given.provider, given.key, given.seed, journal)))


if __name__ == "__main__":
    main()
