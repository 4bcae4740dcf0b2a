"""The store's suite against stores with one known bug each: every bug is caught by a case with a name."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from backends.errors import StoreConflict
from backends.store.contract import BudgetStrategy, Claim, Settlement, Store, Verdict
from backends.store.memory import MemoryStore, _Held
from backends.store.records import ApiKey, Budget, KeyHolder, PriceEntry, Record, User
from backends.store.rows import account_of
from backends.testing import StoreSuite

R = TypeVar("R", bound=Record)


# --- money that is held


class ChecksThenActs(MemoryStore):
    async def reserve(self, claim: Claim) -> Verdict:
        user = await self.get(User, claim.user_id)
        if user is None or not account_of(user).has_room_for(claim.amount_nano):
            return await super().reserve(claim)
        await asyncio.sleep(0)
        self._held[claim.id] = _Held(claim)
        self._keep(user.id, account_of(self._user(user.id)).holding(claim.amount_nano))
        return "held"


class LosesWhatOthersHold(MemoryStore):
    async def reserve(self, claim: Claim) -> Verdict:
        user = await self.get(User, claim.user_id)
        await asyncio.sleep(0)
        verdict = await super().reserve(claim)
        if verdict == "held" and user is not None:
            self._keep(user.id, account_of(user).holding(claim.amount_nano))
        return verdict


class HoldsAgain(MemoryStore):
    async def reserve(self, claim: Claim) -> Verdict:
        if claim.id in self._held:
            self._held[uuid4()] = self._held.pop(claim.id)
        return await super().reserve(claim)


class TakesFreeCallsAtTheLimit(MemoryStore):
    async def reserve(self, claim: Claim) -> Verdict:
        verdict = await super().reserve(claim)
        return "held" if verdict == "over_budget" and claim.amount_nano == 0 else verdict


class IgnoresBlocked(MemoryStore):
    async def reserve(self, claim: Claim) -> Verdict:
        user = await self.get(User, claim.user_id)
        if user is None or not user.blocked:
            return await super().reserve(claim)
        await self.update(User, user.id, {"blocked": False})
        verdict = await super().reserve(claim)
        await self.update(User, user.id, {"blocked": True})
        return verdict


class ServesTheDeleted(MemoryStore):
    async def reserve(self, claim: Claim) -> Verdict:
        user = await self.get(User, claim.user_id)
        if user is not None:
            await self.update(User, user.id, {"deleted_at": None})
        return await super().reserve(claim)


class RefusesBeforeItSweeps(MemoryStore):
    def _let_go(self, now: datetime, user_id: str | None = None) -> int:
        return super()._let_go(now) if user_id is None else 0


class NeverResets(MemoryStore):
    async def reserve(self, claim: Claim) -> Verdict:
        user = await self.get(User, claim.user_id)
        if user and user.period_ends_at and claim.made_at >= user.period_ends_at:
            claim = replace(claim, made_at=user.period_ends_at - timedelta(milliseconds=1))
        return await super().reserve(claim)


class ResetsOnlyBeforeItRefuses(NeverResets):
    async def reserve(self, claim: Claim) -> Verdict:
        verdict = await super().reserve(claim)
        return verdict if verdict == "held" else await MemoryStore.reserve(self, claim)


class BeginsThePeriodWhenSomebodyLooks(MemoryStore):
    async def reserve(self, claim: Claim) -> Verdict:
        user = await self.get(User, claim.user_id)
        if user and user.period_ends_at and claim.made_at > user.period_ends_at:
            self._keep(user.id, replace(account_of(user), period_ends_at=claim.made_at))
        return await super().reserve(claim)


# --- money that is settled


class SettlesTwice(MemoryStore):
    async def settle(self, settlements: Sequence[Settlement]) -> None:
        kept = dict(self._held)
        await super().settle(settlements)
        self._held = {id: replace(each, is_swept=True) for id, each in kept.items()}


class SettlesTwiceAtOnce(MemoryStore):
    async def settle(self, settlements: Sequence[Settlement]) -> None:
        ids = [each.claim.id for each in settlements]
        known = {id: self._held[id] for id in ids if id in self._held}
        await asyncio.sleep(0)
        self._held |= {id: replace(held, is_swept=id not in self._held) for id, held in known.items()}
        await super().settle(settlements)


class LosesLateSettlements(MemoryStore):
    async def sweep(self, now: datetime) -> int:
        count = await super().sweep(now)
        self._held = {id: each for id, each in self._held.items() if not each.is_swept}
        return count


class NeverForgets(MemoryStore):
    async def sweep(self, now: datetime) -> int:
        return self._let_go(now)


class FreesTwice(MemoryStore):
    async def settle(self, settlements: Sequence[Settlement]) -> None:
        for held in self._held.values():
            held.is_swept = False
        await super().settle(settlements)


class KeepsWhatFailed(MemoryStore):
    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await super().settle([each for each in settlements if each.cost_nano])


class ChargesTheNewPeriod(MemoryStore):
    async def settle(self, settlements: Sequence[Settlement]) -> None:
        for each in settlements:
            if (held := self._held.get(each.claim.id)) is not None:
                held.claim = replace(held.claim, made_at=held.claim.made_at + timedelta(days=1))
        await super().settle(settlements)


class StopsAtTheUnknown(MemoryStore):
    async def settle(self, settlements: Sequence[Settlement]) -> None:
        for each in settlements:
            if each.claim.id not in self._held:
                return
            await super().settle([each])


class RebuildsOverWhatIsHeld(MemoryStore):
    async def rebuild_spent(self, user: User, spent_nano: int) -> bool:
        self._keep(user.id, replace(account_of(self._user(user.id)), spent_nano=spent_nano))
        return True


class ReleasesWithTheBudget(MemoryStore):
    async def update(self, kind: type[R], id: str, changes: Mapping[str, Any]) -> R | None:
        if "budget_id" in changes and id in self._records["user"]:
            self._keep(id, replace(account_of(self._user(id)), reserved_nano=0))
        return await super().update(kind, id, changes)


class LeavesTheAccounts(MemoryStore):
    def _apply(self, budget: Budget) -> None:
        pass


# --- letting in


class GoesBackInTime(MemoryStore):
    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        for id, at in used.items():
            await self.update(ApiKey, id, {"last_used_at": at})


class ReplacesTheMasterKey(MemoryStore):
    async def keep_master_key(self, secret_hash: str) -> str:
        self._master_hash = secret_hash
        return secret_hash


class LetsTwoMasterKeysIn(MemoryStore):
    async def keep_master_key(self, secret_hash: str) -> str:
        known = self._master_hash
        await asyncio.sleep(0)
        if known is None:
            self._master_hash = secret_hash
        return known or secret_hash


class ForgetsThePreviousSecret(MemoryStore):
    async def find_key(self, secret_hash: str) -> KeyHolder | None:
        holder = await super().find_key(secret_hash)
        return holder if holder and holder.key.secret_hash == secret_hash else None


# --- records


class OverwritesWhatIsThere(MemoryStore):
    async def add(self, record: Record) -> None:
        self._records[record.kind].pop(record.id, None)
        await super().add(record)


class NamesTheWrongField(MemoryStore):
    def _check_unique(self, record: Record) -> None:
        try:
            super()._check_unique(record)
        except StoreConflict as error:
            raise StoreConflict("id", error.message) from error


class TrustsTheAccountItIsGiven(MemoryStore):
    async def add(self, record: Record) -> None:
        await super().add(record)
        if isinstance(record, User):
            self._keep(record.id, replace(account_of(self._user(record.id)), spent_nano=record.spent_nano))


class RoundsPrices(MemoryStore):
    async def add(self, record: Record) -> None:
        if isinstance(record, PriceEntry):
            record = replace(record, input_per_million=Decimal(float(record.input_per_million)))
        await super().add(record)


class CutsToSeconds(MemoryStore):
    async def add(self, record: Record) -> None:
        await super().add(replace(record, created_at=record.created_at.replace(microsecond=0)))


class SortsLikeADictionary(MemoryStore):
    async def list(self, kind: type[R], **asked: Any) -> Sequence[R]:
        return sorted(await super().list(kind, **asked), key=lambda each: each.id.casefold())


class NarrowsThePage(MemoryStore):
    async def list(self, kind: type[R], **asked: Any) -> Sequence[R]:
        wanted = (asked.pop("where", None) or {}).items()
        page = await super().list(kind, **asked)
        return [each for each in page if all(getattr(each, name) == value for name, value in wanted)]


class RemovesABudgetInUse(MemoryStore):
    async def remove(self, kind: type[R], id: str) -> bool:
        return self._records[kind.kind].pop(id, None) is not None


PLANTED: list[tuple[type[MemoryStore], str]] = [
    (ChecksThenActs, "test_of_fifty_claims_at_once_ten_are_held_where_there_is_room_for_ten"),
    (LosesWhatOthersHold, "test_users_do_not_stand_in_each_others_way"),
    (HoldsAgain, "test_the_same_claim_is_held_once"),
    (HoldsAgain, "test_a_claim_that_is_cancelled_anywhere_is_held_once_when_asked_again"),
    (TakesFreeCallsAtTheLimit, "test_a_budget_of_nothing_takes_nothing"),
    (IgnoresBlocked, "test_who_is_blocked_is_told_so_whatever_there_is_to_spend"),
    (ServesTheDeleted, "test_nobody_is_held_money_for"),
    (RefusesBeforeItSweeps, "test_what_has_expired_makes_room_before_anybody_is_refused"),
    (NeverResets, "test_a_period_that_is_over_makes_room"),
    (ResetsOnlyBeforeItRefuses, "test_a_period_ends_also_where_there_was_room"),
    (BeginsThePeriodWhenSomebodyLooks, "test_periods_follow_each_other_however_long_nobody_looked"),
    (SettlesTwice, "test_a_settlement_that_is_repeated_counts_once"),
    (SettlesTwiceAtOnce, "test_the_same_settlement_from_everywhere_at_once_counts_once"),
    (LosesLateSettlements, "test_a_settlement_after_the_sweep_is_charged_once"),
    (NeverForgets, "test_a_claim_that_is_forgotten_changes_nothing"),
    (FreesTwice, "test_a_settlement_after_the_sweep_is_charged_once"),
    (KeepsWhatFailed, "test_a_settled_claim_is_let_go_and_its_cost_is_spent"),
    (ChargesTheNewPeriod, "test_a_call_of_an_earlier_period_is_let_go_and_not_charged"),
    (StopsAtTheUnknown, "test_a_claim_that_is_not_known_changes_nothing"),
    (RebuildsOverWhatIsHeld, "test_what_was_spent_is_not_set_over_what_happened_meanwhile"),
    (ReleasesWithTheBudget, "test_another_budget_begins_a_new_account_and_keeps_what_is_held"),
    (LeavesTheAccounts, "test_a_changed_limit_counts_for_every_user_of_the_budget"),
    (GoesBackInTime, "test_last_use_goes_forward_only"),
    (ReplacesTheMasterKey, "test_the_first_master_key_is_kept"),
    (LetsTwoMasterKeysIn, "test_of_many_master_keys_at_once_one_is_kept"),
    (ForgetsThePreviousSecret, "test_a_key_is_found_by_the_secret_before_the_last_rotation"),
    (OverwritesWhatIsThere, "test_a_second_record_with_an_id_is_refused_and_changes_nothing"),
    (NamesTheWrongField, "test_a_second_key_with_a_secret_is_refused"),
    (TrustsTheAccountItIsGiven, "test_a_users_account_is_made_from_the_budget_whatever_its_fields_say"),
    (RoundsPrices, "test_a_price_keeps_every_digit"),
    (CutsToSeconds, "test_times_are_kept_to_the_millisecond"),
    (SortsLikeADictionary, "test_a_list_is_in_the_order_of_bytes"),
    (NarrowsThePage, "test_pages_of_what_was_asked_for_are_full"),
    (RemovesABudgetInUse, "test_a_budget_that_a_user_has_is_not_removed"),
]


@pytest.mark.parametrize(("store_cls", "case"), PLANTED)
async def test_a_planted_bug_is_caught_by_its_case(store_cls: type[MemoryStore], case: str) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        await _run(store_cls, case)

    assert not isinstance(caught.value, (NotImplementedError, AttributeError, TypeError, KeyError))


@pytest.mark.parametrize("case", sorted({case for _, case in PLANTED}))
async def test_a_store_without_the_bug_passes_that_case(case: str) -> None:
    await _run(MemoryStore, case)


async def _run(tested: type[MemoryStore], case: str) -> None:
    class Suite(StoreSuite):
        is_shared = False

        def open_store(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
            return _opened(tested)

    run = getattr(Suite(), case)
    await run(**({"strategy": "cas"} if "strategy" in inspect.signature(run).parameters else {}))


@asynccontextmanager
async def _opened(tested: type[MemoryStore]) -> AsyncIterator[Store]:
    yield tested()
