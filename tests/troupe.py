"""Several models of one provider on a stage, each of which plays a part of its own, attempt by attempt."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from aiohttp import web

PRICE = {"input_per_million": "1", "output_per_million": "10"}
COUNTS = (3, 4)
"""Tokens of prompt and completion of every good answer."""


class Troupe:
    """``parts`` by the name of the model. ``seen``: whom each attempt reached, with its request id."""

    def __init__(self, stage, **parts):
        self.stage = stage
        self.parts = parts
        self.seen = []
        stage.act = self.act

    async def act(self, request):
        body = json.loads(self.stage.bodies[-1])
        self.seen.append((body["model"], request.headers["x-request-id"]))
        return await self.parts[body["model"]](self.stage, request, bool(body.get("stream")))

    def attempts(self, model):
        return [each for each, _ in self.seen if each == model]


async def well(stage, request, is_stream):
    """Answers."""
    if not is_stream:
        return web.json_response(stage.completion("swordfish", *COUNTS))
    return await _streamed(request, stage.chunk("swordfish"), stage.usage(*COUNTS), stage.DONE)


async def hangs(stage, request, is_stream):
    """Takes the call and says nothing."""
    await asyncio.Event().wait()


async def hangs_in_its_stream(stage, request, is_stream):
    """Begins an answer and does not go on."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await asyncio.Event().wait()


async def breaks_off(stage, request, is_stream):
    """Streams a word and is gone."""
    response = await _streamed(request, stage.chunk("swordfish"))
    request.transport.close()
    return response


async def begins_with_an_error(stage, request, is_stream):
    """Reports its failure in an answer of status 200."""
    error = {"error": {"message": "overloaded", "type": "server_error"}}
    if not is_stream:
        return web.json_response(error)
    return await _streamed(request, b"data: " + json.dumps(error).encode() + b"\n\n")


async def fails_behind_its_first_word(stage, request, is_stream):
    """Streams a word with its counts, and in the same breath that it has failed."""
    error = {"error": {"message": "overloaded", "type": "server_error"}}
    said = (stage.chunk("tuna"), stage.usage(*COUNTS), b"data: " + json.dumps(error).encode() + b"\n\n")
    return await _streamed(request, b"".join(said))


async def hangs_up(stage, request, is_stream):
    """Closes the connection."""
    request.transport.close()
    return web.Response()


def says(status, **headers):
    """Refuses with ``status``."""

    async def act(stage, request, is_stream):
        error = {"error": {"message": "no"}}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(error, status=status, headers=named)

    return act


def in_turn(*acts):
    """One after the other, and from the first again."""
    turns = itertools.cycle(acts)

    async def act(stage, request, is_stream):
        return await next(turns)(stage, request, is_stream)

    return act


async def _streamed(request, *events):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for each in events:
        await response.write(each)
    return response


# --- before them a gateway


def named(*targets, **members):
    """The settings of one name, ``fast``, before models on the stage."""
    entries = [{"model": f"stage:{each}"} for each in targets]
    fallbacks = [f"stage:{each}" for each in members.pop("fallbacks", ())]
    return {"fast": {"targets": entries, "fallbacks": fallbacks, **members}}


@pytest.fixture
def cast(gateways):
    """Makes a gateway before a troupe whose models are ``a``, ``b`` and so on."""

    async def start(parts, models, strategy="memory", **settings):
        settings = {"pricing": {f"stage:{name}": PRICE for name in parts}, **settings}
        gateway = await gateways(strategy, models=models, **settings)
        return gateway, Troupe(gateway.stage, **parts)

    return start


async def ask(gateway, model="fast", **members):
    return await gateway.post(gateway.body(model, **members))


async def is_good(response):
    text = await response.text()
    return response.status == 200 and "swordfish" in text and "error" not in text


def told(rows):
    return [(row.status, row.provider, row.model, row.status_code, row.end_reason) for row in rows]


def parted(rows):
    """The rows of the calls, and those of the attempts that were hidden."""
    return (
        [row for row in rows if row.status != "absorbed"],
        [row for row in rows if row.status == "absorbed"],
    )
