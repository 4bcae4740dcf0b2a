"""Calls to providers of the any-llm SDK, the real one, over real HTTP; where the SDK is not installed,
``tests/unit/test_any_llm_settings.py`` has what the gateway says of that."""

from __future__ import annotations

import asyncio
import json
import logging
from decimal import Decimal

import openai
import pytest
from openai import AsyncOpenAI

pytest.importorskip("any_llm")

CHAT = "/v1/chat/completions"
SAID = [{"role": "user", "content": "say swordfish"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
PRICE = {"input_per_million": "1", "output_per_million": "10", "cached_input_per_million": "0.1"}
OPENAI = {"type": "any-llm", "provider": "openai"}
OTHERS = {
    "sdk": ("fake", OPENAI),
    "play": ("stage", OPENAI),
    "gone": ("nobody", OPENAI),
    "small": ("stage", {"type": "any-llm", "provider": "anthropic"}),
}
PRICES = {f"{name}:m": PRICE for name in (*OTHERS, "fake", "stage")}
STREAMED = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
async def start(gateways, monkeypatch):
    async def go(**settings):
        gateway = await gateways(others=OTHERS, pricing=PRICES, **settings)
        gateway.unheard = None  # the official client's answers are not looked at by the fixture
        return gateway

    monkeypatch.setattr(
        logging.getLogger("openai"), "propagate", False
    )  # the test's own client logs what it sends
    return go


@pytest.fixture
async def gateway(start):
    return await start()


@pytest.fixture
async def gpt(gateway):
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="tg-test", max_retries=0) as client:
        yield client


def chunk(delta, reason=None, **members):
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    whole = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps({**whole, **members}).encode() + b"\n\n"


def counts(row):
    return row.status, row.usage_source, row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.cost


def sent(gateway):
    return json.loads(gateway.stage.bodies[-1])


async def asked(gateway, model="play:m", **members):
    return await gateway.post(gateway.body(model, **members))


def last_event(text):
    return json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))


# --- answers


async def test_a_chat_completion(gateway, gpt):
    fake = {"cached_tokens": 1, "reasoning_tokens": 3}
    answer = await gpt.chat.completions.create(
        model="sdk:m", messages=SAID, max_completion_tokens=7, extra_body={"fake": fake}
    )

    assert answer.choices[0].message.content.split()[:2] == ["one", "row"]
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("stop", 9)
    row = await gateway.row()
    assert (row.endpoint, row.provider, row.model, row.reasoning_tokens) == (CHAT, "sdk", "m", 3)
    assert counts(row) == ("success", "provider", 2, 7, 1, Decimal("0.0000711"))
    assert gateway.fake_calls()[0]["request_id"] == row.request_id


@pytest.mark.parametrize("shows_usage", [True, False])
async def test_a_stream(gateway, gpt, shows_usage):
    options = {"stream_options": {"include_usage": True}} if shows_usage else {}
    stream = await gpt.chat.completions.create(
        model="sdk:m", messages=SAID, max_tokens=7, stream=True, **options
    )

    chunks = [each async for each in stream]

    said = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert said == "one row for each call one row "
    assert [each.usage.total_tokens for each in chunks if each.usage] == ([9] if shows_usage else [])
    assert counts(await gateway.row()) == ("success", "provider", 2, 7, None, Decimal("0.000072"))


async def test_tools_in_a_stream(gateway, gpt, stage):
    def call(index, **function):
        return chunk({"tool_calls": [{"index": index, "id": f"t{index}", "function": function}]})

    usage = {"prompt_tokens": 40, "completion_tokens": 40, "total_tokens": 80}
    stage.stream(
        chunk({"role": "assistant", "content": "ok"}),
        call(0, name="f", arguments='{"a":'),
        call(0, arguments=" 1}"),
        call(1, name="f", arguments='{"a": 2}'),
        chunk({}, "tool_calls"),
        chunk({}, choices=[], usage=usage),
        stage.DONE,
    )

    async with gpt.chat.completions.stream(model="play:m", messages=SAID, tools=TOOLS) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()

    message = final.choices[0].message
    assert (message.content, final.choices[0].finish_reason) == ("ok", "tool_calls")
    assert [call.function.arguments for call in message.tool_calls] == ['{"a": 1}', '{"a": 2}']
    assert sent(gateway)["tools"] == TOOLS
    assert counts(await gateway.row()) == ("success", "provider", 40, 40, None, Decimal("0.00044"))


async def test_members_that_the_sdk_does_not_know_go_on_as_they_are(gateway, stage):
    stage.plain(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "odd": [1]}
    )

    answer = await asked(gateway, strange={"a": [None]}, metadata={"team": "a"}, extra_headers={"x": "y"})

    assert (await answer.json())["odd"] == [1]
    assert sent(gateway)["strange"] == {"a": [None]}
    assert sent(gateway)["extra_headers"] == {"x": "y"} and "x" not in stage.headers[-1]
    assert (await gateway.row()).tags == '{"team":"a"}'


async def test_counts_that_are_all_zero_are_the_sdks_and_no_counts(gateway, stage):
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    choice = {"index": 0, "message": {"role": "assistant", "content": "x" * 8}, "finish_reason": "stop"}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    stage.plain({**whole, "choices": [choice], "usage": usage})

    assert "usage" not in await (await asked(gateway)).json()

    assert (await gateway.row()).usage_source == "estimate"


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings(gateway, gpt, encoding):
    answer = await gpt.embeddings.create(
        model="sdk:m", input=["one two", "three"], dimensions=4, encoding_format=encoding
    )

    assert len(answer.data) == 2
    assert isinstance(answer.data[0].embedding, str if encoding == "base64" else list)
    assert counts(await gateway.row()) == ("success", "provider", 3, None, None, Decimal("0.000003"))


async def test_a_response(gateway, gpt):
    answer = await gpt.responses.create(model="sdk:m", input="say swordfish", max_output_tokens=7)

    assert answer.output_text.split()[:2] == ["one", "row"]
    assert counts(await gateway.row())[:4] == ("success", "provider", 2, 7)


async def test_a_streamed_response(gateway, gpt):
    async with gpt.responses.stream(model="sdk:m", input="say swordfish", max_output_tokens=7) as stream:
        kinds = [event.type async for event in stream]

    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert counts(await gateway.row())[:4] == ("success", "provider", 2, 7)


@STREAMED
async def test_messages_by_translation(gateway, stream):
    body = {"model": "sdk:m", "max_tokens": 7, "messages": SAID, "stream": stream}

    response = await gateway.post(body, "/v1/messages")

    assert response.status == 200 and b"one row" in await response.read()
    assert counts(await gateway.row()) == ("success", "provider", 2, 7, None, Decimal("0.000072"))


async def test_endpoints_that_the_sdks_provider_has_not_are_refused(gateway):
    for path, body in (("/v1/moderations", {"input": "x"}), ("/v1/completions", {"prompt": "x"})):
        response = await gateway.post({"model": "sdk:m", **body}, path)

        assert (response.status, (await response.json())["error"]["code"]) == (400, "endpoint_not_offered")
    assert gateway.provider_calls == 0


# --- errors


@STREAMED
@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, openai.BadRequestError, "provider_bad_request"),
        (401, openai.InternalServerError, "provider_error"),
        (403, openai.InternalServerError, "provider_error"),
        (404, openai.NotFoundError, "provider_not_found"),
        (422, openai.UnprocessableEntityError, "provider_unprocessable"),
        (429, openai.RateLimitError, "provider_rate_limited"),
        (500, openai.InternalServerError, "provider_error"),
        (503, openai.InternalServerError, "provider_error"),
    ],
)
async def test_what_a_status_means(gateway, gpt, stage, status, error, code, stream):
    said = {"error": {"message": "no, sk-of-the-provider-0123 is wrong"}}
    stage.plain(said, status=status, headers={"Retry-After": "7"})

    with pytest.raises(error) as raised:
        await gpt.chat.completions.create(model="play:m", messages=SAID, stream=stream)

    assert raised.value.code == code
    is_ours = status in (401, 403)
    assert raised.value.body["message"].startswith("The provider refused" if is_ours else "no, [redacted] is")
    assert raised.value.response.headers["Retry-After"] == "7"
    row = await gateway.row()
    assert (row.status, row.error_code, row.end_reason) == ("error", code, "provider_error")
    assert len(stage.bodies) == 1


@STREAMED
async def test_a_provider_that_nobody_reaches(gateway, stream):
    response = await asked(gateway, "gone:m", stream=stream)

    assert response.status == 502
    assert (await gateway.row()).error_code == "provider_unreachable"


@STREAMED
async def test_a_provider_that_does_not_answer_in_time(start, stream):
    gateway = await start(timeout_s=0.2)

    response = await asked(gateway, "sdk:m", stream=stream, fake={"hang": True})

    assert response.status == 504
    row = await gateway.row()
    assert (row.error_code, row.end_reason, row.status_code) == ("provider_timeout", "timeout", 504)


async def test_a_connection_that_breaks_before_the_answer_is_whole(gateway):
    assert (await asked(gateway, "sdk:m", fake={"cut_after": 1})).status == 502

    assert (await gateway.row()).error_code == "provider_unreachable"


@STREAMED
async def test_an_answer_that_is_none(gateway, stream):
    assert (await asked(gateway, "sdk:m", stream=stream, fake={"malformed": True})).status in (200, 502)

    row = await gateway.row()
    assert (row.status, row.end_reason) == ("error", "provider_error")


@pytest.mark.parametrize("last", [[], ["cut"]], ids=["in good order", "in the middle"])
async def test_a_stream_that_breaks_off_ends_in_an_error_and_keeps_its_counts(gateway, stage, last):
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    stage.stream(chunk({"content": "one"}, usage=usage), *last)

    response = await asked(gateway, stream=True)

    assert last_event(await response.text())["error"]["code"] == "provider_stream_cut"
    assert counts(await gateway.row()) == ("error", "partial", 3, 4, None, Decimal("0.000043"))


async def test_an_error_within_a_stream(gateway, stage):
    stage.stream(chunk({"content": "one"}), b'data: {"error": {"message": "too much"}}\n\n')

    response = await asked(gateway, stream=True)

    error = last_event(await response.text())["error"]
    assert (error["code"], error["message"]) == ("provider_error", "too much")
    assert (await gateway.row()).status == "error"


async def test_a_silence_within_a_stream_ends_it(start):
    gateway = await start(timeout_s=0.3)
    gateway.stage.stream(chunk({"content": "one"}), asyncio.Event())

    response = await asked(gateway, stream=True)

    assert last_event(await response.text())["error"]["code"] == "provider_timeout"
    assert (await gateway.row()).end_reason == "timeout"


async def test_a_silent_stream_is_kept_alive_and_loses_nothing(start):
    gateway = await start(streams={"keepalive_s": 0.05})
    stage, go = gateway.stage, asyncio.Event()
    stage.stream(chunk({"content": "one"}), go, chunk({"content": "two"}), chunk({}, "stop"), stage.DONE)
    caller = await gateway.call(gateway.body("play:m", stream=True))
    await caller.head()
    for _ in range(3):
        await caller.until(b": keep-alive\n\n")

    go.set()

    await caller.until(b"two")
    await caller.until(b"[DONE]")
    assert (await gateway.row()).status == "success"


async def test_a_client_that_leaves_has_its_stream_read_to_the_end(gateway, stage):
    go = asyncio.Event()
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    stage.stream(
        chunk({"content": "one"}), go, chunk({}, "stop"), chunk({}, choices=[], usage=usage), stage.DONE
    )
    caller = await gateway.call(gateway.body("play:m", stream=True))
    await caller.head()
    await caller.until(b"one")
    await caller.leave()
    go.set()

    row = await gateway.row()
    assert row.end_reason == "client_disconnect"
    assert counts(row)[1:] == ("provider", 3, 4, None, Decimal("0.000043"))


async def test_a_stream_that_nobody_wants_any_more_is_closed_at_the_provider(start):
    gateway = await start(streams={"after_disconnect_s": 0})
    gateway.stage.stream(chunk({"content": "one"}), gateway.stage.go)
    caller = await gateway.call(gateway.body("play:m", stream=True))
    await caller.head()
    await caller.until(b"one")
    await caller.leave()

    await asyncio.wait_for(gateway.stage.dropped.wait(), 20)

    assert (await gateway.row()).end_reason == "client_disconnect"


# --- what a provider has no words for


async def test_a_member_without_words_there_is_refused_before_anybody_is_asked(gateway):
    response = await asked(gateway, "small:m", strange=1)

    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (400, "not_translatable")
    assert "strange" in error["message"]
    assert gateway.provider_calls == 0
    assert (await gateway.row()).error_code == "not_translatable"


async def test_another_protocol_gets_the_bound_and_not_the_wishes(gateway, stage):
    usage = {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2}
    content = [{"type": "text", "text": "one"}]
    stage.plain({"id": "m", "type": "message", "role": "assistant", "model": "m", "content": content,
                 "stop_reason": "end_turn", "usage": usage})  # fmt: skip

    answer = await asked(gateway, "small:m", max_completion_tokens=9, metadata={"team": "a"})

    assert (await answer.json())["choices"][0]["message"]["content"] == "one"
    assert sent(gateway)["max_tokens"] == 9 and "safety_identifier" not in sent(gateway)
    assert counts(await gateway.row())[:5] == ("success", "provider", 5, 4, 2)


@pytest.mark.parametrize("members", [{"n": 2}, {"temperature": "hot"}])
async def test_what_the_sdk_refuses_is_the_clients_mistake(gateway, members):
    assert (await asked(gateway, "small:m", **members)).status == 400

    assert (await gateway.row()).error_code == "not_translatable"


# --- by name


@STREAMED
@pytest.mark.parametrize(
    ("fake", "tries"), [({"status": 500}, 2), ({"status": 429}, 1), ({"malformed": True}, 2)]
)
async def test_a_failure_is_hidden_by_a_fallback(start, fake, tries, stream):
    """The 429 comes with a rest that the provider wants, so it is not tried again."""
    models = {"fast": {"targets": [{"model": "sdk:m"}], "fallbacks": ["play:m"], "retries": 1}}
    gateway = await start(models=models)
    stage = gateway.stage
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    if stream:
        stage.stream(
            chunk({"content": "one"}), chunk({}, "stop"), chunk({}, choices=[], usage=usage), stage.DONE
        )
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": "one"}, "finish_reason": "stop"}
        stage.plain({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                     "usage": usage})  # fmt: skip

    response = await asked(gateway, "fast", stream=stream, fake=fake)

    assert response.status == 200 and b"one" in await response.read()
    rows = await gateway.rows()
    assert sorted((row.provider, row.status) for row in rows) == [
        ("play", "success"),
        *[("sdk", "absorbed")] * tries,
    ]
    assert {row.cost for row in rows if row.status == "success"} == {Decimal("0.000043")}


async def test_what_has_no_words_at_one_provider_goes_to_another(start):
    models = {"fast": {"targets": [{"model": "small:m"}], "fallbacks": ["sdk:m"], "retries": 0}}
    gateway = await start(models=models)

    assert (await asked(gateway, "fast", strange=1)).status == 200

    assert sorted((row.provider, row.status) for row in await gateway.rows()) == [
        ("sdk", "success"),
        ("small", "absorbed"),
    ]
