"""What goes wrong, as OpenAI's client raises it: providers' refusals, the gateway's own, cut streams."""

from __future__ import annotations

import json

import openai
import pytest
from answering import WIRES

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
SAID = [{"role": "user", "content": "say swordfish"}]
UNKNOWN = (None, None, None, None)
"""Counts and cost."""

both = pytest.mark.parametrize("model", ["fake:m", "claude:m"])
both_staged = pytest.mark.parametrize(("model", "path"), [("stage:m", CHAT), ("act:m", MESSAGES)])


@both
@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("status", "error", "told_status", "code"),
    [
        (400, openai.BadRequestError, 400, "provider_bad_request"),
        (401, openai.InternalServerError, 502, "provider_error"),
        (403, openai.InternalServerError, 502, "provider_error"),
        (404, openai.NotFoundError, 404, "provider_not_found"),
        (422, openai.UnprocessableEntityError, 422, "provider_unprocessable"),
        (429, openai.RateLimitError, 429, "provider_rate_limited"),
        (500, openai.InternalServerError, 502, "provider_error"),
        (503, openai.InternalServerError, 502, "provider_error"),
    ],
)
async def test_a_providers_error(gateway, gpt, told, model, streams, status, error, told_status, code):
    with pytest.raises(openai.APIStatusError) as raised:
        await gpt.chat.completions.create(
            model=model, messages=SAID, stream=streams, extra_body={"fake": {"status": status}}
        )

    assert type(raised.value) is error
    assert (raised.value.status_code, raised.value.code) == (told_status, code)
    assert raised.value.response.headers.get("retry-after") == ("1" if status in (429, 503) else None)
    assert await told(CHAT) == ("error", told_status, "none", *UNKNOWN)
    row = await gateway.row()
    assert (row.error_code, row.request_id) == (code, raised.value.request_id)


# --- refusals of the gateway's own: no call, no row


async def test_a_wrong_key(gateway, gpt):
    with pytest.raises(openai.AuthenticationError) as refused:
        await gpt.with_options(api_key="tg-wrong").chat.completions.create(model="stage:m", messages=SAID)

    assert refused.value.code == "invalid_api_key"
    assert await gateway.rows() == []


async def test_a_model_that_the_key_may_not_use(gateway, gpt, made):
    await made("/v1/users", user_id="ann")
    key = await made("/v1/keys", user_id="ann", allowed_models=["fake:m"])

    with pytest.raises(openai.PermissionDeniedError) as refused:
        await gpt.with_options(api_key=key["key"]).chat.completions.create(model="stage:m", messages=SAID)

    assert (refused.value.code, refused.value.param) == ("model_not_allowed", "model")
    assert await gateway.rows() == []


@pytest.mark.parametrize(
    ("members", "error", "code", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found", "model"),
        ({"messages": []}, openai.BadRequestError, "invalid_messages", "messages"),
        ({"user": ""}, openai.BadRequestError, "invalid_user", "user"),
    ],
)
async def test_what_cannot_be_asked(gateway, gpt, members, error, code, param):
    with pytest.raises(error) as refused:
        await gpt.chat.completions.create(**{"model": "stage:m", "messages": SAID, **members})

    assert (refused.value.code, refused.value.param) == (code, param)
    assert (gateway.provider_calls, await gateway.rows()) == (0, [])


async def test_one_call_too_many_is_told_when_to_come_again(gateway, gpt, says, made):
    await made("/v1/users", user_id="ann")
    key = await made("/v1/keys", user_id="ann", rate_limit_rpm=1)
    ann = gpt.with_options(api_key=key["key"])
    says("once")
    await ann.chat.completions.create(model="stage:m", messages=SAID)

    with pytest.raises(openai.RateLimitError) as refused:
        await ann.chat.completions.create(model="stage:m", messages=SAID)

    assert refused.value.code == "rate_limit_exceeded"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 60
    assert [row.id for row in await gateway.rows()] == gateway.promised
    assert len(gateway.promised) == 1


async def test_what_the_other_format_has_no_word_for_is_refused_with_a_row(gateway, gpt, told):
    with pytest.raises(openai.BadRequestError) as refused:
        await gpt.chat.completions.create(model="act:m", messages=SAID, n=2)

    assert refused.value.code == "not_translatable"
    assert await told(CHAT) == ("error", 400, "none", *UNKNOWN)
    assert gateway.provider_calls == 0


# --- in the middle of a stream


@both
async def test_a_stream_that_is_cut(gateway, gpt, model):
    stream = await gpt.chat.completions.create(
        model=model, messages=SAID, stream=True, extra_body={"fake": {"cut_after": 2}}
    )
    with pytest.raises(openai.APIError) as raised:
        async for _ in stream:
            pass

    assert raised.value.code == "provider_stream_cut"
    row = await gateway.row()
    assert (row.status, row.status_code, row.error_code) == ("error", 200, "provider_stream_cut")


@both_staged
async def test_a_provider_that_fails_in_mid_stream(gateway, gpt, stage, model, path):
    error = {"type": "overloaded_error", "message": "too much"}
    failure = b"event: error\ndata: " + json.dumps({"type": "error", "error": error}).encode() + b"\n\n"
    begun = list(WIRES[path].events("one row", ()))[:4]
    stage.stream(*begun, failure if path == MESSAGES else failure.removeprefix(b"event: error\n"))

    stream = await gpt.chat.completions.create(model=model, messages=SAID, stream=True)
    said = ""
    with pytest.raises(openai.APIError) as raised:
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""

    assert said == ("one row" if path == CHAT else "one r")
    assert raised.value.message == "too much"
    row = await gateway.row()
    assert (row.status, row.status_code, row.error_code) == ("error", 200, "provider_error")


async def test_a_response_that_is_cut_ends_with_an_event_of_its_own_kind(gateway, gpt):
    """An error within responses is an event, which this client hands on as it is."""
    stream = await gpt.responses.create(
        model="fake:m", input="say swordfish", stream=True, extra_body={"fake": {"cut_after": 2}}
    )
    events = [event async for event in stream]

    assert (events[-1].type, events[-1].code) == ("error", "provider_stream_cut")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (await gateway.row()).error_code == "provider_stream_cut"
