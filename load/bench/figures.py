"""Figures of several rounds, and what is made of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

SATURATED = 0.95
"""A process that used so much of its core could not have done more."""


@dataclass(frozen=True)
class Rate:
    """What a server did in one round. ``busy`` is the part of its core that it used, ``load_busy`` that
    of theirs which load generator, provider and databases used."""

    per_s: float
    per_cpu_s: float
    busy: float
    load_busy: float
    rss_bytes: int


@dataclass(frozen=True)
class Ratio:
    """``by`` says which figures were compared: calls per second, or per CPU second."""

    value: float
    by: str


def per_s(rate: Rate) -> float:
    return rate.per_s


def per_cpu_s(rate: Rate) -> float:
    return rate.per_cpu_s


def busy(rate: Rate) -> float:
    return rate.busy


def load_busy(rate: Rate) -> float:
    return rate.load_busy


def middle(rates: Sequence[Rate], figure: Callable[[Rate], float]) -> float:
    """The median of one figure."""
    return median(figure(each) for each in rates)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' own ratios: a slow moment of the machine is in both or counts once."""
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def is_saturated(rates: Sequence[Rate]) -> bool:
    """Whether the server was what could do no more, and not the load generator."""
    return middle(rates, busy) >= SATURATED


def against(ours: Sequence[Rate], theirs: Sequence[Rate]) -> Ratio:
    """Calls per second where both servers had their core full; else calls per CPU second, which do not
    depend on who waited for whom."""
    figure, by = per_s, "calls/s"
    if not (is_saturated(ours) and is_saturated(theirs)):
        figure, by = per_cpu_s, "calls per CPU second"
    return Ratio(paired([figure(each) for each in ours], [figure(each) for each in theirs]), by)


def nearest_rank(ascending: Sequence[float], part: float) -> float:
    """The smallest value with at least ``part`` of all at or below it."""
    return ascending[math.ceil(part * len(ascending)) - 1]
