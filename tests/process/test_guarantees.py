"""The table of guarantees, cell by cell, with the real command on every durable sink.

Rows are tests, columns are modes: ``off``, ``spill`` and ``write_ahead`` of the spool under ``batch``, and
``single``. On sqlite and postgres every cell is tested, on the others one cell of each row at least. What is
stored is read around the gateway.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from process.durable import FULL, NAMES

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the servers

BATCH = ("off", "spill", "write_ahead")
SPOOLED = ("spill", "write_ahead")
HASTY = {"drain_s": 0.3, "pump_s": 0.1, "stop_deadline_s": 0.6, "cancel_grace_s": 0.2}
PATIENT = {"grace_s": 900, "drain_s": 300, "pump_s": 100, "stop_deadline_s": 300}
QUICK = {"attempt_timeout_s": 1.0, "batch_deadline_s": 1.0, "linger_s": 0.02}
SOON_S = 30.0


def cells(*modes: str, other: str, names: tuple[str, ...] = NAMES) -> Callable[[Any], Any]:
    """One row of the table: all ``modes`` where every cell is tested, ``other`` elsewhere."""
    pairs = [(mode, name) for name in names for mode in (modes if name in FULL else (other,))]
    ids = [f"{mode}-{name}" for mode, name in pairs]
    return pytest.mark.parametrize(("mode", "sink_name"), pairs, ids=ids, indirect=["sink_name"])


@pytest.fixture
def sections(durable, spool) -> Callable[..., dict[str, Any]]:
    """``sections(mode, ...)``: a configuration for one column."""

    def of(mode: str, **batching: Any) -> dict[str, Any]:
        kind, spool_mode = ("single", "off") if mode == "single" else ("batch", mode)
        return {
            **durable.strategy(kind),
            "spool": spool(spool_mode),
            "batching": {**QUICK, **batching},
        }

    return of


async def killed(gateway) -> None:
    gateway.process.send(signal.SIGKILL)
    assert await gateway.process.exit_status() == -signal.SIGKILL


async def known(gateway) -> None:
    """The sink has its schema and has taken a row: what comes now is no first time."""
    async with asyncio.timeout(SOON_S):
        while (await gateway.outcome(gateway.chat(name="known")))[0] != 200:
            pass  # a busy server is slow to make its schema: `single` waits no longer than an attempt
    await stored(gateway, 1)


async def stored(gateway, count: int) -> None:
    """Returns once the sink has so many rows of this gateway's and nothing is left to be written."""
    await gateway.ledger_shows(spooled=0, queued=0, in_flight=0)
    ledger = await gateway.ledger()
    assert ledger["committed"] + ledger["duplicates"] == count, ledger


async def delivered(serve, durable, sections, promised) -> None:
    """The next start finds ``promised`` on the disk and delivers each once."""
    async with serve(**sections) as gateway:
        await gateway.ledger_shows(recovered=len(promised), spooled=0, queued=0, in_flight=0)
        assert await gateway.stop() == 0
    ids = await durable.ids()
    assert [ids[each] for each in promised] == [1] * len(promised)


@cells(*BATCH, "single", other="write_ahead")
async def test_sigterm_with_the_sink_up_loses_nothing(durable, serve, sections, mode) -> None:
    async with serve(**sections(mode)) as gateway:
        calls = [asyncio.ensure_future(gateway.answered(delay_ms=300)) for _ in range(20)]
        await gateway.begun(20)
        assert await gateway.stop() == 0
        promised = await asyncio.gather(*calls)

    assert await durable.ids() == dict.fromkeys(promised, 1)


@cells(*BATCH, other="spill")
async def test_sigterm_with_the_sink_down(durable, serve, sections, mode) -> None:
    async with serve(**sections(mode), shutdown=HASTY) as gateway:
        await known(gateway)
        async with durable.down():
            promised = [await gateway.answered() for _ in range(5)]
            assert await gateway.stop() == (3 if mode == "off" else 0)

        if mode == "off":
            assert sorted(gateway.abandoned()) == sorted(promised)
            return
        assert gateway.report["spooled"] == 5
    await delivered(serve, durable, sections(mode), promised)


@cells(*BATCH, other="write_ahead")
async def test_sink_down_under_load(durable, serve, sections, mode) -> None:
    async with serve(**sections(mode, max_queue_rows=20, max_block_s=0.02)) as gateway:
        await known(gateway)
        promised = []
        async with durable.down():
            for _ in range(40):
                async with gateway.chat() as answer:
                    assert answer.status == 200
                    if "x-usage-id" in answer.headers:
                        promised.append(gateway.promised(answer))
        await stored(gateway, 1 + len(promised))
        assert await gateway.stop() == 0
        shed = sum(gateway.report["shed"].values())

    assert (len(promised), shed) == ((20, 20) if mode == "off" else (40, 0))
    ids = await durable.ids()
    assert [ids[each] for each in promised] == [1] * len(promised)


@cells("single", other="single")
async def test_single_refuses_calls_while_the_sink_is_down(durable, serve, sections, mode) -> None:
    async with serve(**sections(mode)) as gateway:
        await known(gateway)
        async with durable.down(), asyncio.timeout(SOON_S):
            while (outcome := await gateway.outcome(gateway.chat()))[1] != "usage_log_sink_down":
                assert outcome == (503, "usage_not_durable")
            before = len(await gateway.seen_by_provider())
            assert await gateway.outcome(gateway.chat()) == (503, "usage_log_sink_down")
            assert len(await gateway.seen_by_provider()) == before, "refused before it costs anything"
        async with asyncio.timeout(SOON_S):
            while (await gateway.outcome(gateway.chat()))[0] != 200:
                pass
        await gateway.stop()


async def plain_call(gateway) -> tuple[int, str, bool]:
    """Status, code, and whether a row was promised."""
    async with gateway.chat(name="plain") as answer:
        return answer.status, (await answer.json())["error"]["code"], "x-usage-id" in answer.headers


async def stream_call(gateway) -> tuple[int, str | None]:
    outcome: tuple[int, str | None] = await gateway.outcome(gateway.chat(name="stream", stream=True))
    return outcome


@pytest.mark.parametrize("spool_mode", ["off", "spill"])
@cells("single", other="single")
async def test_sink_that_fails_within_the_call(durable, serve, sections, spool, mode, spool_mode) -> None:
    own = {**sections(mode), "spool": spool(spool_mode)}
    async with serve(**own, shutdown=HASTY) as gateway:
        await known(gateway)
        async with durable.down():
            plain, stream = await asyncio.gather(plain_call(gateway), stream_call(gateway))
            assert plain == (503, "usage_not_durable", False)
            assert stream == (200, "usage_not_durable")
            assert await gateway.stop() == (3 if spool_mode == "off" else 0)
        kept = "abandoned" if spool_mode == "off" else "spooled"
        assert gateway.report[kept] == 2

    if spool_mode == "spill":
        async with serve(**own) as gateway:
            await gateway.ledger_shows(recovered=2, spooled=0, queued=0, in_flight=0)
            assert await gateway.stop() == 0
        assert len(await durable.rows()) == 3


@cells(*BATCH, "single", other="write_ahead")
async def test_kill9(durable, serve, crashing, sections, mode) -> None:
    async with crashing(**sections(mode, batch_deadline_s=60)) as gateway:
        await known(gateway)
        early = [await gateway.answered() for _ in range(3)]
        if mode == "single":
            late = []
            await killed(gateway)
        else:
            await stored(gateway, 4)
            async with durable.down():
                late = [await gateway.answered() for _ in range(3)]
                await killed(gateway)

    async with serve(**sections(mode)) as gateway:
        await gateway.ledger_shows(spooled=0, queued=0, in_flight=0)
        early.append(await gateway.answered())
        assert await gateway.stop() == 0
    ids = await durable.ids()
    assert [ids[each] for each in early] == [1] * 4
    assert [ids[each] for each in late] == [1 if mode == "write_ahead" else 0] * len(late)


LOST_REPLY = {
    "postgres": {"reply": b"INSERT 0 "},
    "mongo": {"request": b"usage_logs"},
    "clickhouse": {"request": b"insert_deduplication_token", "times": 2},
}
"""The answer to the statement that stores rows."""


@cells(
    *BATCH, "single", other="spill", names=tuple(name for name in NAMES if name != "sqlite")
)  # a file has no reply to lose
async def test_commit_done_and_reply_lost(durable, serve, sections, mode) -> None:
    async with serve(**sections(mode, attempt_timeout_s=3, batch_deadline_s=30)) as gateway:
        await known(gateway)
        durable.proxy.drop_reply(**LOST_REPLY[durable.sink])
        promised = await asyncio.gather(*(gateway.answered() for _ in range(5)))
        async with asyncio.timeout(SOON_S):
            await durable.proxy.struck.wait()
        await durable.proxy.heal()
        assert await gateway.stop() == 0

    ids = await durable.ids()
    assert [ids[each] for each in promised] == [1] * 5


@cells(*BATCH, "single", other="spill", names=tuple(name for name in NAMES if "mongo" not in name))
async def test_one_bad_row_alone_goes_to_the_dead_letters(durable, serve, sections, mode) -> None:
    """MongoDB refuses no row that a gateway can make; there it is the core's own test."""
    async with serve(**sections(mode)) as gateway:
        await known(gateway)
        await refuse_poison(durable)
        names = [f"good{number}" for number in range(9)] + ["poison"]
        calls = [gateway.answered_as(name) for name in names]
        *promised, poisoned = await asyncio.gather(*calls)
        await gateway.ledger_shows(dead_lettered=1)
        await stored(gateway, 10)
        assert await gateway.stop() == 0

    ids = await durable.ids()
    assert [ids[each] for each in promised] == [1] * 9
    assert ids[poisoned] == 0


async def refuse_poison(durable) -> None:
    """The database takes no row with this request id any more."""
    if durable.sink == "sqlite":
        with closing(sqlite3.connect(durable.where["path"])) as connection:
            connection.execute(
                "CREATE TRIGGER no_poison BEFORE INSERT ON usage_logs WHEN NEW.request_id LIKE '%poison'"
                " BEGIN SELECT RAISE(ABORT, 'poison'); END"
            )
    elif durable.sink == "postgres":
        await durable.run("ALTER TABLE usage_logs ADD CHECK (request_id NOT LIKE '%poison')")
    else:
        no_poison = "ADD CONSTRAINT no_poison CHECK request_id NOT LIKE '%poison'"
        await asyncio.to_thread(durable.run, f"ALTER TABLE usage_logs {no_poison}")


@cells(*BATCH, other="write_ahead")
async def test_44_second_sigterm_with_the_sink_down(durable, serve, sections, mode) -> None:
    async with serve(**sections(mode, batch_deadline_s=60), shutdown=PATIENT) as gateway:
        await known(gateway)
        async with durable.down():
            promised = [await gateway.answered() for _ in range(5)]
            gateway.process.send(signal.SIGTERM)
            await gateway.process.said("stopping", step="stop")
            assert await gateway.stop() == (3 if mode == "off" else 0)

        if mode == "off":
            assert sorted(gateway.abandoned()) == sorted(promised)
            return
        assert gateway.report["spooled"] == 5
    await delivered(serve, durable, sections(mode), promised)


@cells(*SPOOLED, other="write_ahead")
async def test_52_disk_full_spool(durable, serve, sections, disk_full, mode) -> None:
    async with serve(**sections(mode), shutdown=HASTY) as gateway:
        await known(gateway)
        async with disk_full(gateway.process.pid), durable.down():
            promised = [await gateway.answered() for _ in range(5)]
            await gateway.is_degraded("spool_ailing")
        await stored(gateway, 6)
        async with disk_full(gateway.process.pid), durable.down():
            late = [await gateway.answered() for _ in range(5)]
            assert await gateway.stop() == 3
        assert sorted(gateway.abandoned()) == sorted(late), "nowhere to go: counted and named"

    ids = await durable.ids()
    assert [ids[each] for each in promised] == [1] * 5
