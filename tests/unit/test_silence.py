"""On a virtual clock: what is waited for is sleep, or somebody who never comes."""

from __future__ import annotations

import asyncio

import pytest

from backends.testing.clock import virtual_clock
from gateway.silence import Silence, StillSilent


def now():
    return asyncio.get_running_loop().time()


async def wait_for_ever():
    await asyncio.Event().wait()


@virtual_clock
async def test_a_wait_ends_when_it_has_lasted_as_long_as_it_may():
    silence = Silence(15.0)
    await asyncio.sleep(1)
    began = now()

    with pytest.raises(StillSilent), silence:
        await wait_for_ever()

    assert now() == began + 15


@virtual_clock
async def test_each_wait_has_its_own_time_however_many_there_are():
    silence = Silence(15.0)

    for _ in range(3):
        with silence:
            await asyncio.sleep(10)
    began = now()
    with pytest.raises(StillSilent), silence:
        await wait_for_ever()

    assert now() == began + 15


@virtual_clock
async def test_one_silence_after_the_other_is_noticed():
    silence = Silence(15.0)

    for _ in range(3):
        began = now()
        with pytest.raises(StillSilent), silence:
            await wait_for_ever()
        assert now() == began + 15


@virtual_clock
async def test_the_time_between_two_waits_is_nobodys():
    silence = Silence(15.0)

    with silence:
        await asyncio.sleep(1)
    await asyncio.sleep(1000)
    with silence:
        await asyncio.sleep(14)


@virtual_clock
async def test_without_a_limit_a_wait_lasts():
    with Silence(None):
        await asyncio.sleep(100_000)


@virtual_clock
async def test_what_ends_by_itself_ends_as_it_does():
    silence = Silence(15.0)

    for error in (ValueError, TimeoutError, ConnectionResetError):
        with pytest.raises(error), silence:
            raise error


@pytest.mark.parametrize("after_s", [3, 15])
@virtual_clock
async def test_a_cancel_from_elsewhere_stays_a_cancel(after_s):
    async def guarded():
        with Silence(15.0):
            await wait_for_ever()

    task = asyncio.ensure_future(guarded())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(now() + after_s, task.cancel)
    await asyncio.wait({task})

    assert task.cancelled()


@virtual_clock
async def test_a_silence_within_a_timeout_leaves_the_timeout_alone():
    silence = Silence(15.0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(40):
            while True:
                with pytest.raises(StillSilent), silence:
                    await wait_for_ever()

    assert now() == 40


@virtual_clock
async def test_closed_it_leaves_no_timer():
    silence = Silence(15.0)
    with silence:
        await asyncio.sleep(1)

    silence.close()

    assert all(each.cancelled() for each in asyncio.get_running_loop()._scheduled)
