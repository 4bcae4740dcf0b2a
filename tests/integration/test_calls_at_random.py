"""Calls of every kind at once, with clients that leave and a gateway that stops at any moment."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.keys import CALLS, PUMPS

LONG_S = 60.0
CALLS_PER_ROUND = 60


def members(rng):
    """One call of any kind, and what goes wrong with it."""
    trouble = rng.choice(
        [
            {},
            {},
            {},
            {"status": 429},
            {"status": 500},
            {"cut_after": 1},
            {"malformed": True},
            {"no_usage": True},
        ]
    )
    pace = {"delay_ms": rng.choice([0, 0, 3]), "chunk_ms": rng.choice([0, 0, 2])}
    model = rng.choice(["fake:m"] * 9 + ["nobody:m"])
    return {
        "model": model,
        "stream": rng.random() < 0.6,
        "max_tokens": rng.randrange(40),
        "fake": {**pace, **trouble},
    }


async def any_client(gateway, rng):
    """Calls, reads on to some point, and leaves."""
    caller = await gateway.call(gateway.body(**members(rng)))
    patience = rng.choice(["none", "steps", "head", "all", "all", "all"])
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
@pytest.mark.parametrize("strategy", ["memory", "single:sqlite"])
@pytest.mark.parametrize("seed", range(4))
async def test_every_call_has_one_row_whatever_happens(gateways, strategy, seed, stops):
    rng = random.Random(seed)
    gateway = await gateways(strategy, streams={"after_disconnect_s": 0.05, "max_pumps": 3})
    gateway.unheard = None
    clients = [any_client(gateway, random.Random(rng.random())) for _ in range(CALLS_PER_ROUND)]
    if stops:
        clients.append(stop_in_between(gateway, rng.randrange(100, 1500)))

    await asyncio.gather(*clients)

    rows = await gateway.rows()
    calls = {call["request_id"]: call for call in gateway.fake_calls()}
    by_request = {row.request_id: row for row in rows}
    assert len(by_request) == len(rows) == len(gateway.begun)
    assert calls.keys() <= by_request.keys(), "a call reached the provider and has no row"
    for request_id, call in calls.items():
        row = by_request[request_id]
        if row.usage_source == "provider":
            assert (row.prompt_tokens, row.completion_tokens) == (
                call["prompt_tokens"],
                call["completion_tokens"],
            )
    assert {row.end_reason for row in rows} <= {
        "complete",
        "client_disconnect",
        "provider_error",
        *(["shutdown"] if stops else []),
    }
