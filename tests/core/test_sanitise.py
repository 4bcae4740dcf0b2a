"""Any text that a model or a client can produce becomes text that every sink stores; nothing else changes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends import tags_text
from backends.record import COLUMNS, MAX_ROW_BYTES, MAX_TAGS, TEXT_LIMITS, UsageRecord, row_bytes
from backends.sanitise import clean_text, sanitise, without_texts
from backends.testing import (
    json_values,
    llm_texts,
    make_full_record,
    make_largest_record,
    make_record,
    nasty_texts,
    records,
)

STATES = {"status", "end_reason", "usage_source"}


def is_storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def as_python_writes_it(value: Any) -> str:
    """Which is no JSON, but near it; and no text at all for an integer of more digits than Python prints."""
    try:
        return repr(value)
    except ValueError:
        return "{"


@given(records())
def test_every_text_is_storable_and_within_its_bound(row: UsageRecord) -> None:
    clean = sanitise(row)

    for name, limit in TEXT_LIMITS.items():
        text = getattr(clean, name)
        assert text is None or (is_storable(text) and len(text) <= limit), name
    assert row_bytes(clean) <= MAX_ROW_BYTES


@given(records())
def test_nothing_but_text_is_touched(row: UsageRecord) -> None:
    clean = sanitise(row)

    for name in set(COLUMNS) - TEXT_LIMITS.keys() | STATES:
        assert getattr(clean, name) is getattr(row, name), name


@given(records())
def test_what_is_clean_stays_as_it_is(row: UsageRecord) -> None:
    clean = sanitise(row)

    assert sanitise(clean) == clean


def test_an_ordinary_record_is_not_copied() -> None:
    for row in (make_record(), make_full_record(), *map(make_largest_record, ("x", "é", "漢", "\U0001f44b"))):
        assert sanitise(row) is row


@given(llm_texts(), st.integers(1, 300))
@example("x" * 300, 1)
def test_a_text_is_kept_as_far_as_it_fits(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)

    assert len(cleaned) == min(len(text), limit)
    kept = cleaned if len(text) <= limit else cleaned[:-1]
    for before, after in zip(text, kept, strict=False):
        assert after == (before if is_storable(before) else "\ufffd")


@pytest.mark.parametrize("character", ["x", "é", "漢", "\U0001f44b"])
def test_an_error_message_is_cut_at_1_kib_and_never_within_a_character(character: str) -> None:
    message = sanitise(make_record(error_message=character * 2000)).error_message

    assert message is not None
    assert 1020 <= len(message.encode()) <= 1024
    assert message == character * (len(message) - 1) + "…"


@given(json_values())
def test_tags_are_the_text_of_one_json_object_within_4_kib(value: Any) -> None:
    text = tags_text(value)

    if text is not None:
        assert isinstance(json.loads(text, parse_constant=_refuse), dict)
        assert len(text.encode()) <= MAX_TAGS
        assert is_storable(text)
        assert sanitise(make_record(tags=text)).tags == text


@given(llm_texts(6000) | json_values().map(as_python_writes_it))
def test_tags_that_come_as_text_are_one_json_object_too(text: str) -> None:
    tags = sanitise(make_record(tags=text)).tags

    assert tags is None or isinstance(json.loads(tags, parse_constant=_refuse), dict)
    assert tags is None or len(tags.encode()) <= MAX_TAGS


@pytest.mark.parametrize("text", nasty_texts)
def test_a_value_within_tags_is_cleaned_like_any_text(text: str) -> None:
    tags = tags_text({"key": text})

    assert tags is not None
    assert json.loads(tags) == {"key": clean_text(text, MAX_TAGS)}


def test_tags_that_are_nothing_are_unknown() -> None:
    assert tags_text(None) is None
    assert tags_text({}) is None


def test_tags_that_are_no_object_are_kept_under_value() -> None:
    assert tags_text([1, "a"]) == '{"value":[1,"a"]}'
    assert tags_text(0) == '{"value":0}'


def test_keys_that_do_not_fit_are_left_out_and_counted() -> None:
    tags = tags_text({"small": 1, **{f"key {n}": "漢" * 300 for n in range(10)}})

    assert tags is not None and len(tags.encode()) <= MAX_TAGS
    kept = json.loads(tags)
    assert kept["small"] == 1
    assert kept["…"] == 10 - (len(kept) - 2)


@pytest.mark.parametrize(
    "tags",
    [
        {f"key{number}": number for number in range(300_000)},
        {"one": [[number] for number in range(300_000)]},
        {"one": {f"key{number}": {"a": number} for number in range(300_000)}},
    ],
    ids=["many keys", "a long list", "a large object"],
)
def test_tags_of_any_size_are_cut_at_once_and_hold_up_nobody(tags: dict[str, Any]) -> None:
    """A body may be 32 MiB: what took minutes for ten thousand keys stopped the whole gateway."""
    began = time.process_time()
    text = tags_text(tags)

    assert time.process_time() - began < 2, "milliseconds of work, however busy the machine is"
    assert text is not None and len(text.encode()) <= MAX_TAGS
    assert isinstance(json.loads(text), dict)


def test_numbers_that_json_or_a_database_lacks_become_text() -> None:
    tags = tags_text({"big": 2**63, "nan": float("nan"), "inf": -float("inf"), "huge": 1 << 8000})

    assert tags is not None
    values = json.loads(tags)
    assert values["big"] == hex(2**63)
    assert values.get("ok", 7) == 7
    assert all(
        isinstance(value, str) for key, value in values.items() if key in ("big", "huge", "nan", "inf")
    )


def test_what_is_nested_too_deep_is_cut() -> None:
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]

    tags = tags_text({"deep": deep})

    assert tags is not None and "bottom" not in tags and "…" in tags


def test_a_record_without_texts_keeps_its_money_and_its_states() -> None:
    row = make_full_record()

    bare = without_texts(row)

    for name in COLUMNS:
        if name in TEXT_LIMITS.keys() - STATES:
            assert not getattr(bare, name), name
        else:
            assert getattr(bare, name) == getattr(row, name), name


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
