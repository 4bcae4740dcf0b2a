"""The gateway's configuration, whole and checked: environment over file over default.

Takes a path and the environment; gives ``Settings``, or one ``ConfigurationError`` whose text is one line.
Asks no server and opens nothing but the file. Imports the driver of the chosen sink, and of no other one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from backends import (
    BackendsError,
    LogSink,
    StoreNotFound,
    Strategy,
    StrategyError,
    load_store,
    parse_strategy,
    sinks,
)

from .config_errors import ConfigurationError, KeyPath, Origins, from_pydantic, nearest
from .config_file import ConfigFile, read_config_file
from .config_schema import fields_of, known_keys, straighten
from .effective import effective_settings
from .environment import CONFIG_VARIABLE, SWITCHES, Variable, apply, read_environment
from .model_checks import check_models
from .providers.any_llm.opening import require_sdk
from .sections import (
    STRATEGY_GRAMMAR,
    CooldownSettings,
    DeadLetterSettings,
    ModelSettings,
    PriceSettings,
    ProviderSettings,
    Settings,
    ShutdownSettings,
    StoreSettings,
    StreamSettings,
    sink_options,
)

__all__ = [
    "ConfigurationError",
    "CooldownSettings",
    "DeadLetterSettings",
    "ModelSettings",
    "PriceSettings",
    "ProviderSettings",
    "Settings",
    "ShutdownSettings",
    "StoreSettings",
    "StreamSettings",
    "effective_settings",
    "load_settings",
    "sink_options",
]

_STRATEGY: KeyPath = ("log_writer_strategy",)
_Model = TypeVar("_Model", bound=BaseModel)

log = logging.getLogger(__name__)


def load_settings(
    path: Path | None, environ: Mapping[str, str], arguments: Mapping[str, Any] | None = None
) -> Settings:
    """The settings of the file at ``path`` (else of ``GATEWAY_CONFIG``, else of no file), of ``environ``,
    which beats the file, and of ``arguments``, the command line's options by key, which beat both.

    Raises ``ConfigurationError``. Warns of variables and prices that mean nothing. May be repeated.
    """
    if path is None and (named := environ.get(CONFIG_VARIABLE)):
        path = Path(named)
    file = ConfigFile() if path is None else read_config_file(path, environ)
    settings = _Loading(file, read_environment(environ), arguments or {}).settings()
    _warn_of_idle_prices(settings)
    return settings


class _Loading:
    """One reading of the configuration: the strategy first, then its sink, which knows keys of its own, then
    everything else."""

    def __init__(self, file: ConfigFile, variables: list[Variable], arguments: Mapping[str, Any]) -> None:
        self._origins = Origins(file.name, file.lines)
        self._values = _with_lower_case_switches(file.values, self._origins)
        self._variables = variables
        self._arguments = arguments

    def settings(self) -> Settings:
        """The checked whole. Raises ``ConfigurationError``. Once only."""
        strategy = self._strategy()
        sink = self._load(strategy.sink) if strategy.sink else None
        schema = self._schema(strategy.sink, sink)
        apply(self._variables, self._values, schema, self._origins)
        self._apply_arguments()
        values = straighten(self._values, schema, (), self._origins) | {"log_writer_strategy": strategy}
        known = known_keys(schema, values)
        settings = self._checked(Settings, values, known)
        self._check_sink_names(settings, known)
        self._check_store(settings)
        check_models(settings, self._origins)
        require_sdk(settings.providers, self._origins)
        if sink is None or strategy.sink is None:
            return settings
        own = settings.sinks.get(strategy.sink, {})
        self._checked(sink.Options, own, known, ("sinks", strategy.sink))
        on_full = "block" if settings.spool.mode == "off" else "spill"
        batching = settings.batching.with_defaults_of({**sink.batching_defaults, "on_full": on_full})
        return settings.model_copy(update={"batching": batching})

    def _strategy(self) -> Strategy:
        """A bare ``batch`` or ``single`` in the environment keeps the sink of the file."""
        written = Strategy("batch", "sqlite")
        if "log_writer_strategy" in self._values:
            written = self._parsed(self._values["log_writer_strategy"], "sqlite")
        variable = next((each for each in self._variables if each.parts == _STRATEGY), None)
        if variable is None:
            return written
        self._origins.note(_STRATEGY, variable.name)
        return self._parsed(variable.text, written.sink or "sqlite")

    def _parsed(self, text: Any, default_sink: str) -> Strategy:
        try:
            return parse_strategy(text if isinstance(text, str) else "", default_sink)
        except StrategyError:  # its text quotes what was written, which may be a DSN by mistake
            raise self._origins.error(_STRATEGY, *STRATEGY_GRAMMAR) from None

    def _load(self, name: str) -> type[LogSink]:
        try:
            return sinks.load(name)
        except BackendsError as error:
            raise self._origins.error(_STRATEGY, str(error)) from error

    def _schema(self, chosen: str | None, sink: type[LogSink] | None) -> dict[str, Any]:
        """Other sinks than the chosen one are known by name only."""
        by_name: dict[str, Any] = dict.fromkeys(self._sink_names(), Any)
        if chosen is not None and sink is not None:
            by_name[chosen] = sink.Options
        return {**(fields_of(Settings) or {}), "sinks": by_name}

    def _sink_names(self) -> tuple[str, ...]:
        try:
            return sinks.names()
        except BackendsError as error:
            raise self._origins.error(("sinks",), str(error)) from error

    def _apply_arguments(self) -> None:
        for key, value in self._arguments.items():
            self._values[key] = value
            self._origins.note((key,), f"--{key}")

    def _checked(
        self, model: type[_Model], values: Any, known: Mapping[KeyPath, tuple[str, ...]], at: KeyPath = ()
    ) -> _Model:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            # pydantic's own text may show a secret, so it must not be printed as the cause
            raise from_pydantic(error, self._origins, known, at) from None

    def _check_sink_names(self, settings: Settings, known: Mapping[KeyPath, tuple[str, ...]]) -> None:
        names = known.get(("sinks",), ())
        for name in settings.sinks:
            if name not in names:
                raise self._origins.error(("sinks", name), "is not a known sink", nearest(name, names))

    def _check_store(self, settings: Settings) -> None:
        url = settings.store.url.get_secret_value()
        try:
            offered = load_store(url).budget_strategies
        except StoreNotFound as error:
            raise self._origins.error(("store", "url"), str(error)) from None
        if settings.budget_strategy not in ("disabled", *offered):
            right = f"write {' or '.join(sorted(offered))}, or disabled"
            raise self._origins.error(("budget_strategy",), "is not what this store can do", right)
        if settings.workers > 1 and url.startswith("memory:"):
            wrong = "is a memory that each of several workers has for itself"
            raise self._origins.error(("store", "url"), wrong, "name a database, or have one worker")


def _with_lower_case_switches(values: Mapping[str, Any], origins: Origins) -> dict[str, Any]:
    """The switches may be written in the file as they are in the environment."""
    lower = dict(values)
    for switch in SWITCHES:
        upper = switch.upper()
        if upper not in lower:
            continue
        if switch in lower:
            raise origins.error((upper,), f"is written as {switch} too", "keep one of the two")
        lower[switch] = lower.pop(upper)
        origins.note((switch,), origins.of((upper,)))
    return lower


def _warn_of_idle_prices(settings: Settings) -> None:
    """A misspelt provider would leave every cost empty, and nobody would know why."""
    for name in settings.pricing:
        if name.partition(":")[0] not in settings.providers:
            log.warning("price_without_provider", extra={"key": f"pricing.{name}"})
