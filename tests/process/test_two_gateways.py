"""Two gateways on one store and one sink, behind a load balancer, are one: nothing but the spool is local."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from process.stores import HELD_NANO, LONG_S, STRATEGIES, TOKENS
from servers.balancer import Balancer

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the servers

SINKS = {"sqlite": "sqlite", "postgres": "postgres", "mongo": "mongo-motor"}
EACH_PLACE = pytest.mark.parametrize(
    ("sink_name", "accounts"),
    [(SINKS[store], (store, strategy)) for store, strategy in STRATEGIES],
    ids=["-".join(each) for each in STRATEGIES],
    indirect=True,
)
ONCE_PER_STORE = pytest.mark.parametrize(
    ("sink_name", "accounts"),
    [(SINKS[store], (store, strategy)) for store, strategy in STRATEGIES if strategy == "cas"],
    ids=[store for store, strategy in STRATEGIES if strategy == "cas"],
    indirect=True,
)
CACHE_S = 0.3
USERS = ("u", *(f"u{n}" for n in range(1, 10)))
EACH = 5
ROOM = 2
"""Of the ``EACH`` calls of each of the ``USERS``."""
CLIENTS = 12


@pytest.fixture
def sections(durable, accounts, tmp_path):
    """``sections(name)``: all of two gateways' configuration but the name of their spool."""

    def of(name: str, **more: Any) -> dict[str, Any]:
        return {
            **durable.strategy(),
            **accounts.sections(cache_s=CACHE_S, timeout_s=LONG_S),
            "spool": {"mode": "write_ahead", "path": str(tmp_path / "data" / f"spool-{name}")},
            **more,
        }

    return of


@asynccontextmanager
async def shared(gateway):
    """``gateway``, judged when it left; its file has rows of others, too."""
    async with gateway as started:
        started.is_first = False
        yield started


@asynccontextmanager
async def in_front_of(*gateways):
    """A client of all of them, with a connection for each call."""
    async with AsyncExitStack() as stack:
        balancer = await stack.enter_async_context(Balancer(each.url for each in gateways))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                balancer.url,
                headers=gateways[0].session.headers,
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
            )
        )
        yield replace(gateways[0], url=balancer.url, session=session), balancer


async def asked(gateway, method: str, path: str, **body: Any) -> Any:
    """What an answer of the management's says."""
    async with gateway.session.request(method, path, json=body or None) as response:
        text = await response.text()
        assert response.status < 300, text
        return json.loads(text) if text else None


async def called(gateway, key: str) -> tuple[int, str | None]:
    body = {"model": "local:fake", "max_tokens": TOKENS, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": f"Bearer {key}"}
    return await gateway.outcome(gateway.session.post("/v1/chat/completions", json=body, headers=headers))


async def called_until(gateway, key: str, wanted: tuple[int, str | None], before: tuple[int, str | None]):
    """Returns once a call ends as ``wanted``; until then they end as ``before``."""
    async with asyncio.timeout(LONG_S):
        while (outcome := await called(gateway, key)) != wanted:
            assert outcome == before


async def status_of(call) -> int:
    """Of a call that is read to its end."""
    async with call as response:
        await response.read()
        return response.status


async def stopped(*gateways) -> set[int]:
    """The exit statuses, of a stop of all of them at once."""
    return set(await asyncio.gather(*(each.stop() for each in gateways)))


async def audited(run, folder) -> tuple[int, dict[str, int], set[str]]:
    config = ("--config", str(folder / "gateway.yml"))
    status, out, err = await run("logs", "audit", "--format", "json", *config)
    assert status in (0, 1), err
    found = json.loads(out)
    return status, found["totals"], {each["finding"] for each in found["findings"]}


MADE = (200, None)


@ONCE_PER_STORE
async def test_keys_and_prices_of_one_are_the_others(durable, accounts, serve, sections, master_key) -> None:
    more = {"pricing": {}, "unpriced": "refuse"}
    async with (
        shared(serve(**sections("one", **more))) as one,
        shared(serve(**sections("other", **more))) as other,
    ):
        key = await asked(one, "POST", "/v1/keys", name="k")
        assert await called(other, key["key"]) == (402, "model_not_priced")

        price = {"input_per_million": 0, "output_per_million": 1}
        await asked(one, "POST", "/v1/pricing", model="local:fake", **price)
        assert await called(one, key["key"]) == MADE
        await called_until(other, key["key"], MADE, before=(402, "model_not_priced"))

        await asked(one, "DELETE", f"/v1/keys/{key['id']}")
        refused = (401, "revoked_api_key")
        assert await called(one, key["key"]) == refused
        await called_until(other, key["key"], refused, before=MADE)
        assert await stopped(one, other) == {0}
    rows = await durable.rows()
    costs = Counter((row.boot_id, row.cost * 10**9) for row in rows if row.status == "success")
    assert set(costs) == {(each.report["boot_id"], HELD_NANO) for each in (one, other)}


@EACH_PLACE
async def test_both_spend_one_budget_and_tell_the_same(
    durable, accounts, serve, sections, run, tmp_path
) -> None:
    """Many users, as each is one chance alone that both gateways see the last room at once."""
    refused = EACH - ROOM
    await accounts.allow(calls=ROOM)
    async with (
        shared(serve(**sections("one"))) as one,
        shared(serve(**sections("other"))) as other,
        in_front_of(one, other) as (front, balancer),
    ):
        for user in USERS[1:]:
            await asked(one, "POST", "/v1/users", user_id=user, budget_id="b")
        askers = [(user, n % 2 == 0) for user in USERS for n in range(EACH)]
        calls = [
            status_of(front.chat(user=user, tokens=TOKENS, stream=is_streamed))
            for user, is_streamed in askers
        ]

        statuses = await asyncio.gather(*calls)

        outcomes = Counter((user, status) for (user, _), status in zip(askers, statuses, strict=True))
        assert outcomes == {
            (user, status): count for user in USERS for status, count in ((200, ROOM), (403, refused))
        }
        assert all(balancer.taken.values())
        await accounts.show(ROOM * HELD_NANO, 0)
        for gateway in (one, other):
            await gateway.ledger_shows(queued=0, in_flight=0)
        for question in ("/v1/usage?limit=1000", "/v1/usage/summary?group_by=status,user_id"):
            assert await asked(one, "GET", question) == await asked(other, "GET", question)
        assert await stopped(one, other) == {0}
    rows = await durable.rows()
    assert Counter(row.status for row in rows) == {
        "success": ROOM * len(USERS),
        "rejected": refused * len(USERS),
    }
    assert {row.boot_id for row in rows} == {each.report["boot_id"] for each in (one, other)}
    assert await audited(run, tmp_path) == (0, _whole(boots=2, rows=len(askers)), set())


def _whole(boots: int, rows: int) -> dict[str, int]:
    nothing = ("spooled", "dead_lettered", "abandoned", "under_way", "retired", "missing", "repeated")
    return {"boots": boots, "numbers": rows, "stored": rows, **dict.fromkeys(nothing, 0)}


@dataclass
class Load:
    """Clients that call one after the other. ``answered`` are the ids of calls that were answered whole,
    ``broken`` counts those whose connection broke."""

    front: Any
    answered: list[UUID] = field(default_factory=list)
    broken: int = 0
    is_over: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        await asyncio.gather(*(self._client(stream=n % 2 == 0) for n in range(CLIENTS)))

    async def reach(self, answers: int) -> None:
        async with asyncio.timeout(LONG_S):
            while len(self.answered) < answers:
                self.changed.clear()
                await self.changed.wait()

    async def _client(self, stream: bool) -> None:
        while not self.is_over:
            try:
                async with self.front.chat(user="u", stream=stream) as response:
                    text = await response.text()
            except aiohttp.ClientError:
                self.broken += 1
                continue
            assert response.status == 200 and "error" not in text, text
            self.answered.append(self.front.promised(response))
            self.changed.set()


@ONCE_PER_STORE
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
async def test_when_one_goes_the_other_goes_on_and_every_call_has_its_row(
    durable, accounts, crashing, serve, sections, run, tmp_path, ending
) -> None:
    await accounts.allow(calls=10_000)
    async with crashing(**sections("one", shutdown={"readiness_delay_s": 1})) as one:
        async with shared(serve(**sections("other"))) as other, in_front_of(one, other) as (front, _):
            load = Load(front)
            running = asyncio.ensure_future(load.run())
            await load.reach(40)
            one.process.send(ending)
            status = await one.process.exit_status()
            await load.reach(len(load.answered) + 40)
            load.is_over = True
            await running

            assert status == (0 if ending == signal.SIGTERM else -signal.SIGKILL)
            assert ending == signal.SIGKILL or load.broken == 0
            async with shared(serve(**sections("one"))) as again:
                await again.ledger_shows(queued=0, in_flight=0, spooled=0)
                assert await stopped(again, other) == {0}
            seen = await front.seen_by_provider()
    rows = await durable.rows()
    ids = Counter(UUID(row.id) for row in rows)
    requests = Counter(row.request_id for row in rows)
    assert set(ids.values()) == set(requests.values()) == {1}
    assert set(load.answered) <= set(ids) and len(load.answered) == len(set(load.answered))
    assert set(seen) <= set(requests), "a provider was paid for a call without a row"
    assert len(rows) - len(load.answered) <= load.broken
    status, totals, findings = await audited(run, tmp_path)
    assert (status, totals["missing"], totals["repeated"], totals["stored"]) == (0, 0, 0, len(rows))
    assert findings == (set() if ending == signal.SIGTERM else {"tail_unknown"})
    spent, held = await accounts.account()
    assert ending == signal.SIGKILL or (spent, held) == (len(rows) * 5 * HELD_NANO // TOKENS, 0)
