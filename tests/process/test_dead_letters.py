"""Dead letters with the real command: refused, listed, mended, sent again, with a gateway and without."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from contextlib import closing

BAD = "bad"
COMMAND = "import sys\nfrom gateway.cli import main\nsys.exit(main(sys.argv[1:]))"


def change(database, sql):
    with closing(sqlite3.connect(database, isolation_level=None, timeout=20)) as connection:
        connection.execute(sql)


def poison(database):
    """The table refuses rows of a user from now on."""
    change(
        database,
        "CREATE TRIGGER refuse BEFORE INSERT ON usage_logs "
        f"WHEN NEW.request_id LIKE '%{BAD}' BEGIN SELECT RAISE(ABORT, 'not that one'); END",
    )


def mend(database):
    change(database, "DROP TRIGGER refuse")


async def buried(gateway):
    """One row in the sink, and one, whose id this is, in the dead letters."""
    await gateway.answered()
    await gateway.ledger_shows(committed=1)
    poison(gateway.database)
    async with gateway.chat(name=BAD) as response:
        await response.read()
        row_id = str(gateway.promised(response))
    await gateway.ledger_shows(committed=1, dead_lettered=1)
    return row_id


async def letters(run, config):
    status, out, err = await run("logs", "dead-letters", "--format", "jsonl", "--config", config)
    assert (status, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


async def test_a_refused_row_is_listed_and_sent_again_beside_the_running_gateway(serve, run, tmp_path):
    config = str(tmp_path / "gateway.yml")
    async with serve() as gateway:
        row_id = await buried(gateway)
        await gateway.is_degraded("dead_letters")
        (letter,) = await letters(run, config)
        assert (letter["row_id"], letter["sink"], letter["is_marked"]) == (row_id, "sqlite", False)
        assert letter["code"] == "SQLITE_CONSTRAINT_TRIGGER"

        mend(gateway.database)
        status, out, err = await run("logs", "replay", "--all", "--config", config)

        assert (status, err) == (0, ""), out
        await gateway.ledger_shows(committed=2, dead_lettered=0, accepted=2, recovered=0)
        assert await letters(run, config) == []
        async with gateway.session.get("/health/readiness") as response:
            assert (await response.json())["degraded"] == []
        async with gateway.session.get("/metrics") as response:
            assert 'gateway_log_rows{state="dead_lettered"} 0' in (await response.text())
        assert sum(str(row["id"]) == row_id for row in gateway.rows()) == 1

        assert (await run("logs", "replay", "--all", "--config", config))[0] == 0
        await gateway.ledger_shows(committed=2, duplicates=0, dead_lettered=0, accepted=2)
        assert await gateway.stop() == 0


async def test_without_a_gateway_the_command_delivers_itself(serve, run, tmp_path):
    config = str(tmp_path / "gateway.yml")
    async with serve() as gateway:
        row_id = await buried(gateway)
        assert await gateway.stop() == 0
        assert gateway.report["dead_lettered"] == 1

    status, out, _ = await run("logs", "replay", "--all", "--config", config)
    assert (status, "1 dead letter refused again" in out) == (1, True)
    mend(gateway.database)
    for _ in range(2):
        status, out, err = await run("logs", "replay", "--all", "--config", config)
        assert (status, err) == (0, ""), out

    assert [str(row["id"]) for row in gateway.rows()].count(row_id) == 1
    async with serve() as gateway:
        await gateway.ledger_shows(accepted=0, recovered=0, dead_lettered=0)
        assert await gateway.stop() == 0


async def test_letters_of_a_killed_gateway_count_in_the_next_one_and_a_mark_is_heeded_there(
    serve,
    serve_unready,
    gateway_of,
    run,
    tmp_path,
):
    config = str(tmp_path / "gateway.yml")
    async with serve_unready() as process, gateway_of(process) as killed:
        row_id = await buried(killed)
        killed.process.send(signal.SIGKILL)
        await killed.exits()

    async with serve() as gateway:
        await gateway.ledger_shows(accepted=1, recovered=1, dead_lettered=1)
        mend(gateway.database)
        assert (await run("logs", "replay", "--id", row_id, "--config", config))[0] == 0
        await gateway.ledger_shows(accepted=1, recovered=1, dead_lettered=0, committed=1)
        assert await gateway.stop() == 0
    assert [str(row["id"]) for row in gateway.rows()].count(row_id) == 1


async def test_the_end_that_the_sink_was_not_told_of_is_told_by_the_next_run(serve, locked, tmp_path):
    stopping = {"grace_s": 30, "stop_deadline_s": 1, "cancel_grace_s": 1}
    async with serve(shutdown=stopping) as gateway:
        await gateway.answered()
        await gateway.ledger_shows(committed=1)
        with locked(gateway.database):
            await gateway.answered()
            assert await gateway.stop() == 3
        boot_id = gateway.report["boot_id"]
    with closing(sqlite3.connect(gateway.database)) as file:
        told = "SELECT last_seq FROM usage_boots WHERE boot_id = ?"
        assert file.execute(told, (boot_id,)).fetchone() == (None,)

    async with serve() as second:
        await second.ledger_shows(accepted=0)
        await second.answered()
        await second.ledger_shows(committed=1)
        assert await second.stop() == 0

    with closing(sqlite3.connect(gateway.database)) as file:
        assert file.execute(told, (boot_id,)).fetchone() == (2,)


def removal_hangs(root):
    """Whoever removes a letter from now on is at it for ever; so a test can kill it there."""
    numbers = ",".join(["(1)"] * 10_000)
    for statement in (
        "CREATE TABLE slow (n)",
        f"INSERT INTO slow VALUES {numbers}",
        "CREATE TRIGGER hang BEFORE DELETE ON letters "
        "BEGIN SELECT count(*) FROM slow a, slow b, slow c, slow d; END",
    ):
        change(root / "instance-1" / "letters.db", statement)


def removal_goes_on(root):
    change(root / "instance-1" / "letters.db", "DROP TRIGGER hang")


async def stored(gateway, row_id):
    """Returns once the sink has the row."""
    async with asyncio.timeout(20):
        while row_id not in [str(row["id"]) for row in await asyncio.to_thread(gateway.rows)]:
            pass


async def test_a_gateway_killed_between_storing_a_row_again_and_removing_its_letter_stores_nothing_twice(
    serve, serve_unready, gateway_of, run, tmp_path
):
    root, config = tmp_path / "data" / "spool-dead", str(tmp_path / "gateway.yml")
    async with serve_unready() as process, gateway_of(process) as killed:
        row_id = await buried(killed)
        mend(killed.database)
        removal_hangs(root)
        assert (await run("logs", "replay", "--all", "--config", config))[0] == 0
        await stored(killed, row_id)
        killed.process.send(signal.SIGKILL)
        await killed.exits()
    removal_goes_on(root)

    async with serve() as gateway:
        await gateway.ledger_shows(accepted=1, recovered=1, committed=0, duplicates=1, dead_lettered=0)
        assert await letters(run, config) == []
        assert await gateway.stop() == 0
    assert [str(row["id"]) for row in gateway.rows()].count(row_id) == 1


async def test_a_replay_killed_between_storing_a_row_and_removing_its_letter_may_be_repeated(
    serve, script, run, tmp_path
):
    root, config = tmp_path / "data" / "spool-dead", str(tmp_path / "gateway.yml")
    async with serve() as gateway:
        row_id = await buried(gateway)
        assert await gateway.stop() == 0
    mend(gateway.database)
    removal_hangs(root)
    async with script(COMMAND, "logs", "replay", "--all", "--config", config) as process:
        await stored(gateway, row_id)
        process.send(signal.SIGKILL)
        await process.exit_status()
    removal_goes_on(root)
    assert len(await letters(run, config)) == 1

    status, out, err = await run("logs", "replay", "--all", "--config", config)

    assert (status, err) == (0, ""), out
    assert await letters(run, config) == []
    assert [str(row["id"]) for row in gateway.rows()].count(row_id) == 1
