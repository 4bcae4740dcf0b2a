"""Answers that are believed for a while, and questions that are asked once however many wait.

Takes a question and how long its answers hold; gives answers, those of "there is none" too. Errors are not
kept: the next one asks again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

V = TypeVar("V")

MAX_ENTRIES = 10_000
END_S = 0.1
"""How long a question may take to heed being cancelled."""


class _Entry(NamedTuple, Generic[V]):
    expires_at: float
    value: V | None


class Cache(Generic[V]):
    """``ask`` is asked for a name and gives what there is, or None. ``ttl_s`` 0: answers hold for those who
    already wait and nobody else."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[V | None]],
        ttl_s: float,
        max_entries: int = MAX_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._ttl_s = ttl_s
        self._clock = clock
        # Apart, so that a flood of names that do not exist pushes out no name that does.
        self._known = _Room[V](max_entries)
        self._unknown = _Room[V](max_entries)
        self._asking: dict[str, asyncio.Task[V | None]] = {}
        self._tasks: set[asyncio.Task[V | None]] = set()

    async def get(self, name: str) -> V | None:
        """What there is of this name. Raises what ``ask`` raises. A caller that is cancelled leaves the
        question to the others."""
        for room in (self._known, self._unknown):
            if (entry := room.fresh(name, self._clock())) is not None:
                return entry.value
        task = self._asking.get(name)
        if task is None:
            task = self._begin(name)
        return await asyncio.shield(task)

    def forget(self, name: str) -> None:
        """Ask anew for this name."""
        self._asking.pop(name, None)
        self._known.drop(name)
        self._unknown.drop(name)

    def forget_where(self, is_meant: Callable[[V], bool]) -> None:
        """Ask anew for every name whose value ``is_meant``; and for those that are being asked for, since
        what they will answer may be as old as the question."""
        self._asking.clear()
        for name in [name for name, value in self._known.items() if is_meant(value)]:
            self._known.drop(name)

    async def close(self) -> None:
        """End the questions that nobody waits for any longer."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=END_S)

    def _begin(self, name: str) -> asyncio.Task[V | None]:
        task = self._asking[name] = asyncio.ensure_future(self._answer(name))
        self._tasks.add(task)
        # From the question on: the answer may be as old as that, however late it comes.
        expires_at = self._clock() + self._ttl_s
        task.add_done_callback(lambda done: self._ended(name, done, expires_at))
        return task

    async def _answer(self, name: str) -> V | None:
        return await self._ask(name)

    def _ended(self, name: str, task: asyncio.Task[V | None], expires_at: float) -> None:
        self._tasks.discard(task)
        is_wanted = self._asking.get(name) is task
        if is_wanted:
            del self._asking[name]
        if task.cancelled() or task.exception() is not None or not is_wanted:
            return
        value = task.result()
        room = self._unknown if value is None else self._known
        room.keep(name, _Entry(expires_at, value))


class _Room(Generic[V]):
    """Entries in the order in which they came; the first goes when there are too many."""

    def __init__(self, max_entries: int) -> None:
        self._entries: dict[str, _Entry[V]] = {}
        self._max_entries = max_entries

    def fresh(self, name: str, now: float) -> _Entry[V] | None:
        entry = self._entries.get(name)
        if entry is None or now < entry.expires_at:
            return entry
        del self._entries[name]
        return None

    def keep(self, name: str, entry: _Entry[V]) -> None:
        self._entries.pop(name, None)
        self._entries[name] = entry
        if len(self._entries) > self._max_entries:
            del self._entries[next(iter(self._entries))]

    def drop(self, name: str) -> None:
        self._entries.pop(name, None)

    def items(self) -> Iterator[tuple[str, V]]:
        for name, entry in self._entries.items():
            if entry.value is not None:
                yield name, entry.value
