"""Several models of one provider on a stage, each of which plays a part of its own, attempt by attempt."""

from __future__ import annotations

import asyncio
import itertools
import json

from aiohttp import web

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
