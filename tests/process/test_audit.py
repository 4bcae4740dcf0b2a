"""``tallygate logs audit`` and ``logs spool`` as somebody runs them, beside a real gateway and after it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from contextlib import closing

HASTY = {"drain_s": 0.3, "pump_s": 0.1, "stop_deadline_s": 0.6, "cancel_grace_s": 0.2}
CALLS = 12


def delete(database, seq):
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        assert connection.execute("DELETE FROM usage_logs WHERE seq = ?", [seq]).rowcount == 1


async def audited(run, folder):
    """Exit status, totals, and the findings by kind."""
    config = ("--config", str(folder / "gateway.yml"))
    status, out, err = await run("logs", "audit", "--format", "json", *config)
    assert status in (0, 1), err
    found = json.loads(out)
    return status, found["totals"], {each["finding"]: each for each in found["findings"]}


class Calls:
    """Several clients that call one after the other until they are told to end."""

    def __init__(self, gateway) -> None:
        self._gateway = gateway
        self._is_over = False
        self._clients = [asyncio.ensure_future(self._client()) for _ in range(4)]

    async def end(self) -> int:
        """How many answers they had."""
        self._is_over = True
        return sum(await asyncio.gather(*self._clients))

    async def _client(self) -> int:
        answered = 0
        while not self._is_over:
            await self._gateway.answered()
            answered += 1
        return answered


async def test_every_row_deleted_by_hand_is_named_with_boot_and_number(serve, run, tmp_path) -> None:
    async with serve() as gateway:
        for _ in range(CALLS):
            await gateway.answered()
        assert await gateway.stop() == 0
        boot_id = gateway.report["boot_id"]
        status, totals, findings = await audited(run, tmp_path)
        assert (status, findings) == (0, {})
        assert totals["boots"] == 1 and totals["stored"] == totals["numbers"] == CALLS

        delete(gateway.database, 5)
        status, _, findings = await audited(run, tmp_path)
        assert status == 1 and findings.keys() == {"missing"}
        assert (findings["missing"]["boot_id"], findings["missing"]["numbers"]) == (boot_id, "5")

        delete(gateway.database, CALLS)
        status, out, err = await run("logs", "audit", "--config", str(tmp_path / "gateway.yml"))
        assert (status, err) == (1, "")
        lines = [line for line in out.splitlines() if line.startswith(boot_id)]
        assert [line.split()[2:5] for line in lines] == [
            ["missing", "1", "5"],
            ["missing_tail", "1", f"{CALLS}"],
        ]
        assert "2 missing" in out.splitlines()[-1]
        gateway.is_first = False  # for its judge: not all rows of the file are left


async def test_of_a_killed_gateway_the_tail_is_unknown(serve_unready, gateway_of, run, tmp_path) -> None:
    async with serve_unready() as process, gateway_of(process) as gateway:
        for _ in range(CALLS):
            await gateway.answered()
        await gateway.ledger_shows(committed=CALLS)
        boot_id = (await gateway.ledger())["boot_id"]
        process.send(signal.SIGKILL)
        await process.exit_status()

        status, totals, findings = await audited(run, tmp_path)

        assert status == 0 and totals["missing"] == 0
        assert findings["tail_unknown"]["boot_id"] == boot_id
        assert findings["tail_unknown"]["remark"] == f"never closed, tail unknown after {CALLS}"
        delete(gateway.database, 3)
        assert (await audited(run, tmp_path))[0] == 1


async def test_rows_that_only_the_spool_has_are_not_missing(serve, run, locked, tmp_path) -> None:
    spool = {"mode": "spill", "path": str(tmp_path / "data" / "spool")}
    async with serve(spool=spool, shutdown=HASTY) as gateway:
        await gateway.answered()
        await gateway.ledger_shows(committed=1)
        with locked(gateway.database):
            for _ in range(5):
                await gateway.answered()
            assert await gateway.stop() == 0

        status, totals, _ = await audited(run, tmp_path)

        assert (status, totals["stored"], totals["spooled"], totals["missing"]) == (0, 1, 5, 0)
        config = ("--config", str(tmp_path / "gateway.yml"))
        status, out, err = await run("logs", "spool", "--format", "json", *config)
        assert (status, err) == (0, "")
        (file,) = [each for each in json.loads(out)["data"] if each["kind"] == "spool"]
        assert (file["rows"], file["owner"], file["damaged"], file["trouble"]) == (5, None, 0, None)
        status, out, _ = await run("logs", "spool", *config)
        assert status == 0 and out.splitlines()[1].split()[:4] == ["spool", file["folder"], "-", "5"]


async def test_an_audit_beside_a_journalling_gateway_accuses_nobody(serve, run, tmp_path) -> None:
    spool = {"mode": "write_ahead", "path": str(tmp_path / "data" / "spool")}
    async with serve(spool=spool) as gateway:
        calls = Calls(gateway)
        for _ in range(3):
            status, totals, findings = await audited(run, tmp_path)
            assert status == 0 and totals["missing"] == 0
            assert findings.keys() == {"running"}
        answered = await calls.end()
        assert await gateway.stop() == 0
        status, totals, findings = await audited(run, tmp_path)
        assert (status, findings, totals["numbers"]) == (0, {}, answered)


async def test_an_audit_without_a_sink_to_ask_is_trouble(run, configuration, tmp_path) -> None:
    status, out, err = await run("logs", "audit", "--config", str(configuration()))

    assert (status, out) == (2, "")
    assert "schema_missing" in err
