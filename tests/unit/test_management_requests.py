"""What the management API takes: every bound of every kind of value, and what a refusal says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from gateway.errors import BadRequest, UnprocessableEntity
from gateway.management.bodies import checked, parse_json
from gateway.management.checks import duration_s
from gateway.management.requests import BudgetCreate, KeyCreate, PriceCreate, UserCreate

PRICE = {"model": "fake:m", "input_per_million": 1, "output_per_million": 1}


def asked(model, text):
    """The request in the JSON ``text``."""
    return checked(model, parse_json(text.encode()))


def wrong(model, text):
    """The member that is wrong with ``text``."""
    with pytest.raises(UnprocessableEntity) as refusal:
        asked(model, text)
    assert (refusal.value.status, refusal.value.code) == (422, "invalid_request")
    return refusal.value.param


def user(**members):
    return json.dumps({"user_id": "a", **members})


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("{}", "user_id"),
        *((user(alias=alias), "alias") for alias in ("", "x" * 257, "a\0", "\ud800", 1, ["a"])),
        *((user(blocked=blocked), "blocked") for blocked in ("yes", 1, None)),
        *((user(rate_limit_rpm=limit), "rate_limit_rpm") for limit in (0, -1, 1.5, "5", True, 2**53 + 1)),
        *((user(metadata=value), "metadata") for value in ([], None, {"a": "x" * 4100}, {"a": "ü" * 2048})),
        *((user(metadata={"a": value}), "metadata") for value in (2**63, "b\0", ["\udfff"], {"a\0": 1})),
        (user(metadata={"a": json.loads("[" * 40 + "]" * 40)}), "metadata"),
        ('{"user_id": "a", "metadata": {"a": 1e999}}', "metadata"),
        (user(colour=1), "colour"),
        (user(**{"x" * 300: 1}), "x" * 256),
    ],
)
def test_the_member_that_is_wrong_is_named(text, param):
    assert wrong(UserCreate, text) == param


@pytest.mark.parametrize("value", ["swordfish\0", "swordfish" * 99, ["swordfish"], {"swordfish": 1}])
@pytest.mark.parametrize("member", ["alias", "user_id", "blocked", "rate_limit_rpm", "colour"])
def test_no_refusal_repeats_what_was_given(member, value):
    with pytest.raises(UnprocessableEntity) as refusal:
        asked(UserCreate, user(**{member: value}))

    assert "swordfish" not in refusal.value.message
    assert refusal.value.message.startswith(member) and refusal.value.message.endswith(".")


def test_a_name_that_is_half_a_surrogate_pair_is_refused():
    assert wrong(UserCreate, '{"user_id": "a", "\\ud800": 1}') is None
    assert wrong(UserCreate, '{"user_id": "a", "metadata": {"\\ud800": 1}}').startswith("metadata")


@pytest.mark.parametrize(
    "user_id", ["", "x" * 257, ".", "..", " a", "a ", "a\nb", "a\0b", "\ud800", "\x7f", "\u200b", None, 1]
)
def test_an_id_that_nobody_could_read_or_ask_for_is_refused(user_id):
    assert wrong(UserCreate, user(user_id=user_id)) == "user_id"


def test_metadata_is_kept_as_plain_json():
    given = {"whole": 2**53, "part": 0.1, "list": [True, None, "ü"], "deep": {"er": {}}}

    kept = asked(KeyCreate, json.dumps({"metadata": given})).metadata

    assert kept == given
    assert type(kept["part"]) is float


# --- amounts


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0.100000000000000001", "0.100000000000000001"),
        ("1e-7", "1E-7"),
        ("1.50", "1.5"),
        ('"0.30"', "0.3"),
        ("1E+2", "100"),
        ("-0.0", "0"),
        ("0e-999", "0"),
        ("1000000", "1000000"),
    ],
)
def test_an_amount_keeps_every_digit(text, amount):
    price = asked(PriceCreate, json.dumps(PRICE)[:-1] + f', "per_image": {text}}}')

    assert str(price.per_image) == amount and isinstance(price.per_image, Decimal)


@pytest.mark.parametrize(
    "text",
    ["-1", "1000000.000000000000000001", "1e-19", "1e999999", "1e-999999999", '"1e3"', '"NaN"', '"+1"', '""']
    + ['"٣"', '"1."', '"1\\n"', "true", "[]", f'"{"9" * 300}"', "9" * 4000, f'"0.{"0" * 250}1"'],
)
def test_what_is_no_amount_is_refused(text):
    assert wrong(PriceCreate, json.dumps(PRICE)[:-1] + f', "per_image": {text}}}') == "per_image"


def test_a_budget_is_counted_in_nano_dollars():
    assert asked(BudgetCreate, '{"max_usd": 1000000000}').max_usd == 10**9
    assert asked(BudgetCreate, '{"max_usd": 0.000000001}').max_usd == Decimal("1e-9")
    assert wrong(BudgetCreate, '{"max_usd": 1000000000.000000001}') == "max_usd"
    assert wrong(BudgetCreate, '{"max_usd": 0.0000000001}') == "max_usd"
    assert wrong(BudgetCreate, '{"max_usd": null}') == "max_usd"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "9" * 5000, "1e99999999999999999999", "01", "1.", ".5"])
def test_a_number_that_json_does_not_know_is_no_json(text):
    with pytest.raises(BadRequest) as refusal:
        asked(BudgetCreate, f'{{"max_usd": {text}}}')

    assert refusal.value.code == "invalid_json"


# --- times


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T23:59:59Z", datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("2026-01-31t23:59:59.1239z", datetime(2026, 1, 31, 23, 59, 59, 123000, tzinfo=UTC)),
        ("2026-02-01T00:59:59+01:00", datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999-12-30T23:59:59.123456789Z", datetime(9999, 12, 30, 23, 59, 59, 123000, tzinfo=UTC)),
    ],
)
def test_a_time_is_kept_in_utc_to_the_millisecond(text, moment):
    assert asked(KeyCreate, json.dumps({"expires_at": text})).expires_at == moment


@pytest.mark.parametrize(
    "moment",
    ["2026-01-01T00:00:00", "2026-01-01", "yesterday", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"]
    + ["0001-01-01T00:00:00+14:00", "2026-13-01T00:00:00Z", "2026-01-01T00:00:60Z", "٢026-01-01T00:00:00Z"]
    + [
        "2026-W01-1T00:00:00Z",
        "",
        0,
        1767225600,
        True,
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00Z\n",
    ],
)
def test_a_time_without_a_zone_or_beyond_what_stores_keep_is_refused(moment):
    assert wrong(KeyCreate, json.dumps({"expires_at": moment})) == "expires_at"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("1h", 3600), ("1d", 86400), ("1w", 604800), ("1mo", 2592000)]
    + [("1y", 31536000), ("31536000s", 31536000)],
)
def test_a_period_lasts_from_30_seconds_to_a_year(text, seconds):
    assert duration_s(text) == seconds
    assert asked(BudgetCreate, json.dumps({"max_usd": 1, "reset_every": text})).reset_every == text


@pytest.mark.parametrize(
    "text",
    ["29s", "2y", "31536001s", "0s", "1", "s", "01h", "1H", "1 h", "-1h", "1h\n", "١h", "9" * 99, "", 60],
)
def test_a_period_of_any_other_length_is_refused(text):
    assert wrong(BudgetCreate, json.dumps({"max_usd": 1, "reset_every": text})) == "reset_every"


# --- models


@pytest.mark.parametrize(
    "model", ["m", "a/b:c", ":m", "a:", "a b:c", "a:b c", "x:" + "y" * 255, "", 5, "a:\0", "a:b\n"]
)
def test_what_names_no_model_is_refused(model):
    assert wrong(PriceCreate, json.dumps({**PRICE, "model": model})) == "model"
