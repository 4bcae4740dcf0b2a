"""The yardstick: the least that a proxy can do with aiohttp. No log, no keys, no accounts.

python -m bench.passthrough http://127.0.0.1:9999
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", aiohttp.ClientSession)
JSON = {"Content-Type": "application/json"}
PATH = "/v1/chat/completions"


async def plain(request: web.Request) -> web.Response:
    body = await request.read()
    async with request.app[SESSION].post(request.app[UPSTREAM], data=body, headers=JSON) as response:
        return web.Response(body=await response.read(), content_type="application/json")


async def streamed(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    async with request.app[SESSION].post(request.app[UPSTREAM], data=body, headers=JSON) as response:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        async for chunk in response.content.iter_any():
            await answer.write(chunk)
        await answer.write_eof()
        return answer


async def session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as app[SESSION]:
        yield


async def main(upstream: str) -> None:
    app = web.Application()
    app[UPSTREAM] = upstream + PATH
    app.router.add_post(PATH, plain)
    app.router.add_post(f"/streamed{PATH}", streamed)
    app.cleanup_ctx.append(session)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    print(json.dumps({"event": "listening", "url": url, "pid": os.getpid()}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
