"""Who is let in, who is not, and what the store is asked for that."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from letting_in import LONG_AGO, MASTER_KEY, CountingStore, Hand, make_api_key, make_user, memory_store
from multidict import CIMultiDict
from routed import router, target, targets

from backends import ApiKey, StoreUnavailable, User
from gateway.access import MASTER, Access, Principal, require_master, require_model
from gateway.access.authentication import presented_key
from gateway.access.master_key import MasterKey
from gateway.access.secrets import hash_of, hint_of, make_key
from gateway.errors import Forbidden, GatewayError, NotFound, Unauthorized
from gateway.routing import NamedModel, resolve

ANN = "tg-of-ann"
DAY = timedelta(days=1)


@pytest.fixture
def store():
    return CountingStore(memory_store())


@pytest.fixture
def hand():
    """The clock by which answers age."""
    return Hand()


@pytest.fixture
def access(store, hand):
    master = MasterKey(MASTER_KEY, store)
    return Access(store, master, cache_s=5, now=lambda: LONG_AGO + timedelta(seconds=hand()), clock=hand)


async def call(access, secret=ANN):
    return await access.identify(CIMultiDict({"Authorization": f"Bearer {secret}"}))


async def refusal(awaitable) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await awaitable
    return caught.value


# --- the headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {ANN}"},
        {"authorization": f"bearer   {ANN} "},
        {"x-api-key": ANN},
        {"X-API-KEY": ANN, "Authorization": "Basic dXNlcjpwYXNz"},
        {"x-api-key": ANN, "Authorization": "Bearer "},
        {"x-api-key": "other", "Authorization": f"Bearer {ANN}"},
    ],
)
def test_a_key_is_taken_from_either_header_and_bearer_comes_first(headers) -> None:
    assert presented_key(CIMultiDict(headers)) == ANN


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {ANN}"},
        {"x-api-key": " "},
    ],
)
async def test_a_request_without_a_key_is_told_how_to_send_one(access, store, headers) -> None:
    error = await refusal(access.identify(CIMultiDict(headers)))

    assert (error.status, error.code) == (401, "missing_api_key")
    assert error.headers["WWW-Authenticate"] == "Bearer"
    assert not store.asked


# --- the master


@pytest.mark.parametrize("master_key", ["tg-master", "tg-master-schlüssel"])
async def test_the_master_key_is_known_without_the_store(store, master_key) -> None:
    access = Access(store, MasterKey(master_key, store), cache_s=5)

    assert await call(access, master_key) == MASTER == Principal(is_master=True)
    assert not store.asked


@pytest.mark.parametrize(
    "key", ["wrong", MASTER_KEY[:-1], f"{MASTER_KEY}x", MASTER_KEY.upper(), "\udcff\udcfe", "ключ", "\ud800"]
)
async def test_an_unknown_key_is_refused_whatever_its_bytes(access, key) -> None:
    error = await refusal(call(access, key))

    assert (error.status, error.code) == (401, "invalid_api_key")
    assert error.headers["WWW-Authenticate"] == "Bearer"
    assert key not in error.message


async def test_while_the_master_key_is_not_known_nobody_is_told_that_their_key_is_wrong(store) -> None:
    access = Access(store, MasterKey(None, store), cache_s=5)
    await store.add(make_user())
    await store.add(make_api_key(ANN))

    assert (await call(access)).user_id == "ann"
    with pytest.raises(StoreUnavailable):
        await call(access, "tg-perhaps-the-masters")


async def test_a_master_key_that_becomes_known_while_the_store_is_asked_for_it_opens() -> None:
    kept = memory_store()
    shown: list[str] = []
    await MasterKey(None, kept, shown.append).settle()
    store, master = CountingStore(kept), MasterKey(None, kept)
    store.gate.clear()
    asking = asyncio.ensure_future(call(Access(store, master, cache_s=5), *shown))
    await store.arrived.wait()

    await master.settle()
    store.gate.set()

    assert await asking == MASTER


def test_only_the_master_may_manage() -> None:
    require_master(MASTER)

    with pytest.raises(Forbidden) as caught:
        require_master(Principal(is_master=False, key=make_api_key(), user=make_user()))
    assert caught.value.code == "master_key_required"


# --- keys


async def test_a_key_makes_a_principal_with_its_user(access, store) -> None:
    await store.add(make_user())
    await store.add(key := make_api_key(ANN))

    principal = await call(access)

    assert (principal.is_master, principal.api_key_id, principal.user_id) == (False, key.id, "ann")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"revoked_at": LONG_AGO}, "revoked_api_key"),
        ({"expires_at": LONG_AGO}, "expired_api_key"),
        ({"revoked_at": LONG_AGO, "expires_at": LONG_AGO}, "revoked_api_key"),
    ],
)
async def test_a_key_that_is_no_longer_good_is_told_why(access, store, changes, code) -> None:
    await store.add(make_user())
    await store.add(make_api_key(ANN, **changes))

    error = await refusal(call(access))

    assert (error.status, error.code) == (401, code)
    assert isinstance(error, Unauthorized) and error.headers["WWW-Authenticate"] == "Bearer"


async def test_a_key_expires_at_its_moment_although_it_is_remembered(access, store, hand) -> None:
    await store.add(make_user())
    await store.add(make_api_key(ANN, expires_at=LONG_AGO + timedelta(seconds=2)))
    assert await call(access)

    hand.now = 1.999
    assert await call(access)
    hand.now = 2.0

    assert (await refusal(call(access))).code == "expired_api_key"
    assert store.asked == {"find_key": 1}


async def test_the_secret_before_a_rotation_is_good_until_its_moment(access, store, hand) -> None:
    await store.add(make_user())
    ends_at = LONG_AGO + timedelta(seconds=3)
    await store.add(
        make_api_key("tg-new", id="k", previous_hash=hash_of("tg-old"), previous_expires_at=ends_at)
    )

    assert (await call(access, "tg-old")).api_key_id == (await call(access, "tg-new")).api_key_id == "k"
    hand.now = 3.0

    assert (await refusal(call(access, "tg-old"))).code == "expired_api_key"
    assert (await call(access, "tg-new")).api_key_id == "k"


async def test_a_previous_secret_without_a_moment_is_good_no_longer(access, store) -> None:
    await store.add(make_user())
    await store.add(make_api_key("tg-new", previous_hash=hash_of("tg-old")))

    assert (await refusal(call(access, "tg-old"))).code == "expired_api_key"


@pytest.mark.parametrize(
    ("changes", "code"), [({"blocked": True}, "user_blocked"), ({"deleted_at": LONG_AGO}, "user_deleted")]
)
async def test_a_user_who_may_not_call_is_forbidden_and_not_unknown(access, store, changes, code) -> None:
    await store.add(make_user(**changes))
    await store.add(make_api_key(ANN))

    error = await refusal(call(access))

    assert (error.status, error.code) == (403, code)


async def test_a_store_that_is_down_says_nothing_about_the_key(access, store) -> None:
    store.is_down = True

    with pytest.raises(StoreUnavailable):
        await call(access)

    store.is_down = False
    assert (await refusal(call(access))).code == "invalid_api_key"


# --- how often the store is asked


async def test_a_key_that_is_remembered_asks_the_store_nothing(access, store, hand) -> None:
    await store.add(make_user())
    await store.add(make_api_key(ANN))
    await call(access)
    asked = dict(store.asked)

    hand.now = 4.999
    for _ in range(100):
        await call(access)

    assert store.asked == asked == {"find_key": 1}


async def test_fifty_first_calls_at_once_ask_the_store_once(access, store) -> None:
    await store.add(make_user())
    await store.add(make_api_key(ANN))
    store.gate.clear()
    calls = [asyncio.ensure_future(call(access)) for _ in range(50)]
    await store.arrived.wait()

    store.gate.set()

    assert {each.user_id for each in await asyncio.gather(*calls)} == {"ann"}
    assert store.asked == {"find_key": 1}


async def test_an_unknown_key_is_remembered_as_unknown(access, store) -> None:
    for _ in range(10):
        await refusal(call(access, "tg-nobodys"))

    assert store.asked == {"find_key": 1}


async def test_a_revocation_made_elsewhere_is_seen_when_the_answer_is_too_old(access, store, hand) -> None:
    await store.add(make_user())
    await store.add(key := make_api_key(ANN))
    await call(access)
    await store.update(ApiKey, key.id, {"revoked_at": LONG_AGO})

    hand.now = 4.999
    assert await call(access)
    hand.now = 5.0

    assert (await refusal(call(access))).code == "revoked_api_key"


async def test_a_revocation_made_here_is_seen_at_once(access, store) -> None:
    await store.add(make_user())
    await store.add(key := make_api_key(ANN))
    await call(access)

    await store.update(ApiKey, key.id, {"revoked_at": LONG_AGO})
    access.forget_key(key.id)

    assert (await refusal(call(access))).code == "revoked_api_key"


async def test_blocking_a_user_here_is_seen_by_all_the_users_keys_at_once(access, store) -> None:
    await store.add(make_user())
    for secret in ("tg-1", "tg-2"):
        await store.add(make_api_key(secret))
        await call(access, secret)

    await store.update(User, "ann", {"blocked": True})
    access.forget_user("ann")

    for secret in ("tg-1", "tg-2"):
        assert (await refusal(call(access, secret))).code == "user_blocked"


async def test_an_answer_that_was_under_way_when_the_key_was_revoked_is_not_remembered(access, store) -> None:
    await store.add(make_user())
    await store.add(key := make_api_key(ANN))
    store.answers_late = True
    store.gate.clear()
    asking = asyncio.ensure_future(call(access))
    await store.arrived.wait()

    await store.update(ApiKey, key.id, {"revoked_at": LONG_AGO})
    access.forget_key(key.id)
    store.gate.set()

    assert await asking, "it asked before the key was revoked"
    assert (await refusal(call(access))).code == "revoked_api_key"


# --- who pays


async def test_the_user_of_a_key_pays_whether_or_not_the_body_names_them(access, store) -> None:
    user = make_user()
    principal = Principal(is_master=False, key=make_api_key(), user=user)

    assert await access.spender(principal, None) == user == await access.spender(principal, "ann")
    assert not store.asked


@pytest.mark.parametrize("named", ["bob", "Ann", "ann ", "\x00", ""])
async def test_nobody_can_have_somebody_else_pay(access, store, named) -> None:
    await store.add(make_user("bob"))
    principal = Principal(is_master=False, key=make_api_key(), user=make_user())

    error = await refusal(access.spender(principal, named))

    assert (error.status, error.code, error.param) == (403, "user_mismatch", "user")


async def test_the_master_has_whoever_is_named_pay(access, store, hand) -> None:
    await store.add(user := make_user())

    found = [await access.spender(MASTER, "ann") for _ in range(5)]

    assert {each.id for each in found} == {user.id}
    assert store.asked == {"get": 1}
    assert await access.spender(MASTER, None) is None


@pytest.mark.parametrize("named", ["nobody", "gone", "a\x00b", "\ud800"])
async def test_the_master_cannot_have_somebody_pay_who_is_not_there(access, store, named) -> None:
    await store.add(make_user("gone", deleted_at=LONG_AGO))

    error = await refusal(access.spender(MASTER, named))

    assert isinstance(error, NotFound) and (error.code, error.param) == ("user_not_found", "user")


async def test_a_user_who_was_just_made_here_is_found_at_once(access, store) -> None:
    await refusal(access.spender(MASTER, "ann"))

    await store.add(make_user())
    access.forget_user("ann")

    assert (await access.spender(MASTER, "ann")).id == "ann"


async def test_the_master_cannot_have_a_blocked_user_pay(access, store) -> None:
    await store.add(make_user(blocked=True))

    assert (await refusal(access.spender(MASTER, "ann"))).code == "user_blocked"


# --- which models


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [
        (None, True),
        (("a:m",), True),
        (("a/m",), True),
        (("b:m", "a:*"), True),
        (("a/*",), True),
        ((), False),
        (("a:n",), False),
        (("b:*",), False),
        (("*",), False),
        (("a",), False),
        (("m",), False),
        (("a:m:x",), False),
    ],
)
@pytest.mark.parametrize("asked", ["a:m", "a/m"])
def test_a_key_opens_the_models_that_it_names(asked, allowed, is_allowed) -> None:
    principal = Principal(is_master=False, key=make_api_key(allowed_models=allowed), user=make_user())

    assert principal.may_use(resolve(asked, {"a", "b"})) is is_allowed


@pytest.mark.parametrize("allowed", ["local:org/m:7b", "local/org/m:7b"])
@pytest.mark.parametrize("asked", ["local:org/m:7b", "local/org/m:7b"])
def test_a_models_name_may_hold_what_divides_it_from_its_provider(asked, allowed) -> None:
    principal = Principal(is_master=False, key=make_api_key(allowed_models=(allowed,)), user=make_user())

    require_model(principal, resolve(asked, {"local"}))
    with pytest.raises(Forbidden) as caught:
        require_model(principal, resolve("local:org/m", {"local"}))
    assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [
        (("fast",), True),
        (None, True),
        (("p:a",), False),
        (("p:*", "q:*"), False),
        (("fast:*",), False),
    ],
)
def test_a_named_model_is_opened_by_its_name_alone(allowed, is_allowed) -> None:
    principal = Principal(is_master=False, key=make_api_key(allowed_models=allowed), user=make_user())
    routed = router(targets=targets(a=1), fallbacks=(target("q:x"),))

    assert principal.may_use(routed.destination("fast")) is is_allowed


@pytest.mark.parametrize("allowed", ["meta/llama", "meta:llama"])
def test_a_named_model_that_looks_like_a_providers_is_opened_by_its_name(allowed) -> None:
    principal = Principal(is_master=False, key=make_api_key(allowed_models=(allowed,)), user=make_user())

    assert principal.may_use(NamedModel(name="meta/llama", targets=targets(a=1)))
    assert not principal.may_use(NamedModel(name="meta/other", targets=targets(a=1)))


def test_the_master_may_use_every_model() -> None:
    require_model(MASTER, resolve("a:m", {"a"}))


# --- secrets


def test_keys_are_long_different_and_known_by_a_hash_alone() -> None:
    made = {make_key() for _ in range(100)}

    assert len(made) == 100
    assert all(each.startswith("tg-") and len(each) >= 46 for each in made)
    assert len(hash_of(ANN)) == 64 and ANN not in hash_of(ANN)
    assert {len(hint_of(each)) for each in made} == {7}


async def test_when_a_key_was_used_is_gathered(access, store, hand) -> None:
    await store.add(make_user())
    await store.add(key := make_api_key(ANN))
    hand.now = 1.0
    await call(access)

    await access.last_used.write()

    kept = await store.get(ApiKey, key.id)
    assert kept == replace(key, last_used_at=LONG_AGO + timedelta(seconds=1))
