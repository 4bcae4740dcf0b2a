"""``tallygate budgets rebuild``: what users have spent, made equal to the cost of their rows.

For an account that is wrong: after a gateway was killed with calls to settle, or rows were brought back
from elsewhere. Rows that are missing would make a user's money whole again, and kill -9 can take rows of
calls that were charged; so no account is lowered unless that is asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from backends import LogSink, Store, StoreError, SummaryQuery, UsageReader, User, nano_usd, usd

from ..settings import ConfigurationError, Settings
from ..store import opened_store
from .output import show, until_nobody_reads
from .sink import Refused, refuse, with_sink
from .store import as_it_is
from .tables import table

if TYPE_CHECKING:
    from . import Commands

PAGE_USERS = 500
COLUMNS = ("user_id", "spent_usd", "rows_usd", "outcome")
Outcome: TypeAlias = Literal["equal", "differs", "done", "skipped", "rows missing"]
Mode: TypeAlias = Literal["check", "raise", "set"]
"""Only compare; set what is too low; set whatever differs."""
LEFT: Sequence[Outcome] = ("differs", "skipped", "rows missing")
ADVICE = """
The rows of some accounts cost less than was charged. `tallygate logs audit` and `logs spool` say whether
rows are missing or on their way; `--lower` takes their word for it.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One user with a budget. ``skipped``: calls are under way, or one was in between; ask again.
    ``rows missing``: more was charged than the rows cost, and nobody asked to lower it."""

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
    rebuilding.add_argument("--lower", action="store_true", help="also where rows cost less than was charged")
    rebuilding.set_defaults(run=run)
    return [rebuilding]


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what was compared; the exit status: 1 if a difference is left."""
    lines: list[Line] = []
    mode: Mode = "check" if arguments.check else "set" if arguments.lower else "raise"

    async def use(sink: LogSink) -> None:
        if not sink.capabilities.reads_usage or not isinstance(sink, UsageReader):
            raise Refused("rows cannot be read back from there")
        async with opened_store(as_it_is(settings)) as store:
            lines.extend([line async for line in rebuilt(store, sink, mode)])

    try:
        status = with_sink(settings, use, migrates=False)
    except StoreError as error:
        return refuse(f"store: {error}")
    except ConfigurationError as error:
        return refuse(str(error))
    if status == 0:
        until_nobody_reads(lambda: _show(lines))
    return status or int(any(line.outcome in LEFT for line in lines))


async def rebuilt(store: Store, reader: UsageReader, mode: Mode) -> AsyncIterator[Line]:
    """Each user with a budget, by id; an account that differs is set as ``mode`` says. Raises what the two
    raise."""
    async for user in _users(store):
        rows_nano = await _cost_of_rows(reader, user)
        yield Line(user.id, user.spent_nano, rows_nano, await _settled(store, user, rows_nano, mode))


async def _settled(store: Store, user: User, rows_nano: int, mode: Mode) -> Outcome:
    if rows_nano == user.spent_nano:
        return "equal"
    if mode == "check":
        return "differs"
    if rows_nano < user.spent_nano and mode == "raise":
        return "rows missing"
    return await _set(store, user, rows_nano)


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
    cells = ((line.user_id, _usd(line.spent_nano), _usd(line.rows_nano), line.outcome) for line in lines)
    show(table(COLUMNS, cells, has_head=True))
    if any(line.outcome == "rows missing" for line in lines):
        show(ADVICE)
    return 0


def _usd(nano: int) -> str:
    return f"{usd(nano):f}"
