"""Which writer and which sink: the LOG_WRITER_STRATEGY grammar and the names of the sinks.

Takes the text of the configuration; gives a ``Strategy`` and, on demand, the class of the one sink that it
names. Never imports a sink that nobody asked for, so a driver has to be installed only by its user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Literal, TypeAlias, cast

from .errors import SinkDriverMissing, SinkNotFound, StrategyError
from .sink import LogSink

Kind: TypeAlias = Literal["batch", "single", "noop"]

DISTRIBUTION = "tallygate"
ENTRY_POINT_GROUP = "tallygate.sinks"
BUILT_IN: Mapping[str, str] = {
    "clickhouse": ".clickhouse:ClickHouseSink",
    "mongo": ".mongo:MongoSink",
    "memory": ".memory:MemorySink",
    "postgres": ".postgres:PostgresSink",
    "sqlite": ".sqlite:SqliteSink",
}
"""Name to ``module:Class``; a leading dot means a module of this package."""

_EXTRAS = frozenset({"postgres", "mongo", "clickhouse"})
_KINDS: Mapping[str, Kind] = {"batch": "batch", "single": "single"}
_RESERVED = frozenset({"batch", "single", "noop"})
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_PACKAGE = (__package__ or "backends").partition(".")[0]


@dataclass(frozen=True, slots=True)
class Strategy:
    """How rows travel, and to which sink. ``sink`` is None for ``noop`` alone."""

    kind: Kind
    sink: str | None

    def __str__(self) -> str:
        return self.kind if self.sink is None else f"{self.kind}:{self.sink}"


def parse_strategy(text: str, default_sink: str = "sqlite") -> Strategy:
    """The strategy that ``text`` spells: ``[batch:|single:]SINK``, ``noop``, or a bare ``batch`` or
    ``single``, which keeps ``default_sink``. Raises ``StrategyError``; whether a sink of that name exists
    is for ``SinkRegistry.load`` to say."""
    text = text.strip()
    if text == "noop":
        return Strategy("noop", None)
    if text in _KINDS:
        return Strategy(_KINDS[text], default_sink)
    prefix, colon, rest = text.partition(":")
    kind = _KINDS.get(prefix) if colon else "batch"
    sink = rest if colon else text
    if kind is None or sink in _RESERVED or not _NAME.fullmatch(sink):
        raise StrategyError(
            f"{text!r} is no log writer strategy; write [batch:|single:]SINK in lower case, or noop"
        )
    return Strategy(kind, sink)


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who says that ``target`` is the sink of this name."""

    owner: str
    target: str


class SinkRegistry:
    """The sinks by name: built in, registered, or declared by an installed distribution."""

    def __init__(self, built_in: Mapping[str, str] = BUILT_IN, group: str = ENTRY_POINT_GROUP) -> None:
        self._built_in = {name: _Claim(DISTRIBUTION, target) for name, target in built_in.items()}
        self._registered: dict[str, _Claim] = {}
        self._group = group

    def register(self, name: str, target: str) -> None:
        """Make the class ``target`` (``"module:Class"``) known as ``name`` without installing anything.
        Imports nothing. Raises ``StrategyError`` for a name that is taken or that the grammar cannot say."""
        _check_name(name, f"register({name!r}, {target!r})")
        if claims := self._claims().get(name):
            raise StrategyError(_clash(name, [*claims, _Claim("register()", target)]))
        self._registered[name] = _Claim("register()", target)

    def names(self) -> tuple[str, ...]:
        """Every known name, sorted. Imports nothing."""
        return tuple(sorted(self._claims()))

    def load(self, name: str) -> type[LogSink]:
        """The class of the sink ``name``; imports its module, and no other sink's.

        Raises ``SinkNotFound``, ``SinkDriverMissing``, or ``StrategyError`` when two owners claim the name
        or the class is not where its owner says. May be repeated.
        """
        all_claims = self._claims()
        claims = all_claims.get(name)
        if not claims:
            known = ", ".join(sorted(all_claims))
            raise SinkNotFound(f"no sink is called {name!r}; there are: {known}")
        if len(claims) > 1:
            raise StrategyError(_clash(name, claims))
        return _import(name, claims[0])

    def _claims(self) -> dict[str, list[_Claim]]:
        """Read afresh each time: it happens once or twice in a process, and never goes stale."""
        claims = {name: [claim] for name, claim in {**self._built_in, **self._registered}.items()}
        for point in entry_points(group=self._group):
            owner = point.dist.name if point.dist else "an unnamed distribution"
            _check_name(point.name, owner)
            claim = _Claim(owner, point.value)
            others = claims.setdefault(point.name, [])
            if claim not in others:
                others.append(claim)
        return claims


def _check_name(name: str, owner: str) -> None:
    if name in _RESERVED or not _NAME.fullmatch(name):
        raise StrategyError(
            f"{name!r} cannot be the name of a sink ({owner}): batch, single and noop are words of the "
            "grammar, and a name is a lower-case letter followed by lower-case letters, digits, _ or -"
        )


def _clash(name: str, claims: list[_Claim]) -> str:
    owners = " and ".join(f"{claim.owner} ({claim.target})" for claim in claims)
    return f"the sink name {name!r} is claimed by {owners}; remove one of them"


def _import(name: str, claim: _Claim) -> type[LogSink]:
    module_name, _, class_name = claim.target.partition(":")
    try:
        module = import_module(module_name, __package__)
    except ImportError as error:
        raise _explained(error, name, claim) from error
    found = getattr(module, class_name.strip(), None) if class_name else None
    if not isinstance(found, type):
        raise StrategyError(f"the sink {name!r} of {claim.owner} is no class at {claim.target}")
    return cast("type[LogSink]", found)


def _explained(error: ImportError, name: str, claim: _Claim) -> Exception:
    """A missing driver as a sentence; a module of our own that is missing stays what it is: a bug."""
    missing = error.name or ""
    if not missing or missing.partition(".")[0] == _PACKAGE:
        return error
    if missing == claim.target.partition(":")[0]:
        return StrategyError(f"the sink {name!r} of {claim.owner} has no module {missing!r}")
    return SinkDriverMissing(f"the sink {name!r} needs {missing!r}, {_remedy(name, claim)}")


def _remedy(name: str, claim: _Claim) -> str:
    if claim.owner != DISTRIBUTION:
        return f"which cannot be imported: install what {claim.owner} asks for"
    if name in _EXTRAS:
        return f"which is not installed: pip install '{DISTRIBUTION}[{name}]'"
    return "which this Python was built without"


sinks = SinkRegistry()
"""The registry that the gateway uses."""
