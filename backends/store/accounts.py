"""What may still be spent, decided. Pure: takes an account and a moment, gives the account that follows.

Databases that lock a row decide here, between reading and writing it. Those that decide in one conditional
update say the same in their own language; the conformance class holds them to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from .records import MAX_NANO_USD

MAX_ACCOUNT_NANO = 9 * MAX_NANO_USD
"""Up to here an account counts: the largest sum of largest amounts that fits 64 bits. Nobody gets there
honestly, and nothing may be stuck because somebody did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Nano-dollars and UTC times; see ``User``."""

    limit_nano: int | None
    reset_every_s: int | None
    spent_nano: int
    reserved_nano: int
    period_started_at: datetime | None
    period_ends_at: datetime | None

    def has_room_for(self, amount_nano: int) -> bool:
        """Whether ``amount_nano`` more may be held. An account at its limit takes no call, not even a free
        one; one without a limit takes all that can be counted."""
        if self.limit_nano is None:
            return self.reserved_nano + amount_nano <= MAX_ACCOUNT_NANO
        used = self.spent_nano + self.reserved_nano
        return used < self.limit_nano and used + amount_nano <= self.limit_nano

    def is_period_over(self, now: datetime) -> bool:
        """Whether ``rolled`` would begin a new period."""
        return self.period_ends_at is not None and now >= self.period_ends_at

    def rolled(self, now: datetime) -> Account:
        """The account in the period that ``now`` is in. Periods follow each other without gaps, however long
        nobody looked."""
        if self.period_ends_at is None or now < self.period_ends_at or self.reset_every_s is None:
            return self
        length = timedelta(seconds=self.reset_every_s)
        started_at = self.period_ends_at + (now - self.period_ends_at) // length * length
        return replace(self, spent_nano=0, period_started_at=started_at, period_ends_at=started_at + length)

    def holding(self, amount_nano: int) -> Account:
        """With ``amount_nano`` more in reserve; less, if it is negative."""
        return replace(self, reserved_nano=self.reserved_nano + amount_nano)

    def charged(self, cost_nano: int, made_at: datetime) -> Account:
        """With ``cost_nano`` spent by a call that began at ``made_at``. A call that began in an earlier
        period was that period's, which is over; so says the sum of the rows, too."""
        if self.period_started_at is not None and made_at < self.period_started_at:
            return self
        return replace(self, spent_nano=min(self.spent_nano + cost_nano, MAX_ACCOUNT_NANO))


def limited(account: Account, limit_nano: int, reset_every_s: int | None) -> Account:
    """``account`` after its budget was changed: what was spent in this period stays spent, and the period is
    as long as the budget now says."""
    started_at = account.period_started_at
    ends_at = None
    if reset_every_s is not None and started_at is not None:
        ends_at = started_at + timedelta(seconds=reset_every_s)
    return replace(account, limit_nano=limit_nano, reset_every_s=reset_every_s, period_ends_at=ends_at)


def new_account(limit_nano: int | None, reset_every_s: int | None, now: datetime) -> Account:
    """The account of a user who is given a budget at ``now``, or none."""
    has_end = limit_nano is not None and reset_every_s is not None
    return Account(
        limit_nano=limit_nano,
        reset_every_s=reset_every_s,
        spent_nano=0,
        reserved_nano=0,
        period_started_at=now,
        period_ends_at=now + timedelta(seconds=reset_every_s or 0) if has_end else None,
    )
