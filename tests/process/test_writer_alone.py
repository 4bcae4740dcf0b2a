"""Cases 34 and 41: the batching core in a process of its own, without a gateway around it."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack, closing
from textwrap import dedent

import pytest

PREAMBLE = """
    import asyncio, json, sys
    from contextlib import AsyncExitStack
    from pathlib import Path
    import uvloop
    from backends import BatchingOptions, BatchLogWriter, DeadLetterFile, Place, Spool, SpoolOptions, sinks
    from backends.testing import make_record
    from gateway.logging_setup import set_up_logging

    set_up_logging()
    FOLDER = Path(sys.argv[1])

    def say(event, **fields):
        print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)

    def options(sink_class, **given):
        return BatchingOptions(**given).with_defaults_of(sink_class.batching_defaults)

    def build(sink, **given):
        letters = DeadLetterFile(FOLDER / "dead")
        spool = Spool(SpoolOptions(path=FOLDER / "spool")) if "spool" in sys.argv else None
        own = {"sink_name": "sqlite", "dead_letters": letters, "spool": spool}
        return BatchLogWriter(sink, options(type(sink), **given), **own)

    def opened(seconds):
        sink_class = sinks.load("sqlite")
        return sink_class.open(sink_class.Options(path=FOLDER / "usage.db", busy_timeout_s=seconds))
"""

FORGOTTEN = """
    async def main():
        stack = AsyncExitStack()
        sink = await stack.enter_async_context(opened(0.5))
        writer = build(sink, linger_s=LINGER_S)
        await writer.start()
        for _ in range(50):
            place = await writer.reserve()
            place.put(make_record(id=place.id))
            say("given", id=str(place.id))
        if STOPS:
            stopping = asyncio.ensure_future(writer.stop())
        while writer.stats().counts.in_flight < FLYING:
            await asyncio.sleep(0)
        main.writer, main.stack = writer, stack  # still there when the loop is gone

    with asyncio.Runner(loop_factory=LOOP) as runner:
        runner.run(main())
    say("end", **main.writer.stats().to_json())
"""

HEAVY = """
    TEXTS = "request_id api_key_id user_id route provider model endpoint error_code error_message".split()
    ROW = dict.fromkeys(TEXTS, "\\N{GRINNING FACE}" * 256)

    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if "kB" in line}

    async def main():
        async with opened(0.05) as sink:
            writer = build(sink, linger_s=0.01, max_block_s=0, max_queue_bytes=LIMIT)
            await writer.start()
            before = resident()["VmRSS"]
            refused = 0
            for number in range(OFFERED):
                place = await writer.reserve()
                if not isinstance(place, Place):
                    refused += 1
                    continue
                own = str(number)  # no two rows share their text
                row = {name: own + text[len(own) :] for name, text in ROW.items()}
                place.put(make_record(id=place.id, tags=json.dumps({own: "x" * 4000}), **row))
                assert writer.stats().queue_bytes <= LIMIT
                if number % 64 == 0:
                    await asyncio.sleep(0)
            say("full", refused=refused, grown=resident()["VmHWM"] - before, **writer.stats().to_json())
            await asyncio.to_thread(sys.stdin.readline)
            report = await writer.stop(60)
            say("end", grown=resident()["VmHWM"] - before, **report.to_json())

    asyncio.run(main())
"""
LIMIT = 32 * 1024 * 1024
OFFERED = 10_000
"""Of 13 KiB each, the most that the columns' bounds allow: four times what the bound lets in."""


FORGOTTEN_WHEN = pytest.mark.parametrize(
    ("loop", "linger_s", "flying", "stops"),
    [
        pytest.param("asyncio.new_event_loop", 3600, 0, False, id="queued"),
        pytest.param("asyncio.new_event_loop", 0, 1, False, id="in_flight"),
        pytest.param("asyncio.new_event_loop", 3600, 1, True, id="stopping"),
        pytest.param("uvloop.new_event_loop", 0, 1, False, id="in_flight_uvloop"),
    ],
)


@FORGOTTEN_WHEN
async def test_41_loop_closed_without_stop(script, locked, tmp_path, loop, linger_s, flying, stops) -> None:
    constants = f"\nLOOP = {loop}\nLINGER_S = {linger_s}\nFLYING = {flying}\nSTOPS = {stops}\n"
    program = dedent(PREAMBLE) + constants + dedent(FORGOTTEN)
    with locked(tmp_path / "usage.db"):
        async with script(program, str(tmp_path)) as process:
            assert await process.exit_status() == 0, process
    given = [line["id"] for line in process.all_of("given")]
    named = [each for line in process.all_of("rows_abandoned") for each in line["ids"]]
    assert len(given) == 50
    assert sorted(named) == sorted(given)
    (end,) = process.all_of("end")
    assert (end["state"], end["accepted"], end["abandoned"], end["unaccounted"]) == ("closed", 50, 50, 0)
    text = "\n".join(process.text)
    for complaint in ("never awaited", "was destroyed", "never retrieved", "Traceback", "Warning"):
        assert complaint not in text, text


@FORGOTTEN_WHEN
async def test_41_loop_closed_without_stop_leaves_the_rows_in_the_spool(
    script, locked, tmp_path, loop, linger_s, flying, stops
) -> None:
    constants = f"\nLOOP = {loop}\nLINGER_S = {linger_s}\nFLYING = {flying}\nSTOPS = {stops}\n"
    program = dedent(PREAMBLE) + constants + dedent(FORGOTTEN)
    with locked(tmp_path / "usage.db"):
        async with script(program, str(tmp_path), "spool") as process:
            assert await process.exit_status() == 0, process

    given = [line["id"] for line in process.all_of("given")]
    (end,) = process.all_of("end")
    assert (end["state"], end["accepted"], end["spooled"], end["unaccounted"]) == ("closed", 50, 50, 0)
    with closing(sqlite3.connect(tmp_path / "spool" / "instance-1" / "spool.db")) as connection:
        kept = [row_id for (row_id,) in connection.execute("SELECT row_id FROM rows")]
    assert sorted(kept) == sorted(given)
    text = "\n".join(process.text)
    for complaint in ("never awaited", "was destroyed", "never retrieved", "Traceback", "Warning"):
        assert complaint not in text, text


async def test_34_memory_bound_bytes(script, locked, tmp_path) -> None:
    program = f"{dedent(PREAMBLE)}\nLIMIT = {LIMIT}\nOFFERED = {OFFERED}\n{dedent(HEAVY)}"
    async with AsyncExitStack() as stack:
        with locked(tmp_path / "usage.db"):  # before the program can have stored a row
            process = await stack.enter_async_context(script(program, str(tmp_path)))
            full = await process.said("full")
        process.tell("the lock is gone")
        assert await process.exit_status() == 0, process
    (end,) = process.all_of("end")
    assert full["refused"] > OFFERED / 2
    assert full["accepted"] + full["refused"] == OFFERED
    assert full["queued"] + full["in_flight"] == full["accepted"]
    assert end["grown"] < 2 * LIMIT
    assert (end["committed"], end["abandoned"], end["unaccounted"]) == (full["accepted"], 0, 0)
