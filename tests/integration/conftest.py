"""A whole gateway over real HTTP: before it a client, behind it providers that do what the test says.

The gateway runs as ``serve`` runs it: on uvloop, and deaf to clients that leave (aiohttp's test server
cancels the handler of such a client, and so proves something else). Whatever a test did, its end checks that
every call that began has exactly one row, that no place is out, that the ledger's two sides are equal, and
that no user's money is held any more.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import logging
import socket
import sys
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest
import uvloop
from aiohttp import web
from letting_in import ANNS_KEY
from spending import budgeted, looking
from troupe import cast

from backends import Place, StrategyError, UsageQuery, User, sinks
from backends.testing.faults import Gate
from gateway.app import build_app
from gateway.keys import CALLS, METRICS, PUMPS, SETTLEMENTS, SHUTDOWN, SINK, STORE, WRITER
from gateway.settings import load_settings

__all__ = ["budgeted", "cast", "looking"]

KEY = "tg-test"
PROVIDER_KEY = "sk-of-the-provider-0123"
SECRET = "swordfish"
"""Stands in every prompt and every completion of these tests, and must be in no row and in no log."""
CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
LONG_S = 20.0
"""Nothing here takes so long; a test that waits for so long fails."""
FAKE_PROVIDER = Path(__file__).parents[2] / "load" / "fake_provider.py"
PRICES = {
    "fake:m": {"input_per_million": "0.15", "output_per_million": "0.6", "cached_input_per_million": "0.075"},
    "stage:m": {"input_per_million": "1", "output_per_million": "10"},
}

_names = itertools.count()


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


def load_fake_provider():
    spec = importlib.util.spec_from_file_location("fake_provider_of_calls", FAKE_PROVIDER)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fake_provider = load_fake_provider()
with suppress(StrategyError):  # another conftest of this process was faster
    sinks.register("faulty", "backends.testing.faults:FaultySink")


async def soon(awaitable):
    """What ``awaitable`` gives; fails the test instead of hanging."""
    async with asyncio.timeout(LONG_S):
        return await awaitable


# --- the provider


def event(payload) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


@dataclass(eq=False)
class Stage:
    """A provider that plays the steps that the test gives it, one call at a time.

    A step is bytes to send, an event to wait for, or ``Stage.CUT``: the connection is closed.
    """

    CUT = "cut"
    DONE = b"data: [DONE]\n\n"

    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    """The gateway closed the connection before the answer was complete."""
    act: object = None

    def plain(self, answer, *steps, status=200, headers=None):
        """Once all ``steps`` are over, answer with ``answer``, an object or bytes."""

        async def act(request):
            for step in steps:
                await step.wait()
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            return web.Response(body=body, status=status, content_type="application/json", headers=headers)

        self.act = act

    def stream(self, *steps, before_head=None):
        """Answer with a stream of ``steps``, after ``before_head`` (an event) if there is one."""

        async def act(request):
            if before_head is not None:
                await before_head.wait()
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for step in steps:
                if step is Stage.CUT:
                    request.transport.close()
                elif isinstance(step, bytes):
                    await response.write(step)
                else:
                    await step.wait()
            return response

        self.act = act

    def chunk(self, text, **members):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return event({"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **members})

    def usage(self, prompt, completion, **members):
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, **members}
        counts.setdefault("total_tokens", prompt + completion)
        return event({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": counts})

    def completion(self, text, prompt=None, completion=None):
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        answer = {"id": "c1", "object": "chat.completion", "choices": [choice]}
        if prompt is not None:
            counts = {"prompt_tokens": prompt, "completion_tokens": completion}
            answer["usage"] = {**counts, "total_tokens": prompt + completion}
        return answer

    async def handle(self, request):
        self.bodies.append(await request.read())
        self.headers.append(request.headers)
        self.arrived.set()
        try:
            return await self.act(request)
        except (asyncio.CancelledError, ConnectionError):
            self.dropped.set()
            return web.Response()  # to nobody


# --- the client that can leave


@dataclass(eq=False)
class Caller:
    """One connection, driven byte by byte."""

    gateway: Gateway
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    async def head(self):
        """Read the head of the answer."""
        head = (await soon(self.reader.readuntil(b"\r\n\r\n"))).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.gateway.heard(self.headers)

    @property
    def is_chunked(self):
        return self.headers.get("transfer-encoding") == "chunked"

    async def until(self, text: bytes):
        """Read until ``text`` has come."""
        await soon(self.reader.readuntil(text))

    async def leave(self):
        """Close the connection; return when the gateway's end of it is closed too."""
        port = self.writer.get_extra_info("sockname")[1]
        self.writer.transport.abort()
        await soon(self.gateway.lost[port].wait())


# --- the gateway


@dataclass(eq=False)
class Gateway:
    """One gateway. ``begun`` are the ids of all places given, ``promised`` those that clients heard of."""

    app: web.Application
    runner: web.AppRunner
    site: web.TCPSite
    url: str
    stage: Stage
    fake: web.Application
    client: aiohttp.ClientSession | None = None
    begun: list[UUID] = field(default_factory=list)
    hidden: list[UUID] = field(default_factory=list)
    """The ids of the places given to attempts that further ones hid."""
    has_hidden: asyncio.Event = field(default_factory=asyncio.Event)
    promised: list[UUID] = field(default_factory=list)
    lost: dict[int, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    hung_up: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """To be acquired once for each connection of a client that ended."""
    callers: list[Caller] = field(default_factory=list)
    adopted: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """To be acquired once for each stream that goes to the pumps."""
    unheard: int | None = 0
    """Set by the test: calls with a row of whose id no client heard; None: any number."""
    unstored: int = 0
    """Set by the test: calls whose row was abandoned."""
    dead: int = 0
    """Set by the test: calls whose row is a dead letter."""
    broken: int = 0
    """Set by the test: of these, calls whose id a client heard."""
    asking: int = 0
    has_asked: asyncio.Event = field(default_factory=asyncio.Event)
    bugs: int = 0
    """Set by the test: bugs of ours, each of which is logged once, with its traceback."""

    @property
    def counts(self):
        return self.app[WRITER].stats().counts

    @property
    def provider_calls(self) -> int:
        """Calls that reached either provider."""
        return len(self.stage.bodies) + len(self.fake[fake_provider.CALLS].seen)

    @property
    def boot_id(self):
        return self.app[WRITER].boot_id

    def fake_calls(self):
        """What the fake provider saw."""
        return [vars(call) for call in self.fake[fake_provider.CALLS].seen]

    def heard(self, headers):
        """A client read ``headers``."""
        if usage_id := headers.get("x-usage-id"):
            self.promised.append(UUID(usage_id))

    def headers(self, **headers):
        return {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}

    def body(self, model="stage:m", **members):
        """The body of a chat completion."""
        messages = [{"role": "user", "content": f"say {SECRET}"}]
        return {"model": model, "messages": messages, **members}

    async def post(self, body, path=CHAT, **headers):
        """The answer to ``body``, an object or bytes, read to its end."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await soon(self.client.post(path, data=data, headers=self.headers(**headers)))
        await soon(response.read())
        return response

    async def chat(self, **members):
        return await self.post(self.body(**members))

    async def call(self, body, path=CHAT, *, connection=None, **headers) -> Caller:
        """Send ``body`` over a connection of its own, or over ``connection``: a reader and a writer."""
        if connection is None:
            connection = await asyncio.open_connection(*self.runner.addresses[0])
        caller = Caller(self, *connection)
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: gateway", f"Content-Length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in self.headers(**headers).items()]
        caller.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        await soon(caller.writer.drain())
        self.callers.append(caller)
        return caller

    def gate(self):
        """The next write to the sink ``faulty`` stops at this gate."""
        self.app[SINK].script(gate := Gate())
        return gate

    def hang_up(self):
        """Nobody waits any longer."""
        self.stage.go.set()
        for caller in self.callers:
            caller.writer.transport.abort()

    async def asked(self, count):
        """Wait until so many calls have asked the writer for a place."""
        while self.asking < count:
            self.has_asked.clear()
            await self.has_asked.wait()

    async def settled(self):
        """Wait until no call is under way and every row has gone where it goes."""
        assert await self.app[CALLS].ended(LONG_S), "a call is still running"
        assert await self.app[PUMPS].ended(LONG_S), "a stream is still read on"
        await self.app[WRITER].flush(LONG_S)
        if (settlements := self.app[SETTLEMENTS]) is not None:
            await soon(settlements.settled())

    async def rows(self):
        """All rows, oldest first, once every call has ended."""
        await self.settled()
        if self.app[SINK] is None:
            return []
        page = await self.app[SINK].read_usage(UsageQuery(limit=1000))
        return list(page.rows)[::-1]

    async def row(self):
        """The one row that there is."""
        (row,) = await self.rows()
        return row

    def metric(self, name, **labels):
        return self.app[METRICS].registry.get_sample_value(name, labels)

    async def check(self, log):
        """What holds after every test."""
        rows = await self.rows()
        stats = self.app[WRITER].stats()
        assert stats.counts.unaccounted == 0, stats
        assert (stats.queue_rows, stats.queue_bytes) == (0, 0), "a place is still out"
        stored = [row.id for row in rows]
        assert len(stored) == len(set(stored))
        given = {*self.begun, *self.hidden}
        assert set(stored) <= given, "a row of no call"
        assert len(given - set(stored)) == self.unstored + self.dead
        assert {row.id for row in rows if row.status == "absorbed"} <= set(self.hidden)
        self._check_hidden(rows)
        assert (stats.counts.abandoned, stats.counts.dead_lettered) == (self.unstored, self.dead)
        assert len(self.promised) == len(set(self.promised)), "an id promised twice"
        assert len(set(self.promised) - set(stored)) == self.broken, "a promise without a row"
        if self.unheard is not None:
            assert len(set(stored) - {*self.promised, *self.hidden}) == self.unheard
        assert SECRET not in "".join(map(repr, rows))
        users = await self.app[STORE].list(User, limit=1000)
        assert [user.id for user in users if user.reserved_nano] == [], "a claim is still held"
        self._check_log(log)

    def _check_hidden(self, rows):
        """Beside every attempt that was hidden stands its call, once."""
        calls = {row.request_id: row for row in rows if row.status != "absorbed"}
        for row in rows:
            if row.status == "absorbed" and not self.unstored + self.dead:
                call = calls[row.request_id]
                assert (row.timestamp, row.route, row.tags) == (call.timestamp, call.route, call.tags)
                assert (row.user_id, row.api_key_id) == (call.user_id, call.api_key_id)

    def _check_log(self, log):
        lines = [f"{logging.Formatter().format(record)} {vars(record)}" for record in log]
        for secret in (SECRET, KEY, PROVIDER_KEY, ANNS_KEY):
            assert not [line for line in lines if secret in line]
        errors = [record for record in log if record.levelno >= logging.ERROR and not _tells_of_peer(record)]
        assert len([record for record in errors if record.exc_info]) == self.bugs, lines
        assert not self.bugs or len(errors) == self.bugs, lines


def _tells_of_peer(record):
    """aiohttp's own servers log a peer that left while they wrote; here these are the providers."""
    return bool(record.exc_info) and isinstance(record.exc_info[1], ConnectionError)


class Log(logging.Handler):
    """Every record of a test, whatever phase it is in."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def log():
    """All that was logged since the test began."""
    root, handler = logging.getLogger(), Log()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler.records
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def nobodys_port():
    """A port that is taken, so that nobody else gets it, and on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
async def gateways(aiohttp_server, nobodys_port, tmp_path, log):
    """Makes gateways; checks and stops each at the end."""
    stack = AsyncExitStack()

    async def start(strategy="memory", **settings):
        stage, fake = Stage(), fake_provider.make_app()
        scene = web.Application()
        scene.router.add_post("/v1/{endpoint:.+}", stage.handle)
        urls = {"stage": await aiohttp_server(scene), "fake": await aiohttp_server(fake)}
        times = {"timeout_s": settings.pop("timeout_s", LONG_S)}
        if "first_token_timeout_s" in settings:
            times["first_token_timeout_s"] = settings.pop("first_token_timeout_s")
        bases = {name: server.make_url("/v1") for name, server in urls.items()}
        providers = {name: _provider(base, times) for name, base in bases.items()}
        anthropic = {
            name: {**_provider(urls[of].make_url("").with_path(""), times), "type": "anthropic"}
            for name, of in (("claude", "fake"), ("act", "stage"))
        }
        nobody = f"http://127.0.0.1:{nobodys_port}/v1"
        others = {
            name: {**_provider({**bases, "nobody": nobody}[of], times), **members}
            for name, (of, members) in settings.pop("others", {}).items()
        }
        database = f"{tmp_path.name}-{next(_names)}"
        given = {
            "master_key": KEY,
            "store": {"url": "memory:"},
            "log_writer_strategy": strategy,
            "sinks": {
                "memory": {"database": database},
                "faulty": {"database": database},
                "sqlite": {"path": str(tmp_path / f"{database}.db")},
            },
            "spool": {"mode": "off", "path": str(tmp_path / "spool")},
            "providers": {**providers, "nobody": _provider(nobody, times), **anthropic, **others},
            "pricing": PRICES,
            **settings,
        }
        file = tmp_path / f"{database}.yml"
        file.write_text(json.dumps(given))
        app = build_app(load_settings(file, {}))
        return await stack.enter_async_context(_running(app, stage, fake, log))

    async with stack:
        yield start


@pytest.fixture
async def gateway(gateways):
    """The gateway of tests that want nothing special."""
    return await gateways()


@pytest.fixture
def stage(gateway):
    return gateway.stage


def _provider(url, times):
    return {"type": "openai", "base_url": str(url), "api_key": PROVIDER_KEY, **times}


@asynccontextmanager
async def _running(app, stage, fake, log):
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = "http://{}:{}".format(*runner.addresses[0])
        gateway = Gateway(app, runner, site, url, stage, fake)
        _watch_places(gateway)
        _watch_connections(gateway)
        _watch_pumps(gateway)
        async with aiohttp.ClientSession(url, trace_configs=[_listener(gateway)]) as gateway.client:
            yield gateway
            gateway.hang_up()
            await gateway.check(log)
    finally:
        app[SHUTDOWN].hurry.set()
        await runner.cleanup()


def _listener(gateway):
    async def on_request_end(session, context, parameters):
        gateway.heard(parameters.response.headers)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(on_request_end)
    return trace


def _watch_places(gateway):
    """Note the id of every place that the writer gives: these are the calls that begin."""
    writer = gateway.app[WRITER]
    reserve = writer.reserve

    async def watched(row_id=None, intent=None):
        gateway.asking += 1
        gateway.has_asked.set()
        place = await reserve(row_id, intent)
        if isinstance(place, Place):
            gateway.begun.append(place.id)
        return place

    writer.reserve = watched
    reserve_now = writer.reserve_now

    def watched_now():
        place = reserve_now()
        if place is not None and gateway.app[SINK] is not None:
            gateway.hidden.append(place.id)
            gateway.has_hidden.set()
        return place

    writer.reserve_now = watched_now


def _watch_pumps(gateway):
    """Note that a stream is read on from now on."""
    pumps = gateway.app[PUMPS]
    adopt = pumps.adopt

    def watched(*args):
        adopt(*args)
        gateway.adopted.release()

    pumps.adopt = watched


def _watch_connections(gateway):
    """Note, by the client's port, that the gateway's end of a connection is closed."""
    server = gateway.runner.server
    connection_made, connection_lost = server.connection_made, server.connection_lost
    ports = {}

    def made(handler, transport):
        ports[handler] = transport.get_extra_info("peername")[1]
        connection_made(handler, transport)

    def lost(handler, error=None):
        connection_lost(handler, error)
        gateway.lost[ports.pop(handler)].set()
        gateway.hung_up.release()

    server.connection_made, server.connection_lost = made, lost


@pytest.fixture
def manage(gateway):
    """Asks the management API with the master key, or with ``key``; the status and the answer."""

    async def go(method, path, body=None, key=KEY):
        headers = {"Authorization": f"Bearer {key}"}
        asked = gateway.client.request(method, path, json=body, headers=headers)
        async with await soon(asked) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    return go


@pytest.fixture
def made(manage):
    """What ``POST`` made."""

    async def go(path, **members):
        status, answer = await manage("POST", path, members)
        assert status == 201, answer
        return answer

    return go
