"""The gateway in its variants, each with a place, a configuration and a key of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from processes import OURS, START_S, Child, child

from .cores import on
from .provider import MODELS
from .servers import KEY, Server

PRICE = {"input_per_million": 0.15, "output_per_million": 0.60, "cached_input_per_million": 0.075}
BUDGET_USD = 1000
STORE_S = 30
"""Seconds. With a budget, calls that all come at once want one row, one after the other."""


@dataclass(frozen=True)
class Variant:
    """Settings that differ. ``has_key``: called with a user's key, else with the master key. ``python`` is
    that of another checkout, to compare with."""

    name: str
    writer: str = "batch:sqlite"
    spool: Mapping[str, Any] = field(default_factory=dict)
    budgets: str = "disabled"
    store: str = "sqlite"
    has_key: bool = True
    workers: int = 1
    python: str = sys.executable

    @property
    def wants_postgres(self) -> bool:
        """Whether anything of it is kept in PostgreSQL."""
        return self.store == "postgres" or self.writer.endswith(":postgres")


@dataclass(frozen=True)
class Gateway:
    """``server`` is what calls go to; ``child`` and ``folder`` are for whoever stops it and counts."""

    server: Server
    child: Child
    folder: Path


@asynccontextmanager
async def gateway(
    variant: Variant, folder: Path, cores: frozenset[int], provider_url: str, dsn: str = ""
) -> AsyncIterator[Gateway]:
    """A running one, its key made. ``dsn`` is that of a PostgreSQL database of its own, if it wants one."""
    config = written(configuration(variant, folder, provider_url, dsn), folder)
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    flags = ("--config", str(config), "--port", "0", "--workers", str(variant.workers))
    command = on(cores, variant.python, "-m", "gateway", "serve", *flags)
    async with child("gateway", *command, env=env, folder=folder) as running:
        url = str((await running.said("listening", START_S))["url"])
        key = await make_key(url) if variant.has_key else KEY
        headers = {"Authorization": f"Bearer {key}"}
        yield Gateway(Server(variant.name, url, running.pid, "local:fake", headers), running, folder)


def written(settings: Mapping[str, Any], folder: Path) -> Path:
    """A file with ``settings``, in a ``folder`` that is made for it."""
    folder.mkdir()
    path = folder / "gateway.yml"
    path.write_text(json.dumps(settings))  # JSON is YAML, too
    return path


def configuration(variant: Variant, folder: Path, provider_url: str, dsn: str) -> dict[str, Any]:
    """What the gateway reads: authentication, a price, the writer."""
    local = {"type": "openai", "base_url": f"{provider_url}/v1", "api_key": "none"}
    sinks: dict[str, Any] = {"sqlite": {"path": str(folder / "usage.db")}}
    if variant.writer.endswith(":postgres"):
        sinks["postgres"] = {"dsn": dsn}
    return {
        "master_key": KEY,
        "log_writer_strategy": variant.writer,
        "budget_strategy": variant.budgets,
        "sinks": sinks,
        "spool": {"path": str(folder / "spool"), **variant.spool},
        "store": {
            "url": dsn if variant.store == "postgres" else f"sqlite:///{folder / 'gateway.db'}",
            "timeout_s": STORE_S,
        },
        "providers": {"local": local},
        "pricing": {f"local:{model}": PRICE for model in MODELS},
    }


async def make_key(url: str) -> str:
    """A key of a user with a budget that lasts."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def post(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
            async with session.post(f"{url}{path}", json=body) as response:
                assert response.status == 201, await response.text()
                return dict(await response.json())

        budget = await post("/v1/budgets", {"max_usd": BUDGET_USD, "reset_every": None})
        await post("/v1/users", {"user_id": "bench", "budget_id": budget["id"]})
        return str((await post("/v1/keys", {"user_id": "bench"}))["key"])
