"""A gateway without a configured master key makes one, once for all processes, and shows it once."""

from __future__ import annotations

import asyncio
import logging

import pytest
from letting_in import CountingStore, memory_store

from backends import StoreUnavailable
from gateway.access import master_key
from gateway.access.master_key import MasterKey
from gateway.access.secrets import hash_of


@pytest.fixture
def store():
    return CountingStore(memory_store())


@pytest.fixture
def shown():
    return []


async def test_a_configured_key_asks_nobody_and_is_not_shown(store, shown) -> None:
    master = MasterKey("tg-configured", store, shown.append)

    await master.settle()

    assert master.has_hash(hash_of("tg-configured")) and not master.has_hash(hash_of("tg-other"))
    assert not store.asked and not shown


async def test_of_all_processes_that_start_at_once_one_shows_the_key_that_opens_all(store, shown) -> None:
    masters = [MasterKey(None, store, shown.append) for _ in range(5)]

    await asyncio.gather(*(each.settle() for each in masters))

    [secret] = shown
    assert secret.startswith("tg-")
    assert all(each.has_hash(hash_of(secret)) for each in masters)


async def test_a_later_start_knows_the_key_again_and_shows_none(store, shown) -> None:
    await MasterKey(None, store, shown.append).settle()
    later = MasterKey(None, store, shown.append)

    await later.settle()

    [secret] = shown
    assert later.has_hash(hash_of(secret)) and not later.has_hash(hash_of("tg-other"))


async def test_a_store_that_is_down_at_the_start_is_asked_again(store, shown, monkeypatch, caplog) -> None:
    monkeypatch.setattr(master_key, "ASK_AGAIN_S", 0)
    store.is_down = True
    master = MasterKey(None, store, shown.append)
    settling = asyncio.ensure_future(master.settle())
    await store.was_asked("keep_master_key", 3)
    assert not master.is_known and not master.has_hash(hash_of("tg-any"))
    with pytest.raises(StoreUnavailable):
        master.require_known()

    store.is_down = False
    await settling

    assert master.has_hash(hash_of(shown[0]))
    master.require_known()
    assert [record.getMessage() for record in caplog.records] == ["master_key_unknown"]


async def test_the_key_goes_to_stdout_and_never_to_the_log(store, capsys, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    master = MasterKey(None, store)

    await master.settle()

    out = capsys.readouterr()
    secret = out.out.split()[-1]
    assert master.has_hash(hash_of(secret)) and out.out.count("tg-") == 1
    assert not out.err and secret not in caplog.text


async def test_a_key_that_nobody_could_read_is_told_with_what_to_do(store, caplog) -> None:
    def closed(secret):
        raise ValueError("I/O operation on closed file")

    await MasterKey(None, store, closed).settle()

    [line] = [each for each in caplog.records if each.msg == "master_key_not_shown"]
    assert "master_key" in line.remedy and "tg-" not in str(vars(line))
