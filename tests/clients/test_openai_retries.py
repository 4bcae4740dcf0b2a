"""OpenAI's client loses patience, or tries again: each try is a call, with a row of its own."""

from __future__ import annotations

import asyncio

import openai
import pytest
from answering import COST, WIRES

CHAT = "/v1/chat/completions"
SAID = [{"role": "user", "content": "say swordfish"}]
PATIENCE_S = 2.0
"""Of the client. Only a test that waits for this one to pass is slow."""

pytestmark = pytest.mark.usefixtures("looking")


def whole(row):
    return row.status, row.end_reason, row.status_code


LEFT = ("cancelled", "client_disconnect", 499)
GOOD = ("success", "complete", 200)


def failing(stage, *ways):
    """The provider plays ``ways``, one for each call, and then answers well."""
    left = [*ways]

    async def act(request):
        if left:
            left.pop(0)()
        else:
            stage.plain(WIRES[request.path].answer("one row", ()))
        played, stage.act = stage.act, act
        return await played(request)

    stage.act = act


async def hung_up(gateway):
    async with asyncio.timeout(20):
        await gateway.hung_up.acquire()


# --- patience


async def test_a_client_that_waits_no_longer_has_a_row(gateway, gpt, stage):
    stage.plain(WIRES[CHAT].answer("too late", ()), stage.go)
    gateway.unheard = 1

    with pytest.raises(openai.APITimeoutError):
        await gpt.with_options(timeout=PATIENCE_S).chat.completions.create(model="stage:m", messages=SAID)
    await hung_up(gateway)
    stage.go.set()

    row = await gateway.row()
    assert whole(row) == LEFT
    assert row.cost == COST  # which was read on for


async def test_a_client_that_waits_no_longer_in_mid_stream_has_its_row(gateway, gpt, stage):
    first, second, *rest = WIRES[CHAT].events("one row for each call", ())
    stage.stream(first, second, stage.go, *rest)

    stream = await gpt.with_options(timeout=PATIENCE_S).chat.completions.create(
        model="stage:m", messages=SAID, stream=True
    )
    with pytest.raises(openai.APITimeoutError):
        async for _ in stream:
            pass
    await hung_up(gateway)
    stage.go.set()

    row = await gateway.row()
    assert gateway.promised == [row.id]
    assert (row.status, row.end_reason) == LEFT[:2]
    assert row.cost == COST


# --- its own retries


@pytest.mark.parametrize("named", [True, False])
async def test_each_try_is_a_call_of_its_own(gateway, gpt, stage, named):
    failing(
        stage,
        lambda: stage.plain({"error": {"message": "no"}}, status=500),
        lambda: stage.plain({"error": {"message": "no"}}, status=429, headers={"Retry-After": "1"}),
    )
    headers = {"x-request-id": "of-the-client"} if named else {}

    raw = await gpt.with_options(max_retries=2).chat.completions.with_raw_response.create(
        model="stage:m", messages=SAID, extra_headers=headers
    )

    assert (raw.retries_taken, raw.parse().choices[0].message.content) == (2, "one row")
    rows = await gateway.rows()
    assert [row.id for row in rows] == gateway.promised
    assert [(row.status, row.status_code) for row in rows] == [
        ("error", 502),
        ("error", 429),
        ("success", 200),
    ]
    assert [row.cost for row in rows] == [None, None, COST]
    assert len({row.request_id for row in rows}) == (1 if named else 3)
    assert raw.request_id == rows[-1].request_id
    assert not [name for sent in stage.headers for name in sent if name.lower().startswith("x-stainless")]


async def test_a_try_that_took_too_long_and_the_one_after_it_have_a_row_each(gateway, gpt, stage):
    failing(stage, lambda: stage.plain(WIRES[CHAT].answer("too late", ()), stage.go))
    gateway.unheard = 1

    answer = await gpt.with_options(timeout=PATIENCE_S, max_retries=1).chat.completions.create(
        model="stage:m", messages=SAID
    )
    await hung_up(gateway)
    stage.go.set()

    assert answer.choices[0].message.content == "one row"
    rows = await gateway.rows()
    assert sorted(map(whole, rows)) == [LEFT, GOOD]
    assert len({row.request_id for row in rows}) == 2


async def test_a_refusal_is_not_tried_again(gateway, gpt):
    with pytest.raises(openai.BadRequestError):
        await gpt.with_options(max_retries=2).chat.completions.create(
            model="fake:m", messages=SAID, extra_body={"fake": {"status": 400}}
        )

    assert gateway.provider_calls == len(await gateway.rows()) == 1


async def test_no_stream_is_tried_again_once_it_has_begun(gateway, gpt):
    stream = await gpt.with_options(max_retries=2).chat.completions.create(
        model="fake:m", messages=SAID, stream=True, extra_body={"fake": {"cut_after": 1}}
    )
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass

    assert gateway.provider_calls == len(await gateway.rows()) == 1
