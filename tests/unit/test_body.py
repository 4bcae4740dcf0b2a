"""A call's body: read as JSON, passed on as its bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.body import CallBody
from gateway.errors import BadRequest

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
JSON_OBJECTS = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(["model", "stream"]), JSON_VALUES, max_size=6
)


@given(JSON_OBJECTS, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_members_are_what_the_standard_parser_reads(
    payload: dict[str, Any], indent: int | str | None, is_ascii: bool
) -> None:
    text = json.dumps(payload, indent=indent, ensure_ascii=is_ascii)

    body = CallBody.parse(text.encode("utf-8", "surrogatepass"))

    assert body.members == json.loads(text)


@given(JSON_OBJECTS, JSON_OBJECTS)
def test_changed_members_have_their_new_values_and_all_others_their_old(
    payload: dict[str, Any], changes: dict[str, Any]
) -> None:
    body = CallBody.parse(json.dumps(payload).encode())

    changed = body.with_members(changes)

    assert json.loads(changed) == {**payload, **changes}


def test_only_the_named_member_changes_and_every_other_byte_stays() -> None:
    raw = '\n{ "a" : 1.50e+1 ,"model":\t"fast" , "ü":"\\u00e9 ü", "b":[ 1,2 ]}\r\n'.encode()

    changed = CallBody.parse(raw).with_members({"model": "x"})

    assert changed == raw.replace(b'"fast"', b'"x"')


def test_no_changes_give_the_very_same_bytes() -> None:
    raw = b' {"model": "fast", "model": "slow"} '

    assert CallBody.parse(raw).with_members({}) == raw


def test_all_members_of_one_name_are_replaced_also_the_escaped_ones() -> None:
    raw = b'{"model": "a", "mod\\u0065l": "b", "n": 1}'

    changed = CallBody.parse(raw).with_members({"model": "x"})

    assert changed == b'{"model": "x", "mod\\u0065l": "x", "n": 1}'


def test_the_last_of_several_members_of_one_name_is_read() -> None:
    assert CallBody.parse(b'{"model": "a", "model": "b"}').get("model") == "b"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"{}", b'{"model": "x"}'),
        (b'{"n": 1 }', b'{"n": 1 ,"model": "x"}'),
        (b' {"n": {"model": "}"}}\n', b' {"n": {"model": "}"},"model": "x"}\n'),
    ],
)
def test_a_missing_member_is_added_at_the_end(raw: bytes, expected: bytes) -> None:
    assert CallBody.parse(raw).with_members({"model": "x"}) == expected


def test_a_member_that_is_missing_reads_as_none() -> None:
    assert CallBody.parse(b"{}").get("model") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a": 1',
        b'{"a": 1,}',
        b'{"a": 1,,"b": 2}',
        b'{"a": 1 "b": 2}',
        b"{,}",
        b"{a: 1}",
        b"{'a': 1}",
        b'{"a": 1}}',
        b'{"a": 1} {"b": 2}',
        b'{"a": 01}',
        b'{"a": tru}',
        b'{"a": "line\nend"}',
        b'{"a": "\\x"}',
        b"[1",
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b'{"a\x01": 1}',
        b'{"a\\x": 1}',
        b'{"a\\": 1}',
        b'{"\\n"x: 1}',
        b'{"a"x: 1}',
        b'{\xc2\xa0"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": NaN}',
        b'{"a": [-Infinity]}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_json_is_refused_as_invalid_json(raw: bytes) -> None:
    with pytest.raises(BadRequest) as refusal:
        CallBody.parse(raw)

    assert refusal.value.code == "invalid_json"


@pytest.mark.parametrize("raw", [b"[]", b" null", b"1", b'"text"', b"true\n", b'[{"model": "x"}]'])
def test_json_that_is_no_object_is_refused_as_invalid_body(raw: bytes) -> None:
    with pytest.raises(BadRequest) as refusal:
        CallBody.parse(raw)

    assert refusal.value.code == "invalid_body"


def test_more_members_than_any_endpoint_knows_are_refused_as_invalid_body() -> None:
    most = b"{" + b'"a":1,' * 999 + b'"b":2}'
    assert CallBody.parse(most).get("b") == 2

    with pytest.raises(BadRequest) as refusal:
        CallBody.parse(most.replace(b"{", b'{"a":1,'))

    assert refusal.value.code == "invalid_body"


@pytest.mark.parametrize("nested", [b"[" * 200_000, b'{"a":' * 200_000, b"[" * 200_000 + b"]" * 200_000])
def test_deep_nesting_is_refused_and_never_a_recursion_error(nested: bytes) -> None:
    for raw in (nested, b'{"a": ' + nested + b"}"):
        with pytest.raises(BadRequest) as refusal:
            CallBody.parse(raw)

        assert refusal.value.code == "invalid_json"


@given(st.binary(max_size=60) | st.text('{}[]",:\\ n1eE.-u', max_size=30).map(str.encode))
def test_any_bytes_are_read_as_the_standard_parser_does_or_refused(raw: bytes) -> None:
    try:
        members = CallBody.parse(raw).members
    except BadRequest:
        return

    assert members == json.loads(raw)


def test_neither_an_error_nor_the_body_shows_what_was_sent() -> None:
    body = CallBody.parse(b'{"messages": "a secret prompt"}')
    with pytest.raises(BadRequest) as refusal:
        CallBody.parse(b'{"messages": "a secret prompt')

    assert "secret" not in repr(body) + str(refusal.value) + repr(refusal.value.__cause__)


@pytest.mark.parametrize(
    "rest",
    [
        b'"model": "a", ',
        b'"mode\\u006c": "a", ',
        b'"x": "model", ',
        b'"x": {"model": "a"}, ',
        b'"x": "\\"model\\": 1", ',
        b'"x": "\\\\", ',
        b'"stream": [1, "model"], ',
    ],
)
@pytest.mark.parametrize("value", [b'"b"', b'"\\u0062"', b'"q\\"b"', b"[1]"])
def test_wherever_a_name_stands_only_the_members_of_that_name_are_replaced(rest: bytes, value: bytes) -> None:
    raw = b"{" + rest + b'"model" : ' + value + b', "z": 1.0}'

    changed = CallBody.parse(raw).with_members({"model": "new"})

    assert json.loads(changed, object_pairs_hook=list) == [
        (key, "new" if key == "model" else each) for key, each in json.loads(raw, object_pairs_hook=list)
    ]
    assert changed.endswith(b', "z": 1.0}')
