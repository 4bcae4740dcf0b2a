"""The gateway on 127.0.0.1:8000 with a fake provider behind it, until stopped. What `make run` starts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from processes import ROOT, Child, ChildFailed, gateway, provider

FOLDER = ROOT / ".run"
PORT = 8000
LOCAL_KEY = "tg-local-key-for-trying-out"
"""Opens nothing but a fake provider on this machine; GATEWAY_MASTER_KEY names another one."""

PASSED_ON = ("BUDGET_STRATEGY",)
"""Of the caller's variables, those that the gateway is to have: for trying budgets."""

GREETING = """
Tallygate is listening on {url} (log: {log}). Ctrl-C stops it. Try:

  curl -i {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H 'Content-Type: application/json' \\
    -d '{{"model": "local:fake", "messages": [{{"role": "user", "content": "Hello"}}]}}'

and then see its row:

  curl {url}/v1/usage -H "Authorization: Bearer {key}"
"""


async def serve() -> int:
    """Gives the gateway's exit status. Each Ctrl-C or SIGTERM reaches the gateway as a SIGTERM."""
    own_key = os.environ.get("GATEWAY_MASTER_KEY")
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    master_key = own_key or LOCAL_KEY
    print("Starting a fake provider and the gateway ...", flush=True)
    async with (
        provider(FOLDER) as provider_url,
        gateway(FOLDER, provider_url=provider_url, master_key=master_key, port=PORT, variables=variables) as (
            running,
            url,
        ),
    ):
        shown_key = "$GATEWAY_MASTER_KEY" if own_key else LOCAL_KEY
        print(GREETING.format(url=url, key=shown_key, log=FOLDER / "gateway.log"), flush=True)
        pass_signals_on(running)
        status = await running.exit_status()
        report = await running.said("shutdown_report", timeout_s=1.0)
        print(
            "Stopped:", ", ".join(f"{report[name]} {name}" for name in ("accepted", "committed", "abandoned"))
        )
        return status


def pass_signals_on(running: Child) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.stop)


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    try:
        return asyncio.run(serve())
    except ChildFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
