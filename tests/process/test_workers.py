"""Case 54, and all else that several workers promise: one command, one port, one answer, one end.

A connection belongs to one worker for its whole life, so a test that has to know whose call it was keeps to
its connections, and sees a worker's death as the end of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

KEY = "tg-master-key-of-the-workers"
LONG_S = 30.0
"""Nothing here takes so long; a test that waits for so long fails."""
PATIENT = {"grace_s": 900, "drain_s": 300, "pump_s": 100, "stop_deadline_s": 300}
HASTY = {"drain_s": 0.3, "pump_s": 0.1, "stop_deadline_s": 0.6, "cancel_grace_s": 0.2}
FOREVER_MS = 600_000
BUCKETS = ("committed", "duplicates", "dead_lettered", "spooled", "abandoned")


async def soon(awaitable):
    """What ``awaitable`` gives; fails the test instead of hanging."""
    async with asyncio.timeout(LONG_S):
        return await awaitable


@dataclass(eq=False)
class Line:
    """One connection, and so one worker. ``promised`` are the ids of the calls answered on it in full."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request_id: str
    promised: list[UUID] = field(default_factory=list)
    is_over: bool = False

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        head = [f"{method} {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {KEY}"]
        head += ["Content-Type: application/json", f"x-request-id: {self.request_id}"]
        head += [f"Content-Length: {len(body)}"]
        self.writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        content = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, content

    async def call(self, **fake: Any) -> int:
        """A call; its HTTP status."""
        body = {"model": "local:fake", "messages": [{"role": "user", "content": "say"}], "fake": fake}
        status, headers, _ = await soon(self.ask("POST", "/v1/chat/completions", json.dumps(body).encode()))
        if status == 200:
            self.promised.append(UUID(headers["x-usage-id"]))
        return status

    async def get(self, path: str) -> bytes:
        status, _, content = await soon(self.ask("GET", path))
        assert status == 200, content
        return content

    async def ledger(self) -> dict[str, Any]:
        return json.loads(await self.get("/v1/log-writer"))

    async def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """All samples by name and values of labels."""
        families = text_string_to_metric_families((await self.get("/metrics")).decode())
        samples = [sample for family in families for sample in family.samples]
        values = {(each.name, tuple(each.labels.values())): each.value for each in samples}
        assert len(values) == len(samples), "a sample is there twice"
        return values


@dataclass(eq=False)
class Gateway:
    """The command with several workers. ``name`` is the request id of all calls."""

    process: Any
    provider_url: str
    name: str = field(default_factory=lambda: uuid4().hex)
    url: str = ""
    lines: list[Line] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def pid(self, number: int) -> int:
        """Of the youngest worker of this number."""
        return self.process.all_of("worker_started", worker=number)[-1]["pid"]

    def running(self) -> list[int]:
        """The workers of which nobody said that they ended."""
        ended = {line["pid"] for line in self.process.all_of("worker_ended")}
        return [line["pid"] for line in self.process.all_of("worker_started") if line["pid"] not in ended]

    async def line(self) -> Line:
        self.lines.append(Line(*await soon(asyncio.open_connection(*self.address)), self.name))
        return self.lines[-1]

    async def lines_to_both(self) -> list[Line]:
        """Some connections, so many that both workers have one: the kernel deals them out as it likes. On
        each one call was answered."""
        lines: list[Line] = []
        async with asyncio.timeout(LONG_S):
            while len(lines) < 4 or min(await self.accepted(lines[0])) == 0:
                lines.append(await self.line())
                assert await lines[-1].call() == 200
        return lines

    async def is_served(self, calls: int) -> None:
        """Returns once the provider has so many of our calls that it has not answered."""
        async with aiohttp.ClientSession() as session, asyncio.timeout(LONG_S):
            while True:
                async with session.get(f"{self.provider_url}/calls") as response:
                    seen = [each for each in await response.json() if each["request_id"] == self.name]
                if sum(not each["finished"] for each in seen) >= calls:
                    return

    @staticmethod
    async def accepted(line: Line) -> list[int]:
        return [each["accepted"] for each in (await line.ledger())["workers"]]

    def reports(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The supervisor's shutdown report and those of the workers."""
        lines = self.process.all_of("shutdown_report")
        (summed,) = [line for line in lines if line["logger"] == "gateway.supervisor"]
        return summed, [line for line in lines if line is not summed]

    async def exits(self) -> int:
        status = await self.process.exit_status()
        assert not [line for line in self.process.text if not line.startswith("{")], self.process
        assert "raceback" not in "\n".join(self.process.text)
        assert self.running() == []
        return status

    async def stop(self) -> int:
        self.process.send(signal.SIGTERM)
        return await self.exits()


@pytest.fixture
def workers(serve_unready, provider_url):
    """``async with workers(section=..., ...) as gateway``: two workers, listening, none of which is left."""

    @asynccontextmanager
    async def started(is_listening: bool = True, env: Any = None, **sections: Any) -> AsyncIterator[Gateway]:
        async with serve_unready(env, **{"workers": 2, "master_key": KEY, **sections}) as process:
            gateway = Gateway(process, provider_url)
            try:
                if is_listening:
                    gateway.url = (await process.said("listening"))["url"]
                yield gateway
            finally:
                for pid in gateway.running():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                for line in gateway.lines:
                    line.writer.close()

    return started


@pytest.fixture
def rows(tmp_path):
    """Gives the ids of all rows, read from the file; fails when one is there twice."""

    def read() -> set[UUID]:
        with closing(sqlite3.connect(tmp_path / "data" / "usage.db")) as database:
            found = Counter(UUID(row_id) for (row_id,) in database.execute("SELECT id FROM usage_logs"))
        assert set(found.values()) <= {1}
        return set(found)

    return read


def adds_up(summed, reports) -> bool:
    """Whether the supervisor's report is the sum of those of the workers, and balances."""
    names = ("accepted", *BUCKETS, "queued", "in_flight", "unaccounted")
    is_sum = all(summed[name] == sum(each[name] for each in reports) for name in names)
    return is_sum and summed["unaccounted"] == 0


# --- one command


async def test_one_line_says_that_all_workers_listen_and_one_report_sums_them_up(workers, rows):
    async with workers() as gateway:
        lines = await gateway.lines_to_both()

        assert await gateway.stop() == 0

        (listening,) = gateway.process.all_of("listening")
        assert (listening["workers"], listening["pid"]) == (2, gateway.process.pid)
        summed, reports = gateway.reports()
        assert len(reports) == 2 and adds_up(summed, reports)
        assert summed["committed"] == len(lines)
        assert (summed["clean"], summed["workers"], summed["worker_restarts"]) == (True, 2, 0)
        assert rows() == {promise for line in lines for promise in line.promised}


async def test_one_worker_is_the_commands_own_process(workers):
    async with workers(workers=1) as gateway:
        assert gateway.process.all_of("listening")[0]["pid"] == gateway.process.pid
        assert gateway.process.all_of("worker_started") == []
        gateway.process.send(signal.SIGTERM)
        assert await gateway.process.exit_status() == 0


async def test_a_port_that_other_workers_share_is_taken(workers, run, configuration):
    async with workers() as gateway:
        port = gateway.address[1]
        path = str(configuration(workers=2))

        status, _, complaint = await run("serve", "--config", path, "--port", str(port))

        assert status == 1
        assert complaint.startswith(f"cannot listen on 127.0.0.1:{port}: ")
        assert await gateway.stop() == 0


async def test_a_worker_that_does_not_even_start_ends_the_command(workers, tmp_path):
    env = with_sink(tmp_path / "installed", NEVER_OPEN)
    never = {"log_writer_strategy": "batch:never", "sinks": {}}
    async with workers(is_listening=False, env=env, **never) as gateway:
        started = await gateway.process.said("worker_started", worker=1)
        other = await gateway.process.said("worker_started", worker=2)
        os.kill(started["pid"], signal.SIGKILL)
        await gateway.process.said("worker_ended", worker=1)
        os.kill(other["pid"], signal.SIGKILL)  # or it would be given the whole grace

        assert await gateway.exits() == 1
        assert gateway.process.all_of("listening") == []
        assert gateway.reports()[0]["clean"] is False


async def test_a_stop_that_comes_before_the_workers_listen_is_obeyed(workers):
    async with workers(is_listening=False) as gateway:
        await gateway.process.said("worker_started", worker=2)

        assert await gateway.stop() == 0
        assert gateway.reports()[0]["clean"] is True


# --- one answer


async def test_the_ledger_is_shown_in_sum_and_by_worker(workers):
    async with workers() as gateway:
        lines = await gateway.lines_to_both()

        for line in lines:
            ledger = await line.ledger()
            assert ledger["accepted"] == len(lines) == sum(each["accepted"] for each in ledger["workers"])
            assert (ledger["state"], ledger["boot_id"], ledger["unaccounted"]) == ("running", None, 0)
            assert len({each["boot_id"] for each in ledger["workers"]}) == 2
        assert await gateway.stop() == 0


async def test_every_worker_shows_the_metrics_of_all(workers):
    async with workers() as gateway:
        lines = await gateway.lines_to_both()
        calls = float(len(lines))

        for line in lines:
            metrics = await line.metrics()
            assert metrics["gateway_requests_total", ("/v1/chat/completions", "local", "200")] == calls
            assert metrics["gateway_request_seconds_count", ()] == calls
            assert metrics["gateway_request_seconds_bucket", ("+Inf",)] == calls
            assert metrics["gateway_log_rows", ("accepted",)] == calls
            assert metrics["gateway_log_breaker_state", ("sqlite",)] == 0
            assert metrics["gateway_workers", ("answering",)] == 2
            assert metrics["gateway_worker_restarts_total", ()] == 0
        assert await gateway.stop() == 0


async def test_a_worker_that_does_not_answer_is_shown_as_such(workers):
    async with workers() as gateway:
        lines = await gateway.lines_to_both()
        before = await lines[0].metrics()
        boots = [each["boot_id"] for each in (await lines[0].ledger())["workers"]]
        os.kill(gateway.pid(1), signal.SIGSTOP)

        asked = {asyncio.ensure_future(line.ledger()): line for line in lines}
        done, silent = await asyncio.wait(asked, timeout=LONG_S, return_when=asyncio.FIRST_COMPLETED)
        ledger, line = next(iter(done)).result(), asked[next(iter(done))]
        metrics = await line.metrics()
        os.kill(gateway.pid(1), signal.SIGCONT)

        assert ledger["workers"][0] == {"state": "unreachable", "boot_id": boots[0]}
        assert (ledger["state"], ledger["accepted"]) == ("running", ledger["workers"][1]["accepted"])
        assert metrics["gateway_workers", ("silent",)] == 1
        for name in ("gateway_request_seconds_count", "gateway_overhead_seconds_count"):
            assert metrics[name, ()] == before[name, ()], "counters do not go back"
        await asyncio.gather(*silent)
        assert await gateway.stop() == 0


async def test_counters_do_not_go_back_when_a_worker_is_replaced(workers):
    async with workers() as gateway:
        lines = await gateway.lines_to_both()
        calls = (await lines[0].metrics())["gateway_request_seconds_count", ()]

        os.kill(gateway.pid(1), signal.SIGKILL)
        await gateway.process.said("worker_ended", worker=1, exit_status=-signal.SIGKILL)
        metrics = await (await gateway.line()).metrics()

        assert metrics["gateway_request_seconds_count", ()] == calls == len(lines)
        assert metrics["gateway_worker_restarts_total", ()] == 1
        assert await gateway.stop() == 0


# --- one end


async def call_until_the_end(gateway: Gateway, lines: list[Line], is_stopping: asyncio.Event) -> None:
    """Calls one after the other on a line of its own, and on the next when that one ends."""
    while not is_stopping.is_set():
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            line = await gateway.line()
            lines.append(line)
            try:
                while await line.call(delay_ms=5) == 200:
                    pass
            finally:
                line.is_over = True


async def all_at_work(gateway: Gateway, former_boot: str) -> None:
    """Returns once the successor of ``former_boot`` has accepted calls, too."""
    line = await gateway.line()
    async with asyncio.timeout(LONG_S):
        while any(each["boot_id"] in (None, former_boot) for each in (await line.ledger())["workers"]):
            pass
        while min(await gateway.accepted(line)) == 0:
            await (await gateway.line()).call()


async def test_54_multi_worker_one_killed_one_stop_and_each_answer_of_the_others_has_its_row(workers, rows):
    async with workers() as gateway:
        under_load: list[Line] = []
        is_stopping = asyncio.Event()
        first = (await gateway.lines_to_both())[0]
        former_boot = (await first.ledger())["workers"][0]["boot_id"]
        async with asyncio.TaskGroup() as callers:
            for _ in range(16):
                callers.create_task(call_until_the_end(gateway, under_load, is_stopping))
            async with asyncio.timeout(LONG_S):
                while (await first.ledger())["accepted"] < 100:
                    pass
            os.kill(gateway.pid(1), signal.SIGKILL)
            await gateway.process.said("worker_ended", worker=1, exit_status=-signal.SIGKILL)
            await all_at_work(gateway, former_boot)
            broken = [line for line in under_load if line.is_over]
            is_stopping.set()
            gateway.process.send(signal.SIGTERM)

        assert await gateway.exits() == 0
        summed, reports = gateway.reports()
        assert len(reports) == 2 and adds_up(summed, reports)
        assert (summed["clean"], summed["workers"], summed["worker_restarts"]) == (True, 2, 1)
        answered = {row for line in under_load if line not in broken for row in line.promised}
        assert broken and answered
        assert answered <= rows()
        assert summed["committed"] <= len(rows())


async def test_42_ctrl_c_reaches_each_worker_once(workers, rows, held, held_providers):
    async with workers(shutdown=PATIENT, providers=held_providers) as gateway:
        line = await gateway.line()
        held.hold()
        call = asyncio.ensure_future(line.call())
        await held.holds(1)
        os.killpg(gateway.process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
        await gateway.process.said("stopping", step="drain", calls=1)
        held.go()

        assert await call == 200
        assert await gateway.exits() == 0
        (heard,) = gateway.process.all_of("signal")
        assert (heard["logger"], heard["signal"]) == ("gateway.supervisor", "SIGINT")
        assert rows() == set(line.promised)


async def test_a_manager_that_signals_every_process_asks_for_one_stop_only(workers, held, held_providers):
    async with workers(shutdown=PATIENT, providers=held_providers) as gateway:
        line = await gateway.line()
        held.hold()
        call = asyncio.ensure_future(line.call())
        await held.holds(1)
        for pid in (gateway.process.pid, *gateway.running()):
            os.kill(pid, signal.SIGTERM)
        await gateway.process.said("stopping", step="drain", calls=1)
        held.go()

        assert await call == 200
        assert await gateway.exits() == 0


@pytest.mark.parametrize("signals", [2, 3])
async def test_further_signals_are_passed_on(workers, rows, signals):
    async with workers(shutdown=PATIENT) as gateway:
        lines = await gateway.lines_to_both()
        calls = [asyncio.ensure_future(line.call(delay_ms=FOREVER_MS)) for line in lines]
        await gateway.is_served(len(lines))
        gateway.process.send(signal.SIGTERM)
        await gateway.process.said("stopping", step="drain")
        for count in range(2, signals + 1):
            gateway.process.send(signal.SIGTERM)
            await gateway.process.said("signal", count=count)

        status = await gateway.exits()
        await asyncio.gather(*calls, return_exceptions=True)
        summed, reports = gateway.reports()
        assert len(reports) == 2 and adds_up(summed, reports)
        assert summed["accepted"] == 2 * len(lines), "one row for each call, whatever became of it"
        assert status == (3 if summed["abandoned"] else 0)
        assert len(rows()) >= summed["committed"]


async def test_a_worker_with_rows_abandoned_makes_the_status_3(workers, locked, tmp_path):
    async with workers(shutdown=HASTY) as gateway:
        line = await gateway.line()
        with locked(tmp_path / "data" / "usage.db"):
            assert await line.call() == 200
            status = await gateway.stop()

        summed, reports = gateway.reports()
        assert status == 3
        assert (summed["abandoned"], summed["clean"]) == (1, False)
        assert adds_up(summed, reports)


async def test_a_worker_killed_during_the_stop_makes_the_status_1(workers):
    async with workers(shutdown=PATIENT) as gateway:
        lines = await gateway.lines_to_both()
        calls = [asyncio.ensure_future(line.call(delay_ms=FOREVER_MS)) for line in lines]
        await gateway.is_served(len(lines))
        gateway.process.send(signal.SIGTERM)
        await gateway.process.said("signal")
        os.kill(gateway.pid(1), signal.SIGKILL)
        await gateway.process.said("worker_ended", worker=1)
        gateway.process.send(signal.SIGTERM)

        assert await gateway.exits() == 1
        await asyncio.gather(*calls, return_exceptions=True)
        summed, reports = gateway.reports()
        assert len(reports) == 1 and adds_up(summed, reports)
        assert (summed["clean"], summed["workers"], summed["worker_restarts"]) == (False, 2, 0)


async def test_a_worker_that_somebody_stops_ends_well_and_is_replaced(workers, rows):
    async with workers() as gateway:
        lines = await gateway.lines_to_both()
        former_boot = (await lines[0].ledger())["workers"][1]["boot_id"]
        os.kill(gateway.pid(2), signal.SIGTERM)
        await gateway.process.said("worker_ended", worker=2, exit_status=0)
        await all_at_work(gateway, former_boot)

        assert await gateway.stop() == 0
        assert gateway.reports()[0]["worker_restarts"] == 1
        assert {row for line in gateway.lines for row in line.promised} == rows()


async def test_workers_whose_supervisor_is_killed_stop_as_at_sigterm_and_leave_nothing(
    workers, rows, held, held_providers
):
    async with workers(shutdown=PATIENT, providers=held_providers) as gateway:
        lines = await gateway.lines_to_both()
        held.hold()
        calls = [asyncio.ensure_future(line.call()) for line in lines]
        await held.holds(len(lines))
        pids = gateway.running()
        gateway.process.send(signal.SIGKILL)
        await gateway.process.said("stopping", times=2, step="drain")
        held.go()

        assert await asyncio.gather(*calls) == [200] * len(lines), "running calls have their answer"
        assert await gateway.process.exit_status() == -signal.SIGKILL  # and nobody writes to stderr any more
        assert rows() == {row for line in lines for row in line.promised}
        reports = gateway.process.all_of("shutdown_report", clean=True)
        assert sum(each["committed"] for each in reports) == 2 * len(lines)
        await soon(asyncio.to_thread(all_gone, pids))
        with socket.socket() as port:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            port.bind(gateway.address)


def all_gone(pids: list[int]) -> None:
    """Returns once none of these processes is there, but for those that nobody has buried yet."""
    for pid in pids:
        with suppress(ProcessLookupError):
            select.select([os.pidfd_open(pid)], [], [], LONG_S)


# --- a worker that never listens

NEVER_OPEN = """
import asyncio
from contextlib import asynccontextmanager
from backends.memory import MemorySink

class NeverSink(MemorySink):
    "Is never opened."
    @classmethod
    @asynccontextmanager
    async def open(cls, options):
        await asyncio.Event().wait()
        yield
"""


def with_sink(folder: Path, source: str) -> dict[str, str]:
    """An environment in which a distribution with the sink ``never`` is installed."""
    metadata = folder / "never_sink-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "never_sink.py").write_text(source)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: never-sink\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[tallygate.sinks]\nnever = never_sink:NeverSink\n")
    return {"PYTHONPATH": str(folder)}


# --- a fork

FORKED = """
import asyncio, os
from pathlib import Path
from backends import BatchingOptions, BatchLogWriter, DeadLetterFile, SinkOptions, sinks
from backends.testing import make_record

async def main():
    sink_class = sinks.load("memory")
    async with sink_class.open(sink_class.Options()) as sink:
        options, letters = BatchingOptions.model_validate({}), DeadLetterFile(Path("dead"))
        writer = BatchLogWriter(sink, options, sink_name="memory", dead_letters=letters)
        await writer.start()
        await writer.put(make_record())
        if (child := os.fork()) == 0:
            asking = writer.reserve()
            try:
                asking.send(None)  # the loop is the parent's
            except StopIteration as answer:
                os._exit(0 if answer.value.reason == writer.stats().would_refuse == "forked" else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        report = await writer.stop()
        letters.close()
        assert report.stats.counts.committed == report.stats.counts.accepted == 1, report

asyncio.run(main())
"""


async def test_55_fork_after_start_a_child_that_uses_the_parents_writer_is_refused_by_name(script):
    async with script(FORKED) as process:
        assert await process.exit_status() == 0, str(process)
        assert process.text == []
