"""``tallygate budgets rebuild``: what users have spent, made equal to the cost of their rows.

For an account that is wrong: after a gateway was killed with calls to settle, or rows were brought back from
elsewhere. The rows have to be there: stop the gateways and let their spools be delivered before.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from backends import LogSink, Store, StoreError, SummaryQuery, UsageReader, User, nano_usd, usd

from ..settings import ConfigurationError, Settings
from ..store import opened_store
from .output import show, until_nobody_reads
from .sink import Refused, refuse, with_sink
from .tables import table

if TYPE_CHECKING:
    from . import Commands

PAGE_USERS = 500
COLUMNS = ("user_id", "spent_usd", "rows_usd", "outcome")
Outcome: TypeAlias = Literal["equal", "differs", "done", "skipped"]


@dataclass(frozen=True, slots=True)
class Line:
    """One user with a budget. ``skipped``: calls are under way, or one was in between; ask again."""

    user_id: str
    spent_nano: int
    rows_nano: int
    outcome: Outcome


def add_to(commands: Commands) -> list[argparse.ArgumentParser]:
    """The parser, added."""
    parser = commands.add_parser("budgets", help="what users have spent")
    kinds = parser.add_subparsers(dest="budgets", required=True)
    rebuilding = kinds.add_parser("rebuild", help="set what users have spent to the cost of their rows")
    rebuilding.add_argument("--check", action="store_true", help="only compare: 1 if there is a difference")
    rebuilding.set_defaults(run=run)
    return [rebuilding]


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what was compared; the exit status: 1 if a difference is left."""
    lines: list[Line] = []

    async def use(sink: LogSink) -> None:
        if not sink.capabilities.reads_usage or not isinstance(sink, UsageReader):
            raise Refused("rows cannot be read back from there")
        async with opened_store(_as_it_is(settings)) as store:
            lines.extend([line async for line in rebuilt(store, sink, changes=not arguments.check)])

    try:
        status = with_sink(settings, use, migrates=False)
    except StoreError as error:
        return refuse(f"store: {error}")
    except ConfigurationError as error:
        return refuse(str(error))
    if status == 0:
        until_nobody_reads(lambda: _show(lines))
    return status or int(any(line.outcome in ("differs", "skipped") for line in lines))


def _as_it_is(settings: Settings) -> Settings:
    """The store's schema is left alone, whatever the configuration says."""
    store = settings.store.model_copy(update={"migrate": False})
    return settings.model_copy(update={"store": store})


async def rebuilt(store: Store, reader: UsageReader, *, changes: bool) -> AsyncIterator[Line]:
    """Each user with a budget, by id; with ``changes`` the account is set. Raises what the two raise."""
    async for user in _users(store):
        rows_nano = await _cost_of_rows(reader, user)
        outcome: Outcome = "equal"
        if rows_nano != user.spent_nano:
            outcome = await _set(store, user, rows_nano) if changes else "differs"
        yield Line(user.id, user.spent_nano, rows_nano, outcome)


async def _set(store: Store, user: User, rows_nano: int) -> Outcome:
    return "done" if await store.rebuild_spent(user, rows_nano) else "skipped"


async def _users(store: Store) -> AsyncIterator[User]:
    after = None
    while page := await store.list(User, after=after, limit=PAGE_USERS):
        for user in page:
            if user.budget_id is not None and user.deleted_at is None:
                yield user
        after = page[-1].id


async def _cost_of_rows(reader: UsageReader, user: User) -> int:
    """Nano-dollars of the user's calls that began in the account's period."""
    query = SummaryQuery(
        start=user.period_started_at, end=user.period_ends_at, filters=(("user_id", user.id),)
    )
    (total,) = await reader.summarise_usage(query)
    return nano_usd(total.cost)


def _show(lines: list[Line]) -> int:
    cells = ((line.user_id, usd(line.spent_nano), usd(line.rows_nano), line.outcome) for line in lines)
    show(table(COLUMNS, cells, has_head=True))
    return 0
