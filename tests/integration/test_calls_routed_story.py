"""Sixty calls through one name, in every format, natively and translated: of its providers one fails every
third time and one hangs. Clients see successes alone, and the rows tell what became of every attempt."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from aiohttp import web
from answering import COST, WIRES
from troupe import hangs, in_turn, parted, says

from gateway.answers import USAGE_ID

CALLS = 60
AT_ONCE = 10
LONG_S = 20.0
FAIR_S = 3.0
PRICE = {"input_per_million": 1, "output_per_million": 10, "cached_input_per_million": 0.1}
MESSAGES = [{"role": "user", "content": "say swordfish"}]
CHAT, SAID, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
BODIES = {
    CHAT: {"messages": MESSAGES},
    SAID: {"messages": MESSAGES, "max_tokens": 40},
    RESPONSES: {"input": "say swordfish"},
}
WAYS = {
    "chat": (CHAT, "stage"),
    "chat-to-messages": (CHAT, "act"),
    "messages": (SAID, "act"),
    "messages-to-chat": (SAID, "stage"),
    "responses": (RESPONSES, "stage"),
}


async def answers(stage, request, is_stream):
    """In the format that it was asked in."""
    wire = WIRES[request.path]
    if not is_stream:
        return web.json_response(wire.answer("swordfish", []))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in wire.events("swordfish", []):
        await response.write(event)
    return response


def names(provider):
    """What stands behind ``fast``: one that fails at times, one that hangs, and one to fall back upon."""
    models = [f"{provider}:{name}" for name in ("fails", "hangs", "good")]
    targets = [{"model": each} for each in models[:2]]
    return {"fast": {"targets": targets, "fallbacks": models[2:], "retries": 2, "attempt_timeout_s": LONG_S}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_clients_see_successes_alone_and_the_rows_tell_the_whole_story(cast, way, stream):
    path, provider = way
    parts = {"fails": in_turn(answers, answers, says(500)), "hangs": hangs, "good": answers}
    models = names(provider)
    if not stream:
        models["fast"]["attempt_timeout_s"] = FAIR_S
    gateway, troupe = await cast(
        parts,
        models,
        first_token_timeout_s=FAIR_S,
        cooldown={"failures": 4, "cooldown_s": 5},
        pricing={f"{provider}:{name}": PRICE for name in parts},
    )
    body = {"model": "fast", "stream": stream, **BODIES[path]}
    gate = asyncio.Semaphore(AT_ONCE)

    async def call():
        async with gate:
            response = await gateway.post(body, path)
            return response.status, response.headers[USAGE_ID], await response.text()

    heard = await asyncio.gather(*(call() for _ in range(CALLS)))

    assert {status for status, _, _ in heard} == {200}
    assert not [text for _, _, text in heard if 'error":{' in text.replace(" ", "")]
    calls, hidden = parted(await gateway.rows())
    assert Counter(str(row.id) for row in calls) == Counter(usage_id for _, usage_id, _ in heard)
    assert {(row.status, row.end_reason, row.endpoint, row.cost) for row in calls} == {
        ("success", "complete", path, COST)
    }
    attempts = Counter((row.model, row.request_id) for row in calls + hidden)
    assert attempts == Counter(troupe.seen), "one row for every attempt that reached a provider"
    assert {(row.model, row.end_reason, row.cost) for row in hidden} == {
        ("fails", "provider_error", None),
        ("hangs", "timeout", None),
    }
    failures = troupe.attempts("fails")
    assert Counter(row.model for row in hidden)["fails"] == len(failures) // 3
    assert {row.request_id for row in hidden} <= {row.request_id for row in calls}
