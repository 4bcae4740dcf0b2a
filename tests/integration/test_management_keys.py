from __future__ import annotations

import uuid
from datetime import datetime

import pytest

CHAT = "/v1/chat/completions"


async def call(gateway, key):
    """The status of a call with ``key``."""
    headers = {"Authorization": f"Bearer {key}"}
    async with gateway.client.post(CHAT, json=gateway.body("fake:m"), headers=headers) as response:
        await response.read()
        return response.status


async def test_a_new_key_opens_the_gateway_and_belongs_to_a_user_of_its_own(gateway, manage, made):
    key = await made("/v1/keys", name="ci")

    assert await call(gateway, key["key"]) == 200
    row = await gateway.row()
    assert (row.api_key_id, row.user_id) == (key["id"], f"apikey-{key['id']}")
    assert uuid.UUID(key["id"]).version == 7
    assert key["key"].startswith(key["hint"]) and key["hint"] != key["key"]
    status, user = await manage("GET", f"/v1/users/{key['user_id']}")
    assert (status, user["user_id"]) == (200, key["user_id"])


async def test_everything_that_was_given_is_shown_again(manage, made):
    await made("/v1/users", user_id="ann")
    given = {
        "name": "ci",
        "user_id": "ann",
        "expires_at": "2031-01-02T03:04:05.678+02:00",
        "allowed_models": ["fake:m", "stage:*"],
        "rate_limit_rpm": 10,
        "rate_limit_tpm": 2**53,
        "metadata": {"team": "search", "weights": [1, 2.5, True, None], "ü": {"deep": "er"}},
    }

    key = await made("/v1/keys", **given)

    shown = {**given, "expires_at": "2031-01-02T01:04:05.678Z"}
    assert {name: key[name] for name in given} == shown
    status, again = await manage("GET", f"/v1/keys/{key['id']}")
    assert (status, again) == (200, {name: value for name, value in key.items() if name != "key"})
    assert datetime.fromisoformat(key["created_at"]).tzinfo is not None


async def test_a_secret_is_shown_where_it_is_made_and_nowhere_else(gateway, manage, made, log):
    key = await made("/v1/keys", name="ci")
    _, turned = await manage("POST", f"/v1/keys/{key['id']}/rotate")
    answers = [
        await manage("GET", "/v1/keys"),
        await manage("GET", f"/v1/keys/{key['id']}"),
        await manage("PATCH", f"/v1/keys/{key['id']}", {"name": "other"}),
    ]

    secrets = [key["key"], turned["key"]]
    assert not [secret for secret in secrets if secret in repr(answers)]
    assert "hash" not in repr(answers)
    assert not [record for record in log for secret in secrets if secret in repr(vars(record))]


@pytest.mark.parametrize("user_id", ["nobody", "gone"])
async def test_a_key_for_a_user_who_is_not_there_is_refused(manage, made, user_id):
    await made("/v1/users", user_id="gone")
    await manage("DELETE", "/v1/users/gone")

    status, answer = await manage("POST", "/v1/keys", {"user_id": user_id})

    assert status == 422
    assert (answer["error"]["code"], answer["error"]["param"]) == ("user_not_found", "user_id")
    assert (await manage("GET", "/v1/keys"))[1]["data"] == []


async def test_only_what_is_named_changes_and_null_clears(manage, made):
    key = await made("/v1/keys", name="ci", rate_limit_rpm=10, allowed_models=["a:b"], metadata={"a": 1})

    changes = {"rate_limit_rpm": None, "allowed_models": None, "metadata": None, "rate_limit_tpm": 5}
    status, changed = await manage("PATCH", f"/v1/keys/{key['id']}", changes)

    assert status == 200
    del key["key"]
    assert changed == {**key, **changes, "metadata": {}}
    assert await manage("PATCH", f"/v1/keys/{key['id']}", {}) == (200, changed)


async def test_a_key_can_be_given_to_another_user(gateway, manage, made):
    await made("/v1/users", user_id="ann")
    key = await made("/v1/keys")
    assert await call(gateway, key["key"]) == 200

    status, changed = await manage("PATCH", f"/v1/keys/{key['id']}", {"user_id": "ann"})
    assert (status, changed["user_id"]) == (200, "ann")
    assert await call(gateway, key["key"]) == 200

    assert [row.user_id for row in await gateway.rows()] == [f"apikey-{key['id']}", "ann"]
    for wrong, code in [("nobody", "user_not_found"), (None, "invalid_request")]:
        status, answer = await manage("PATCH", f"/v1/keys/{key['id']}", {"user_id": wrong})
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (422, code, "user_id")


async def test_a_change_holds_for_the_very_next_call(gateway, manage, made):
    key = await made("/v1/keys")
    assert await call(gateway, key["key"]) == 200

    await manage("PATCH", f"/v1/keys/{key['id']}", {"allowed_models": ["stage:*"]})
    assert await call(gateway, key["key"]) == 403

    await manage("PATCH", f"/v1/keys/{key['id']}", {"allowed_models": None})
    assert await call(gateway, key["key"]) == 200


async def test_a_revoked_key_opens_nothing_and_stays_in_the_list(gateway, manage, made):
    key = await made("/v1/keys")
    assert await call(gateway, key["key"]) == 200

    for _ in range(2):
        assert await manage("DELETE", f"/v1/keys/{key['id']}") == (204, None)

    assert await call(gateway, key["key"]) == 401
    (shown,) = (await manage("GET", "/v1/keys"))[1]["data"]
    assert shown["revoked_at"] is not None
    status, answer = await manage("POST", f"/v1/keys/{key['id']}/rotate", {})
    assert (status, answer["error"]["code"]) == (409, "key_revoked")


async def test_after_a_rotation_both_secrets_open_for_a_while(gateway, manage, made):
    key = await made("/v1/keys")

    status, turned = await manage("POST", f"/v1/keys/{key['id']}/rotate", {"overlap_s": 60})

    assert status == 200 and turned["id"] == key["id"] and turned["key"] != key["key"]
    assert [await call(gateway, each["key"]) for each in (key, turned)] == [200, 200]
    assert turned["previous_expires_at"] > turned["created_at"]
    _, last = await manage("POST", f"/v1/keys/{key['id']}/rotate", {"overlap_s": 60})
    opened = [await call(gateway, each["key"]) for each in (key, turned, last)]
    assert opened == [401, 200, 200]


async def test_a_rotation_without_overlap_closes_at_once(gateway, manage, made):
    key = await made("/v1/keys")
    assert await call(gateway, key["key"]) == 200

    _, turned = await manage("POST", f"/v1/keys/{key['id']}/rotate", {"overlap_s": 0})

    assert [await call(gateway, each["key"]) for each in (key, turned)] == [401, 200]
    assert turned["previous_expires_at"] is None


async def test_a_rotation_overlaps_for_an_hour_unless_told_otherwise(manage, made):
    key = await made("/v1/keys")

    for body in (None, {}):
        before = datetime.now().astimezone()
        _, turned = await manage("POST", f"/v1/keys/{key['id']}/rotate", body)

        overlap = datetime.fromisoformat(turned["previous_expires_at"]) - before
        assert 3590 < overlap.total_seconds() < 3700


async def test_a_key_that_is_not_there_is_not_found(manage):
    for id in ["nothing", "a%2Fb", "%00", "%ED%A0%80", "x" * 2000]:
        for method, tail in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate")]:
            status, answer = await manage(method, f"/v1/keys/{id}{tail}", {})

            assert (status, answer["error"]["code"]) == (404, "key_not_found")


async def test_keys_are_found_by_their_user(manage, made):
    for user_id in ("ann", "bob"):
        await made("/v1/users", user_id=user_id)
        await made("/v1/keys", user_id=user_id, name=f"of {user_id}")

    _, page = await manage("GET", "/v1/keys?user_id=bob")

    assert [each["name"] for each in page["data"]] == ["of bob"]
    assert (page["cursor"], page["has_more"]) == (None, False)


async def test_an_expired_key_opens_nothing(gateway, made):
    key = await made("/v1/keys", expires_at="2020-01-01T00:00:00Z")

    assert await call(gateway, key["key"]) == 401
