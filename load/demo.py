"""The proof behind `make demo`: real calls, SIGTERM in the middle of them, and then the rows are counted.

Starts a fake provider and the gateway, calls it from outside, stops it while calls run, and reads the rows
from the database file itself. Exit status 0 only if every promised call has exactly one row. Imports nothing
of the gateway's code, so that it cannot believe what the gateway believes.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import sys
from pathlib import Path

import aiohttp
from processes import ROOT, Child, ChildFailed, gateway, provider
from tally import Proof, read_rows
from traffic import Traffic

FOLDER = ROOT / ".demo"
DATABASE = FOLDER / "data" / "usage.db"
CALLS = 400
STOP_AFTER = 280
"""So many calls have ended when SIGTERM is sent; the later ones find a gateway that is going away."""
CLIENTS = 30
CALL_S = 40.0
EXIT_S = 40.0
WHOLE_S = 100.0
PROVIDER_FLAGS = ("--seed", "1", "--delay-ms", "40", "--jitter-sigma", "0.5", "--chunk-ms", "20")


async def prove() -> Proof:
    master_key = f"tg-{secrets.token_hex(16)}"
    print("Starting a fake provider and the gateway ...", flush=True)
    async with (
        provider(FOLDER, *PROVIDER_FLAGS) as provider_url,
        gateway(FOLDER, provider_url=provider_url, master_key=master_key) as (running, url),
    ):
        traffic = await send_traffic(url, master_key, running)
        print("All calls ended; waiting for the gateway to exit ...", flush=True)
        status = await running.exit_status(EXIT_S)
        report = await running.said("shutdown_report", timeout_s=1.0)
        seen = await calls_seen_by(provider_url)
    return Proof(
        calls=traffic.calls,
        interrupted=traffic.interrupted,
        failed_early=traffic.failed_early,
        rows=await asyncio.to_thread(read_rows, DATABASE),
        seen_by_provider=seen,
        exit_status=status,
        report=report,
    )


async def send_traffic(url: str, master_key: str, running: Child) -> Traffic:
    print(f"Sending {CALLS} calls, {CLIENTS} at a time ...", flush=True)
    async with aiohttp.ClientSession(
        base_url=url,
        headers={"Authorization": f"Bearer {master_key}"},
        timeout=aiohttp.ClientTimeout(total=CALL_S),
    ) as session:
        traffic = Traffic(session, running.stop, total=CALLS, stop_after=STOP_AFTER, clients=CLIENTS)
        await traffic.run()
    return traffic


async def calls_seen_by(provider_url: str) -> list[str]:
    """The request ids of the calls that reached the provider."""
    async with aiohttp.ClientSession() as session, session.get(f"{provider_url}/calls") as response:
        return [call["request_id"] for call in await response.json()]


def show(proof: Proof) -> None:
    print()
    for name, value in proof.table():
        print(f"  {name:<40}{value!s:>16}")
    report = {name: value for name, value in proof.report.items() if name not in ("time", "level", "logger")}
    print(f"\n{json.dumps(report)}\n")


async def demo() -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # kills the children, too
    async with asyncio.timeout(WHOLE_S):
        proof = await prove()
    show(proof)
    problems = proof.problems()
    for problem in problems:
        print(f"FAILED: {problem}")
    if not problems:
        print("Every promised call has exactly one row.")
    return 1 if problems else 0


def fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def main() -> int:
    fresh(FOLDER)
    try:
        return asyncio.run(demo())
    except (ChildFailed, FileNotFoundError) as error:
        print(f"FAILED: {error}")
    except TimeoutError:
        print(f"FAILED: not done in time; the logs are in {FOLDER}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("Stopped.")
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
