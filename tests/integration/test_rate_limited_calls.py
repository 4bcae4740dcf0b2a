"""Rate limits over real HTTP: refusals, the headers that warn of them, and what a call gives back."""

from __future__ import annotations

from functools import partial

import pytest
from letting_in import ANNS_KEY, Hand, make_api_key, make_user

from gateway import app as composition
from gateway.access import RateLimits
from gateway.keys import LIFECYCLE, STORE

ANN = {"Authorization": f"Bearer {ANNS_KEY}"}
PROMPT_TOKENS = 4
"""Estimated of the prompt that these tests send."""


@pytest.fixture
def hand(monkeypatch):
    """The clock of the limits."""
    hand = Hand()
    monkeypatch.setattr(composition, "RateLimits", partial(RateLimits, hand))
    return hand


@pytest.fixture
def serve(gateways, hand):
    """Makes a gateway that Ann may call, by limits that the test gives her key and herself."""

    async def go(user=(None, None), **limits):
        gateway = await gateways()
        await gateway.app[STORE].add(make_user(rate_limit_rpm=user[0], rate_limit_tpm=user[1]))
        await gateway.app[STORE].add(make_api_key(**limits))
        return gateway

    return go


async def chat(gateway, **members):
    gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4))
    return await gateway.post(gateway.body(**members), **ANN)


def left(response, unit):
    return response.headers.get(f"x-ratelimit-remaining-{unit}")


async def test_one_call_too_many_is_refused_without_a_row_and_told_when_to_come_again(serve, hand):
    gateway = await serve(rate_limit_rpm=2)
    assert [left(await chat(gateway), "requests") for _ in range(2)] == ["1", "0"]
    hand.now = 20.0

    response = await chat(gateway)

    error = (await response.json())["error"]
    assert (response.status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert response.headers["Retry-After"] == "40"
    assert (left(response, "requests"), response.headers["x-ratelimit-reset-requests"]) == ("0", "40s")
    assert len(await gateway.rows()) == gateway.provider_calls == 2
    hand.now = 60.0
    assert (await chat(gateway)).status == 200


async def test_tokens_are_charged_as_they_may_be_and_corrected_to_what_they_were(serve):
    gateway = await serve(rate_limit_tpm=100)

    responses = [await chat(gateway, max_tokens=50) for _ in range(3)]

    assert [left(each, "tokens") for each in responses] == ["93", "86", "79"]
    assert {each.headers["x-ratelimit-limit-tokens"] for each in responses} == {"100"}
    refused = await chat(gateway, max_tokens=79)
    assert refused.status == 429 and left(refused, "tokens") == "79"


@pytest.mark.parametrize("members", [{}, {"max_tokens": 100}, {"max_completion_tokens": 50, "n": 2}])
async def test_a_call_that_can_never_fit_is_told_so(serve, members):
    gateway = await serve(rate_limit_tpm=100)

    response = await chat(gateway, **members)

    assert response.status == 429
    assert "alone" in (await response.json())["error"]["message"]
    assert "Retry-After" not in response.headers


async def test_the_head_of_a_stream_tells_how_the_limits_stand(serve):
    gateway = await serve(rate_limit_rpm=5, rate_limit_tpm=100)
    stage = gateway.stage
    stage.stream(stage.chunk("swordfish"), stage.usage(3, 4), stage.DONE)

    response = await gateway.post(gateway.body(stream=True, max_tokens=50), **ANN)

    assert (left(response, "requests"), left(response, "tokens")) == ("4", str(50 - PROMPT_TOKENS))
    await gateway.settled()
    assert left(await chat(gateway, max_tokens=50), "tokens") == "86"


async def test_the_users_limit_holds_for_the_masters_calls_in_their_name_too(serve):
    gateway = await serve(user=(1, None))
    await chat(gateway)

    gateway.stage.plain({})
    response = await gateway.chat(user="ann")

    assert response.status == 429
    assert (await gateway.chat()).status == 200  # nobody's, so nobody's limit


async def test_a_call_that_its_provider_failed_gives_its_tokens_back(serve):
    gateway = await serve(rate_limit_tpm=100)
    gateway.stage.plain({"error": {"message": "no"}}, status=500)

    response = await gateway.post(gateway.body(max_tokens=90), **ANN)

    assert response.status == 502
    assert left(response, "tokens") == "100"


async def test_a_call_that_never_began_gives_its_tokens_back(serve):
    gateway = await serve(rate_limit_tpm=100, rate_limit_rpm=10)
    gateway.app[LIFECYCLE].is_closed_to_calls = True

    response = await chat(gateway, max_tokens=90)

    assert response.status == 503
    assert (left(response, "tokens"), left(response, "requests")) == ("100", "9")


async def test_a_client_that_left_pays_for_what_was_done_for_it(serve):
    gateway = await serve(rate_limit_tpm=100)
    gateway.unheard = None
    stage = gateway.stage
    stage.stream(stage.chunk("swordfish"), stage.go, stage.usage(3, 4), stage.DONE)
    caller = await gateway.call(gateway.body(stream=True, max_tokens=50), **ANN)
    await caller.until(b"swordfish")
    await caller.leave()
    stage.go.set()
    await gateway.settled()

    assert left(await chat(gateway, max_tokens=50), "tokens") == "86"
