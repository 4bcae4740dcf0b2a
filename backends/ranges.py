"""Whole numbers as ranges, for numbers that mostly follow each other: ``1-9,12`` says a lot in little room.

Pure; knows nothing of rows or boots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeAlias

Span: TypeAlias = tuple[int, int]
"""The first and the last number of a range."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of whole numbers. ``spans`` are in order, and neither meet nor touch."""

    spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """The set of ``numbers``, in any order, each as often as it likes."""
        return cls.covering((number, number) for number in numbers)

    @classmethod
    def covering(cls, spans: Iterable[Span]) -> Self:
        """Every number that is in any of ``spans``, in any order; one that ends before it begins is empty."""
        joined: list[list[int]] = []
        for first, last in sorted(spans):
            if last < first:
                continue
            if joined and first <= joined[-1][1] + 1:
                joined[-1][1] = max(joined[-1][1], last)
            else:
                joined.append([first, last])
        return cls(tuple((first, last) for first, last in joined))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The set that ``str`` wrote as ``text``. Raises ``ValueError`` for anything else."""
        return cls.covering(map(_span, text.split(","))) if text else cls()

    def __str__(self) -> str:
        return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in self.spans)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.spans:
            yield from range(first, last + 1)

    def __or__(self, other: Self) -> Self:
        return type(self).covering((*self.spans, *other.spans))

    def __sub__(self, other: Self) -> Self:
        return type(self)(tuple(_less(self.spans, other.spans)))

    def __and__(self, other: Self) -> Self:
        return self - (self - other)

    @property
    def last(self) -> int:
        """The greatest number; 0 of an empty set."""
        return self.spans[-1][1] if self.spans else 0


def _span(text: str) -> Span:
    first, dash, last = text.partition("-")
    span = int(first), int(last if dash else first)
    if span[1] < span[0] or span[0] < 0:
        raise ValueError(f"{text!r} is no range")
    return span


def _less(spans: Iterable[Span], holes: Iterable[Span]) -> Iterator[Span]:
    rest = iter(holes)
    hole = next(rest, None)
    for first, last in spans:
        while hole is not None and hole[1] < first:
            hole = next(rest, None)
        while hole is not None and hole[0] <= last:
            if first < hole[0]:
                yield first, hole[0] - 1
            first = hole[1] + 1
            if hole[1] > last:
                break  # it reaches into the next span
            hole = next(rest, None)
        if first <= last:
            yield first, last
