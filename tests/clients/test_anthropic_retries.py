"""Anthropic's client loses patience, or tries again: each try is a call, with a row of its own."""

from __future__ import annotations

import asyncio

import anthropic
import pytest
from answering import COST, WIRES

MESSAGES = "/v1/messages"
CALL = {"max_tokens": 50, "messages": [{"role": "user", "content": "say swordfish"}]}
PATIENCE_S = 2.0
"""Of the client. Only a test that waits for this one to pass is slow."""

pytestmark = pytest.mark.usefixtures("looking")
both = pytest.mark.parametrize("model", ["act:m", "stage:m"])


@both
async def test_a_client_that_waits_no_longer_has_a_row(gateway, claude, stage, model):
    path = MESSAGES if model == "act:m" else "/v1/chat/completions"
    stage.plain(WIRES[path].answer("too late", ()), stage.go)
    gateway.unheard = 1

    with pytest.raises(anthropic.APITimeoutError):
        await claude.with_options(timeout=PATIENCE_S).messages.create(model=model, **CALL)
    async with asyncio.timeout(20):
        await gateway.hung_up.acquire()
    stage.go.set()

    row = await gateway.row()
    assert (row.status, row.end_reason, row.status_code) == ("cancelled", "client_disconnect", 499)
    assert row.cost == COST  # which was read on for


@both
async def test_each_try_is_a_call_of_its_own(gateway, claude, stage, says, model):
    says("one row")
    good, failures = stage.act, [500, 429]

    async def act(request):
        if not failures:
            return await good(request)
        stage.plain({"error": {"message": "no"}}, status=failures.pop(0))
        played, stage.act = stage.act, act
        return await played(request)

    stage.act = act

    raw = await claude.with_options(max_retries=2).messages.with_raw_response.create(model=model, **CALL)

    assert (raw.retries_taken, (await raw.parse()).content[0].text) == (2, "one row")
    rows = await gateway.rows()
    assert [row.id for row in rows] == gateway.promised
    assert [(row.status_code, row.cost) for row in rows] == [(502, None), (429, None), (200, COST)]
    assert len({row.request_id for row in rows}) == 3
    assert raw.request_id == rows[-1].request_id
    assert not [name for sent in stage.headers for name in sent if name.lower().startswith("x-stainless")]
