"""Calls to named models with every outcome that an attempt can have, clients that leave and a stop.

One row for each call, one for each attempt that was hidden, and nothing left over.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from troupe import (
    Troupe,
    begins_with_an_error,
    breaks_off,
    hangs,
    hangs_in_its_stream,
    hangs_up,
    says,
    well,
)

from backends import User
from gateway.keys import CALLS, PUMPS, ROUTER, STORE
from gateway.routing import attempts

LONG_S = 60.0
CALLS_PER_ROUND = 40
NAMES = "abcd"
ACTS = (
    *[well] * 6,
    says(500),
    says(503, Retry_After="0"),
    says(429),
    says(400),
    says(401),
    begins_with_an_error,
    hangs_up,
    breaks_off,
    hangs,
    hangs_in_its_stream,
)


def settings(rng):
    targets = [{"model": f"stage:{name}", "weight": rng.randint(1, 3)} for name in NAMES[: rng.randint(1, 3)]]
    select = rng.choice(["weighted", "least_busy", "lowest_latency", "cheapest"])
    return {
        "models": {
            "fast": {
                "targets": targets,
                "fallbacks": ["stage:d"] if rng.random() < 0.7 else [],
                "select": select,
                "retries": rng.randint(0, 3),
                "attempt_timeout_s": 0.2,
            }
        },
        "cooldown": {"failures": rng.randint(1, 4), "cooldown_s": rng.choice([0, 0.02])},
        "pricing": {
            f"stage:{name}": {"input_per_million": "1", "output_per_million": "10"} for name in NAMES
        },
        "streams": {"after_disconnect_s": 0.05, "max_pumps": 3},
        "timeout_s": 0.4,
    }


async def any_client(gateway, rng):
    """Calls, reads on to some point, and leaves."""
    caller = await gateway.call(gateway.body("fast", stream=rng.random() < 0.6, user="u", max_tokens=4))
    patience = rng.choice(["none", "steps", "head", *["all"] * 5])
    try:
        async with asyncio.timeout(LONG_S):
            if patience == "steps":
                for _ in range(rng.randrange(60)):
                    await asyncio.sleep(0)
            if patience in ("head", "all"):
                await caller.head()
            if patience == "all":
                await caller.reader.readuntil(b"\r\n0\r\n\r\n" if caller.is_chunked else b"}")
    except asyncio.IncompleteReadError:
        pass  # the gateway stopped
    caller.writer.transport.abort()


async def stop_in_between(gateway, steps):
    for _ in range(steps):
        await asyncio.sleep(0)
    gateway.app[CALLS].cancel()
    gateway.app[PUMPS].cancel()


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("sink", ["memory", "single:sqlite", "write_ahead"])
@pytest.mark.parametrize("seed", range(4))
async def test_the_rows_tell_every_attempt_whatever_happens(
    budgeted, monkeypatch, tmp_path, sink, seed, stops
):
    monkeypatch.setattr(attempts, "FIRST_PAUSE_S", 0.01)
    rng = random.Random(seed)
    given = settings(rng)
    if sink == "write_ahead":
        given["spool"] = {"mode": "write_ahead", "path": str(tmp_path / "spool")}
        sink = "batch:sqlite"
    gateway = await budgeted(sink=sink, **given)
    gateway.unheard = None

    async def anything(stage, request, is_stream):
        return await rng.choice(ACTS)(stage, request, is_stream)

    troupe = Troupe(gateway.stage, **dict.fromkeys(NAMES, anything))
    clients = [any_client(gateway, random.Random(rng.random())) for _ in range(CALLS_PER_ROUND)]
    if stops:
        clients.append(stop_in_between(gateway, rng.randrange(200, 3000)))

    await asyncio.gather(*clients)

    rows = await gateway.rows()
    calls = [row for row in rows if row.status != "absorbed"]
    hidden = [row for row in rows if row.status == "absorbed"]
    assert sorted(row.id for row in calls) == sorted(gateway.begun)
    assert sorted(row.id for row in hidden) == sorted(gateway.hidden)
    assert len({row.request_id for row in calls}) == len(calls)
    assert {row.request_id for row in hidden} <= {row.request_id for row in calls}
    told = Counter((row.request_id, row.model) for row in rows)
    assert Counter((request_id, model) for model, request_id in troupe.seen) <= told
    assert {row.end_reason for row in hidden} <= {"provider_error", "timeout"}
    assert gateway.counts.committed == len(rows)
    spent = sum((row.cost for row in rows if row.cost is not None), start=0)
    user = await gateway.app[STORE].get(User, "u")
    assert (user.spent_nano, user.reserved_nano) == (spent * 10**9, 0)
    assert {gateway.app[ROUTER].health.in_flight(f"stage:{name}") for name in NAMES} == {0}
