from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

MODEL = "fake:m"


def at(**away):
    return (datetime.now(UTC) + timedelta(**away)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def price(**members):
    return {"model": MODEL, "input_per_million": "1", "output_per_million": "2", **members}


def refused(answer):
    status, body = answer
    return status, body["error"]["code"], body["error"]["param"]


async def cost(gateway):
    assert (await gateway.post(gateway.body(MODEL))).status == 200
    return (await gateway.rows())[-1].cost


async def test_a_price_holds_from_the_very_next_call_on(gateway, manage, made):
    before = await cost(gateway)

    entry = await made("/v1/pricing", **price(input_per_million="1000", output_per_million=0))
    during = await cost(gateway)
    await manage("DELETE", f"/v1/pricing/{entry['id']}")

    assert before < during and await cost(gateway) == before
    assert during % Decimal("0.001") == 0


async def test_a_price_is_in_force_from_now_on_unless_told_otherwise(made):
    entry = await made("/v1/pricing", **price())

    assert entry["effective_at"] == entry["created_at"]


async def test_every_digit_is_kept(gateway, manage):
    body = (
        b'{"model": "fake:m", "input_per_million": 0.100000000000000001, "output_per_million": 1e-7,'
        b' "cached_input_per_million": 1.50, "reasoning_per_million": "0.30", "per_image": 1E+2,'
        b' "per_request": -0.0}'
    )

    response = await gateway.post(body, "/v1/pricing")

    assert response.status == 201
    entry = await response.json()
    assert {name: value for name, value in entry.items() if name.startswith("per_") or "per_m" in name} == {
        "input_per_million": "0.100000000000000001",
        "output_per_million": "0.0000001",
        "cached_input_per_million": "1.5",
        "reasoning_per_million": "0.3",
        "per_image": "100",
        "per_request": "0",
    }
    assert await manage("GET", f"/v1/pricing/{entry['id']}") == (200, entry)


async def test_a_model_has_one_price_from_a_time_on(manage, made):
    entry = await made("/v1/pricing", **price(effective_at="2024-01-01T00:00:00.1239Z"))
    assert entry["effective_at"] == "2024-01-01T00:00:00.123Z"

    answer = await manage("POST", "/v1/pricing", price(effective_at="2024-01-01T01:00:00.123+01:00"))

    assert refused(answer) == (409, "price_exists", "effective_at")
    await made("/v1/pricing", **price(model="fake:n", effective_at="2024-01-01T00:00:00.123Z"))
    _, page = await manage("GET", "/v1/pricing?model=fake:n")
    assert [each["model"] for each in page["data"]] == ["fake:n"]


async def test_a_price_that_is_in_force_is_history(manage, made):
    entry = await made("/v1/pricing", **price())

    answer = await manage("PATCH", f"/v1/pricing/{entry['id']}", {"input_per_million": 5})

    assert refused(answer) == (409, "price_in_force", None)
    assert await manage("GET", f"/v1/pricing/{entry['id']}") == (200, entry)


async def test_a_price_to_come_can_be_changed(manage, made):
    first = await made("/v1/pricing", **price(effective_at=at(days=1), per_image=3))
    other = await made("/v1/pricing", **price(effective_at=at(days=2)))
    path = f"/v1/pricing/{first['id']}"

    status, changed = await manage("PATCH", path, {"input_per_million": "0.5", "per_image": None})

    assert (status, changed) == (200, {**first, "input_per_million": "0.5", "per_image": None})
    assert await manage("PATCH", path, {}) == (200, changed)
    taken = await manage("PATCH", path, {"effective_at": other["effective_at"]})
    assert refused(taken) == (409, "price_exists", "effective_at")
    for member in ("model", "input_per_million"):
        assert refused(await manage("PATCH", path, {member: None})) == (422, "invalid_request", member)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_price_that_is_not_there_is_not_found(manage, method):
    assert refused(await manage(method, "/v1/pricing/none", {})) == (404, "price_not_found", None)
