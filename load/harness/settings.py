"""What a load run is to be like, from environment variables.

The names of the first part are those of the pull request that this project grew from. Times in the unit that
the name says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

SINKS = ("sqlite", "postgres", "mongo", "clickhouse")
STRATEGIES = ("batch", "single")
BUDGETS = ("disabled", "for_update", "cas")
_SCHEMES = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "mongodb": "mongo",
    "mongodb+srv": "mongo",
    "http": "clickhouse",
    "https": "clickhouse",
}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class SettingsWrong(Exception):
    """A variable that cannot be used; the message says which, and what would be right."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``duration_s`` is that of each measured scenario; ``rates`` are calls per second of k6's open loops,
    ``rate`` those of the scenarios in which something happens. ``database_url`` names a server to use instead
    of one started for the run."""

    gateway_port: int = 4000
    fake_port: int = 9999
    workers: int = 1
    vus: int = 100
    duration_s: float = 30.0
    warmup_s: float = 5.0
    rates: tuple[int, ...] = (50, 150)
    rate: int = 100
    budget_strategy: str = "disabled"
    strategy: str = "batch"
    sink: str = "sqlite"
    rng_seed: int = 42
    fake_delay_ms: float = 200.0
    fake_jitter_sigma: float = 0.4
    fake_delay_min_ms: float = 20.0
    fake_delay_max_ms: float = 3000.0
    results_dir: Path = Path(".load/results")
    database_url: str | None = None

    @property
    def log_writer(self) -> str:
        """As the gateway takes it."""
        return f"{self.strategy}:{self.sink}"

    def told(self) -> dict[str, Any]:
        """For the result: everything but where things are."""
        hidden = ("results_dir", "database_url")
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in hidden}
        return {**values, "rates": list(self.rates), "own_server": self.database_url is None}


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Raises ``SettingsWrong``."""
    readers: dict[str, tuple[str, Callable[[str], Any]]] = {
        "GATEWAY_PORT": ("gateway_port", _port),
        "FAKE_PORT": ("fake_port", _port),
        "WORKERS": ("workers", _positive),
        "VUS": ("vus", _positive),
        "DURATION": ("duration_s", seconds),
        "WARMUP": ("warmup_s", seconds),
        "RATES": ("rates", _rates),
        "RATE": ("rate", _positive),
        "BUDGET_STRATEGY": ("budget_strategy", _budgets),
        "RNG_SEED": ("rng_seed", int),
        "FAKE_DELAY_MS": ("fake_delay_ms", float),
        "FAKE_JITTER_SIGMA": ("fake_jitter_sigma", float),
        "FAKE_DELAY_MIN_MS": ("fake_delay_min_ms", float),
        "FAKE_DELAY_MAX_MS": ("fake_delay_max_ms", float),
        "RESULTS_DIR": ("results_dir", Path),
        "TEST_DATABASE_URL": ("database_url", str),
    }
    given: dict[str, Any] = {}
    for name, (field, read) in readers.items():
        if text := environment.get(name, "").strip():
            given[field] = _read(name, text, read)
    wanted = environment.get("LOG_WRITER_STRATEGY", "").strip().lower()
    given["strategy"], given["sink"] = log_writer_of(wanted, given.get("database_url"))
    return replace(Settings(), **given)


def log_writer_of(wanted: str, database_url: str | None = None) -> tuple[str, str]:
    """Strategy and sink. Without a sink's name the URL's scheme decides, else it is sqlite. Raises
    ``SettingsWrong``."""
    strategy, colon, sink = wanted.partition(":")
    if strategy not in STRATEGIES and not colon:
        strategy, sink = "batch", strategy
    sink = sink or _sink_of(database_url)
    if strategy not in STRATEGIES or sink not in SINKS:
        some = f"[batch:|single:] and one of {', '.join(SINKS)}"
        raise SettingsWrong(f"LOG_WRITER_STRATEGY={wanted}: what can be counted afterwards is {some}")
    if database_url and sink != _sink_of(database_url):
        raise SettingsWrong(
            f"TEST_DATABASE_URL is none of {sink}, which LOG_WRITER_STRATEGY={wanted} asks for"
        )
    return strategy, sink


def _sink_of(database_url: str | None) -> str:
    scheme = (database_url or "").partition("://")[0]
    return _SCHEMES.get(scheme, "sqlite")


def seconds(text: str) -> float:
    """``30s``, ``1m30s``, ``500ms`` or a bare number. Raises ``ValueError``."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        raise ValueError("a duration is written 30s, 1m30s or 500ms")
    return sum(
        float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", text)
    )


def _read(name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise SettingsWrong(f"{name}={text}: {error}") from error


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError("it has to be at least 1")
    return number


def _port(text: str) -> int:
    if not 0 <= (number := int(text)) < 65536:
        raise ValueError("a port is 0 (any free one) to 65535")
    return number


def _budgets(text: str) -> str:
    if text.lower() not in BUDGETS:
        raise ValueError(f"it is one of {', '.join(BUDGETS)}")
    return text.lower()


def _rates(text: str) -> tuple[int, ...]:
    return tuple(_positive(each) for each in text.split(","))
