"""Answers are believed for a while, questions are asked once, and errors are kept by nobody."""

from __future__ import annotations

import asyncio
import gc

import pytest
from letting_in import Hand

from gateway.access.cache import Cache


class Question:
    """Answers as the test says, once it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, str | Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def __call__(self, name: str) -> str | None:
        self.asked.append(name)
        answer = self.answers.get(name)
        self.arrived.set()
        await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def question():
    return Question()


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def cache(question, hand):
    return Cache(question, 5.0, max_entries=3, clock=hand)


@pytest.mark.parametrize("answer", ["yes", None])
async def test_an_answer_holds_for_its_time_and_no_longer(cache, question, hand, answer) -> None:
    question.answers["a"] = answer

    for hand.now in (0.0, 4.9, 5.0, 9.9, 10.0):
        assert await cache.get("a") == answer

    assert len(question.asked) == 3


async def test_an_answer_that_came_late_is_as_old_as_its_question(cache, question, hand) -> None:
    question.answers["a"] = "yes"
    question.gate.clear()
    slow = asyncio.ensure_future(cache.get("a"))
    await question.arrived.wait()
    hand.now = 2.0
    question.answers["a"] = None  # changed since, so that "yes" is believed until 5.0
    question.gate.set()
    assert await slow == "yes"

    hand.now = 4.9
    assert await cache.get("a") == "yes"
    hand.now = 5.0
    assert await cache.get("a") is None


async def test_answers_that_hold_for_no_time_are_shared_by_those_who_already_wait(question, hand) -> None:
    cache = Cache(question, 0.0, clock=hand)
    question.gate.clear()
    waiting = [asyncio.ensure_future(cache.get("a")) for _ in range(9)]
    await question.arrived.wait()
    question.gate.set()
    await asyncio.gather(*waiting)

    await cache.get("a")

    assert len(question.asked) == 2


async def test_whoever_is_cancelled_leaves_the_question_to_the_others(cache, question) -> None:
    question.answers["a"] = "yes"
    question.gate.clear()
    first, second = (asyncio.ensure_future(cache.get("a")) for _ in range(2))
    await question.arrived.wait()

    first.cancel()
    await asyncio.wait({first})
    question.gate.set()

    assert first.cancelled() and await second == "yes"
    assert question.asked == ["a"]


async def test_an_answer_that_nobody_waited_for_is_kept_all_the_same(cache, question) -> None:
    question.answers["a"] = "yes"
    question.gate.clear()
    only = asyncio.ensure_future(cache.get("a"))
    await question.arrived.wait()
    only.cancel()
    await asyncio.wait({only})
    question.gate.set()

    assert await cache.get("a") == "yes"
    assert question.asked == ["a"]


async def test_an_error_is_told_to_all_who_wait_and_to_nobody_later(cache, question) -> None:
    question.answers["a"] = OSError("down")
    question.gate.clear()
    waiting = [asyncio.ensure_future(cache.get("a")) for _ in range(3)]
    await question.arrived.wait()
    question.gate.set()

    assert [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == [OSError] * 3
    question.answers["a"] = "yes"
    assert await cache.get("a") == "yes"


async def test_an_error_that_nobody_waited_for_is_no_complaint(cache, question) -> None:
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    question.answers["a"] = OSError("down")
    question.gate.clear()
    only = asyncio.ensure_future(cache.get("a"))
    await question.arrived.wait()
    only.cancel()
    await asyncio.wait({only})

    question.gate.set()
    question.answers["b"] = "yes"
    await cache.get("b")
    del only
    gc.collect()

    assert complaints == []


async def test_the_number_of_answers_is_bounded_and_the_oldest_goes_first(cache, question) -> None:
    question.answers |= dict.fromkeys("abcd", "yes")
    for name in "abcd":
        await cache.get(name)
    question.asked.clear()

    for name in "bcda":
        await cache.get(name)

    assert question.asked == ["a"]


async def test_a_flood_of_names_that_are_not_there_pushes_out_no_name_that_is(cache, question) -> None:
    question.answers["a"] = "yes"
    await cache.get("a")

    for number in range(100):
        assert await cache.get(str(number)) is None
    question.asked.clear()

    assert await cache.get("a") == "yes" and await cache.get("99") is None
    assert question.asked == []


async def test_what_is_forgotten_is_asked_for_anew(cache, question) -> None:
    question.answers |= {"a": "one", "b": "two"}
    for name in "abc":
        await cache.get(name)
    question.asked.clear()

    cache.forget("c")
    cache.forget_where(lambda value: value == "one")
    cache.forget("never heard of")
    for name in "abc":
        await cache.get(name)

    assert question.asked == ["a", "c"]


@pytest.mark.parametrize(
    "forget", [lambda it: it.forget("a"), lambda it: it.forget_where(lambda value: True)]
)
async def test_whoever_asks_after_a_change_does_not_get_an_answer_from_before_it(
    cache, question, forget
) -> None:
    question.answers["a"] = "old"
    question.gate.clear()
    before = asyncio.ensure_future(cache.get("a"))
    await question.arrived.wait()

    question.answers["a"] = "new"
    forget(cache)
    after = asyncio.ensure_future(cache.get("a"))
    question.gate.set()

    assert (await before, await after, await cache.get("a")) == ("old", "new", "new")


async def test_the_end_ends_questions_that_are_never_answered(cache, question) -> None:
    question.gate.clear()
    waiting = asyncio.ensure_future(cache.get("a"))
    await question.arrived.wait()

    await cache.close()
    await asyncio.wait({waiting})

    assert waiting.cancelled()
