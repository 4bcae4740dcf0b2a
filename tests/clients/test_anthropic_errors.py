"""What goes wrong, as Anthropic's client raises it: providers' refusals, the gateway's own, cut streams."""

from __future__ import annotations

import json
from decimal import Decimal

import anthropic
import pytest
from answering import CACHED, COST, PROMPT, WIRES

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
SAID = [{"role": "user", "content": "say swordfish"}]
UNKNOWN = (None, None, None, None)
"""Counts and cost."""

both = pytest.mark.parametrize("model", ["claude:m", "fake:m"])
both_staged = pytest.mark.parametrize(("model", "path"), [("act:m", MESSAGES), ("stage:m", CHAT)])


def asks(model, **members):
    return {"model": model, "max_tokens": 7, "messages": SAID, **members}


def told_of(error):
    """Type and code in Anthropic's shape."""
    assert error.body["type"] == "error"
    return error.body["error"]["type"], error.body["error"]["code"]


@both
@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("status", "error", "told_status", "kind", "code"),
    [
        (400, anthropic.BadRequestError, 400, "invalid_request_error", "provider_bad_request"),
        (401, anthropic.InternalServerError, 502, "api_error", "provider_error"),
        (403, anthropic.InternalServerError, 502, "api_error", "provider_error"),
        (404, anthropic.NotFoundError, 404, "not_found_error", "provider_not_found"),
        (422, anthropic.UnprocessableEntityError, 422, "invalid_request_error", "provider_unprocessable"),
        (429, anthropic.RateLimitError, 429, "rate_limit_error", "provider_rate_limited"),
        (500, anthropic.InternalServerError, 502, "api_error", "provider_error"),
        (529, anthropic.InternalServerError, 502, "api_error", "provider_error"),
    ],
)
async def test_a_providers_error(
    gateway, claude, told, model, streams, status, error, told_status, kind, code
):
    with pytest.raises(anthropic.APIStatusError) as raised:
        await claude.messages.create(**asks(model, stream=streams), extra_body={"fake": {"status": status}})

    assert type(raised.value) is error
    assert (raised.value.status_code, *told_of(raised.value)) == (told_status, kind, code)
    assert raised.value.response.headers.get("retry-after") == ("1" if status == 429 else None)
    assert await told(MESSAGES) == ("error", told_status, "none", *UNKNOWN)
    row = await gateway.row()
    assert (row.error_code, row.request_id) == (code, raised.value.request_id)


# --- refusals of the gateway's own: no call, no row


async def test_a_wrong_key(gateway, claude):
    with pytest.raises(anthropic.AuthenticationError) as refused:
        await claude.with_options(api_key="tg-wrong").messages.create(**asks("act:m"))

    assert told_of(refused.value) == ("authentication_error", "invalid_api_key")
    assert await gateway.rows() == []


async def test_a_model_that_the_key_may_not_use(gateway, claude, made):
    await made("/v1/users", user_id="ann")
    key = await made("/v1/keys", user_id="ann", allowed_models=["fake:m"])

    with pytest.raises(anthropic.PermissionDeniedError) as refused:
        await claude.with_options(api_key=key["key"]).messages.create(**asks("act:m"))

    assert told_of(refused.value) == ("permission_error", "model_not_allowed")
    assert await gateway.rows() == []


@pytest.mark.parametrize(
    ("members", "error", "code"),
    [
        ({"model": "nobody"}, anthropic.NotFoundError, "model_not_found"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_messages"),
    ],
)
async def test_what_cannot_be_asked(gateway, claude, members, error, code):
    with pytest.raises(error) as refused:
        await claude.messages.create(**{**asks("act:m"), **members})

    assert told_of(refused.value)[1] == code
    assert (gateway.provider_calls, await gateway.rows()) == (0, [])


async def test_one_call_too_many_is_told_when_to_come_again(gateway, claude, says, made):
    await made("/v1/users", user_id="ann")
    key = await made("/v1/keys", user_id="ann", rate_limit_rpm=1)
    ann = claude.with_options(api_key=key["key"])
    says("once")
    await ann.messages.create(**asks("act:m"))

    with pytest.raises(anthropic.RateLimitError) as refused:
        await ann.messages.create(**asks("act:m"))

    assert told_of(refused.value) == ("rate_limit_error", "rate_limit_exceeded")
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 60
    assert [row.id for row in await gateway.rows()] == gateway.promised
    assert len(gateway.promised) == 1


async def test_what_the_other_format_has_no_word_for_is_refused_with_a_row(gateway, claude, told):
    search = {"type": "web_search_20250305", "name": "web_search"}

    with pytest.raises(anthropic.BadRequestError) as refused:
        await claude.messages.create(**asks("stage:m", tools=[search]))

    assert told_of(refused.value) == ("invalid_request_error", "not_translatable")
    assert await told(MESSAGES) == ("error", 400, "none", *UNKNOWN)
    assert gateway.provider_calls == 0


async def test_a_provider_that_cannot_count_is_passed_on_without_a_row(gateway, claude):
    with pytest.raises(anthropic.NotFoundError) as refused:
        await claude.messages.count_tokens(
            model="claude:m", messages=SAID, extra_body={"fake": {"status": 404}}
        )

    assert told_of(refused.value) == ("not_found_error", "provider_not_found")
    assert await gateway.rows() == []


# --- in the middle of a stream


@both
async def test_a_stream_that_is_cut(gateway, claude, model):
    with pytest.raises(anthropic.APIError) as raised:
        async with claude.messages.stream(**asks(model), extra_body={"fake": {"cut_after": 2}}) as stream:
            await stream.get_final_message()

    assert told_of(raised.value) == ("api_error", "provider_stream_cut")
    row = await gateway.row()
    assert gateway.promised == [row.id]
    assert (row.status, row.status_code, row.error_code) == ("error", 200, "provider_stream_cut")


@both_staged
async def test_a_provider_that_fails_in_mid_stream(gateway, claude, stage, model, path):
    error = {"type": "overloaded_error", "message": "too much"}
    failure = b"event: error\ndata: " + json.dumps({"type": "error", "error": error}).encode() + b"\n\n"
    begun = list(WIRES[path].events("one row", ()))[:4]
    stage.stream(*begun, failure if path == MESSAGES else failure.removeprefix(b"event: error\n"))

    with pytest.raises(anthropic.APIError) as raised:
        async with claude.messages.stream(**asks(model)) as stream:
            await stream.get_final_message()

    assert raised.value.body["error"]["message"] == "too much"
    row = await gateway.row()
    assert (row.status, row.status_code, row.error_code) == ("error", 200, "provider_error")


async def test_the_counts_that_came_before_a_cut_are_paid_for(claude, stage, told):
    begun = list(WIRES[MESSAGES].events("one row", ()))[:4]
    stage.stream(*begun, stage.CUT)

    with pytest.raises(anthropic.APIError):
        async with claude.messages.stream(**asks("act:m")) as stream:
            await stream.get_final_message()

    unwritten = 39 * 10  # millionths: of the answer's tokens only the first was told
    paid = COST - Decimal(unwritten).scaleb(-6)
    assert await told(MESSAGES) == ("error", 200, "partial", PROMPT, 1, CACHED, paid)
