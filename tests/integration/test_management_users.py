from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import quote

import pytest
from yarl import URL

CHAT = "/v1/chat/completions"


async def call(gateway, key, **members):
    headers = {"Authorization": f"Bearer {key}"}
    body = gateway.body("fake:m", **members)
    async with gateway.client.post(CHAT, json=body, headers=headers) as response:
        await response.read()
        return response.status


def refused(answer):
    status, body = answer
    return status, body["error"]["code"], body["error"]["param"]


async def test_a_user_is_shown_as_it_was_made_with_nothing_spent(manage, made):
    given = {
        "user_id": "ann@example.com",
        "alias": "Ann",
        "budget_id": None,
        "blocked": False,
        "rate_limit_rpm": 1,
        "rate_limit_tpm": None,
        "metadata": {"team": "search"},
    }

    user = await made("/v1/users", **given)

    assert {name: user[name] for name in given} == given
    assert (user["spent_usd"], user["reserved_usd"]) == ("0.000000000", "0.000000000")
    assert (user["max_usd"], user["deleted_at"], user["period_ends_at"]) == (None, None, None)
    assert await manage("GET", "/v1/users/ann%40example.com") == (200, user)


async def test_a_user_of_any_readable_id_is_found_under_it(gateway, made):
    for user_id in ["a/b", "50%", "%2F", "müller", "a b", "модель/1?x=1#y", "a+b", "x" * 256]:
        user = await made("/v1/users", user_id=user_id)
        url = URL(f"{gateway.url}/v1/users/{quote(user_id, safe='')}", encoded=True)

        async with gateway.client.get(url, headers=gateway.headers()) as response:
            assert (response.status, await response.json()) == (200, user)


async def test_an_id_is_given_once(manage, made):
    await made("/v1/users", user_id="ann")

    assert refused(await manage("POST", "/v1/users", {"user_id": "ann"})) == (409, "user_exists", "user_id")
    await manage("DELETE", "/v1/users/ann")
    assert refused(await manage("POST", "/v1/users", {"user_id": "ann"})) == (409, "user_deleted", "user_id")


async def test_only_what_is_named_changes_and_null_clears(manage, made):
    user = await made("/v1/users", user_id="ann", alias="Ann", rate_limit_rpm=5, metadata={"a": 1})

    changes = {"alias": None, "metadata": None, "blocked": True}
    status, changed = await manage("PATCH", "/v1/users/ann", changes)

    assert (status, changed) == (200, {**user, **changes, "metadata": {}})
    assert await manage("PATCH", "/v1/users/ann", {}) == (200, changed)
    assert refused(await manage("PATCH", "/v1/users/ann", {"blocked": None})) == (
        422,
        "invalid_request",
        "blocked",
    )
    assert refused(await manage("PATCH", "/v1/users/ann", {"user_id": "bob"}))[0] == 422


async def test_a_blocked_user_calls_no_more_from_the_next_call_on(gateway, manage, made):
    await made("/v1/users", user_id="ann")
    key = await made("/v1/keys", user_id="ann")
    assert await call(gateway, key["key"]) == 200

    await manage("PATCH", "/v1/users/ann", {"blocked": True})
    assert await call(gateway, key["key"]) == 403

    await manage("PATCH", "/v1/users/ann", {"blocked": False})
    assert await call(gateway, key["key"]) == 200


async def test_the_master_may_call_for_a_user_as_soon_as_there_is_one(gateway, made):
    assert await call(gateway, "tg-test", user="ann") == 404

    await made("/v1/users", user_id="ann")

    assert await call(gateway, "tg-test", user="ann") == 200


async def test_the_keys_of_a_deleted_user_open_nothing_and_the_rows_stay(gateway, manage, made):
    await made("/v1/users", user_id="ann")
    key = await made("/v1/keys", user_id="ann")
    assert await call(gateway, key["key"]) == 200

    for _ in range(2):
        assert await manage("DELETE", "/v1/users/ann") == (204, None)

    assert await call(gateway, key["key"]) == 403
    assert (await gateway.row()).user_id == "ann"
    _, user = await manage("GET", "/v1/users/ann")
    assert user["deleted_at"] is not None
    assert refused(await manage("PATCH", "/v1/users/ann", {"alias": "A"})) == (409, "user_deleted", None)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_user_who_is_not_there_is_not_found(manage, method):
    assert refused(await manage(method, "/v1/users/nobody", {})) == (404, "user_not_found", None)


# --- budgets


async def test_a_user_with_a_budget_begins_a_period(manage, made):
    budget = await made("/v1/budgets", max_usd="12.5", reset_every="1mo", name="small")
    assert budget["max_usd"] == "12.500000000"

    user = await made("/v1/users", user_id="ann", budget_id=budget["id"])

    assert (user["budget_id"], user["max_usd"]) == (budget["id"], "12.500000000")
    started, ends = (datetime.fromisoformat(user[f"period_{each}_at"]) for each in ("started", "ends"))
    assert ends - started == timedelta(days=30)


async def test_a_budget_that_is_not_there_is_refused(manage, made):
    await made("/v1/users", user_id="bob")

    for answer in (
        await manage("POST", "/v1/users", {"user_id": "ann", "budget_id": "none"}),
        await manage("PATCH", "/v1/users/bob", {"budget_id": "none"}),
    ):
        assert refused(answer) == (422, "budget_not_found", "budget_id")


async def test_the_same_budget_again_begins_no_new_period(manage, made):
    budget = await made("/v1/budgets", max_usd=1, reset_every="1h")
    user = await made("/v1/users", user_id="ann", budget_id=budget["id"])

    changes = {"budget_id": budget["id"], "alias": "Ann"}

    assert await manage("PATCH", "/v1/users/ann", changes) == (200, {**user, **changes})


async def test_a_changed_budget_holds_for_all_its_users(manage, made):
    budget = await made("/v1/budgets", max_usd=1, reset_every="1h")
    await made("/v1/users", user_id="ann", budget_id=budget["id"])

    status, changed = await manage("PATCH", f"/v1/budgets/{budget['id']}", {"max_usd": 0.1})

    assert (status, changed) == (200, {**budget, "max_usd": "0.100000000"})
    _, user = await manage("GET", "/v1/users/ann")
    assert user["max_usd"] == "0.100000000"
    status, changed = await manage("PATCH", f"/v1/budgets/{budget['id']}", {"reset_every": None})
    assert (status, changed["reset_every"]) == (200, None)
    assert (await manage("GET", "/v1/users/ann"))[1]["period_ends_at"] is None


async def test_a_budget_that_a_user_has_stays(manage, made):
    budget = await made("/v1/budgets", max_usd=1)
    await made("/v1/users", user_id="ann", budget_id=budget["id"])
    path = f"/v1/budgets/{budget['id']}"

    assert refused(await manage("DELETE", path)) == (409, "budget_in_use", None)
    _, page = await manage("GET", f"/v1/users?budget_id={budget['id']}")
    assert [user["user_id"] for user in page["data"]] == ["ann"]
    await manage("PATCH", "/v1/users/ann", {"budget_id": None})
    assert await manage("DELETE", path) == (204, None)
    for method in ("GET", "PATCH", "DELETE"):
        assert refused(await manage(method, path, {})) == (404, "budget_not_found", None)
