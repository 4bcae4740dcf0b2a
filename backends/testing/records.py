"""Records for tests: plain ones, full ones, and the text that models and clients really produce."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from ..record import MAX_ERROR_MESSAGE, MAX_TAGS, TEXT_LIMITS, Batch, EndReason, Status, UsageRecord

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""The time of records that name none."""

_ENDS: tuple[tuple[Status, EndReason, int], ...] = (
    ("success", "complete", 200),
    ("success", "complete", 200),
    ("error", "provider_error", 502),
    ("cancelled", "client_disconnect", 499),
    ("rejected", "rejected", 402),
    ("absorbed", "timeout", 504),
)

nasty_texts: tuple[str, ...] = (
    "",
    " ",
    "NULL",
    "a\x00b",
    "\x00",
    "\ud800",
    "\udfff\ud800",
    "half an emoji \ud83d",
    "a byte that was no UTF-8 \udcff",
    "\ufffe\uffff",
    "\x01\x08\x0b\x1b[31m\x7f\x9f",
    "line\r\nbreaks\u2028and\u2029more\x85",
    "\ufeffwith a mark",
    "\u202eright to left\u202c",
    "e\u0301 is not \u00e9",
    "Z\u0351\u036b\u0343\u036a\u0302alg\u0302o",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \U0010ffff",
    "漢字かな交じり文",
    "مرحبا بالعالم",
    "'; DROP TABLE usage_logs; --",
    '" OR ""="',
    "\\ \\' \\\" \\n \\u0000",
    "%s %(id)s $1 ? :id {id} {{id}} ${ID}",
    "$where .a.b $ref",
    "1e309",
    "0x7fffffffffffffff",
    "<script>alert(1)</script>",
    "data: [DONE]\n\n",
)
"""Each of these has broken some database, driver or template. Some need ``sanitise`` first."""


def make_record(**overrides: Any) -> UsageRecord:
    """A record of a finished call with a new id; ``overrides`` are fields of ``UsageRecord``."""
    fields: dict[str, Any] = {
        "id": uuid7(),
        "request_id": "req-1",
        "timestamp": MOMENT,
        "endpoint": "/v1/chat/completions",
        "status": "success",
        "end_reason": "complete",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "status_code": 200,
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "total_tokens": 46,
        "usage_source": "provider",
        "cost": Decimal("0.000022200"),
        "latency_ms": 812.5,
    }
    return UsageRecord(**{**fields, **overrides})


def make_full_record(**overrides: Any) -> UsageRecord:
    """A record in which no field has its default, and every number needs all of its digits."""
    fields: dict[str, Any] = {
        "boot_id": uuid7(),
        "seq": 2**53 + 1,
        "api_key_id": "key-1",
        "user_id": "user-1",
        "route": "fast",
        "status": "error",
        "end_reason": "provider_error",
        "status_code": 502,
        "error_code": "provider_error",
        "error_message": "the provider answered 500",
        "stream": True,
        "prompt_tokens": 2**63 - 1,
        "completion_tokens": 0,
        "total_tokens": 2**53 + 3,
        "cached_tokens": 1,
        "reasoning_tokens": 2**31,
        "usage_source": "partial",
        "cost": Decimal("123456789.123456789"),
        "latency_ms": 1234.5678,
        "ttft_ms": 0.1,
        "tags": '{"team":"a","n":1.5,"list":[true,null]}',
    }
    return make_record(**{**fields, **overrides})


def make_bare_record(**overrides: Any) -> UsageRecord:
    """A record with its required fields alone; everything else is unknown."""
    fields: dict[str, Any] = {
        "id": uuid7(),
        "request_id": "req-0",
        "timestamp": MOMENT,
        "endpoint": "/v1/embeddings",
        "status": "cancelled",
        "end_reason": "client_disconnect",
    }
    return UsageRecord(**{**fields, **overrides})


def make_largest_record(character: str = "x") -> UsageRecord:
    """A record with every text at its bound, made of ``character`` where a caller or provider fills it in."""
    texts = {name: character * limit for name, limit in TEXT_LIMITS.items()}
    states = {name: "x" * TEXT_LIMITS[name] for name in ("status", "end_reason", "usage_source")}
    size, frame = len(character.encode()), len('{"t":""}')
    bound_in_bytes = {
        "error_message": character * (MAX_ERROR_MESSAGE // size),
        "tags": f'{{"t":"{character * ((MAX_TAGS - frame) // size)}"}}',
    }
    fields: dict[str, Any] = {**texts, **states, **bound_in_bytes}
    return make_full_record(**fields)


def make_records(count: int, **overrides: Any) -> tuple[UsageRecord, ...]:
    """``count`` records, one microsecond apart, with ids and request ids of their own."""
    return tuple(
        make_record(
            **{"timestamp": MOMENT + timedelta(microseconds=n), "request_id": f"req-{n}", **overrides}
        )
        for n in range(count)
    )


def make_varied_records(count: int, seed: int = 1) -> tuple[UsageRecord, ...]:
    """``count`` records as a gateway sees them in two months: several users, models and ends, unknown values
    of every kind, times and latencies that occur twice. The same for the same seed, but for their ids."""
    rng = Random(seed)
    return tuple(_varied(rng, number) for number in range(count))


def make_batch(count: int = 3, **overrides: Any) -> Batch:
    """A batch of ``make_records`` under a new id."""
    return Batch.of(make_records(count, **overrides))


def llm_texts(max_size: int = 300) -> st.SearchStrategy[str]:
    """Any text that a model or a client can produce: NUL, lone surrogates, control characters included."""
    anything = st.text(st.characters(exclude_categories=()), max_size=max_size)
    return st.one_of(anything, st.sampled_from(nasty_texts))


def json_values(max_leaves: int = 20) -> st.SearchStrategy[Any]:
    """Any JSON value, with integers of any size, floats that JSON lacks, and deep nesting."""
    leaves = st.none() | st.booleans() | st.integers() | _huge_ints() | st.floats() | llm_texts(40)
    nested = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(llm_texts(20), inner, max_size=4),
        max_leaves=max_leaves,
    )
    return nested | st.builds(_buried, leaves, st.integers(0, 200))


def money() -> st.SearchStrategy[Decimal]:
    """A cost as it is stored: nine places, not negative."""
    return st.integers(0, 10**15).map(lambda billionths: Decimal(billionths).scaleb(-9))


def token_counts() -> st.SearchStrategy[int | None]:
    """A token count, up to the largest that is stored."""
    return st.none() | st.integers(0, 2**63 - 1) | st.sampled_from((0, 1, 2**31, 2**53 + 1, 2**63 - 1))


def records() -> st.SearchStrategy[UsageRecord]:
    """Records with any text in every text column that callers and providers fill; to be sanitised."""
    text = llm_texts()
    return st.builds(
        make_record,
        request_id=text,
        user_id=st.none() | text,
        route=st.none() | text,
        model=st.none() | text,
        error_message=st.none() | llm_texts(1500),
        prompt_tokens=token_counts(),
        completion_tokens=token_counts(),
        total_tokens=token_counts(),
        cost=st.none() | money(),
        tags=st.none() | text | json_values().map(_loose_json),
    )


def _varied(rng: Random, number: int) -> UsageRecord:
    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.2 else value

    status, end_reason, status_code = rng.choice(_ENDS)
    prompt, completion = rng.randrange(5000), rng.randrange(2000)
    return make_record(
        request_id=f"req-{number}",
        timestamp=MOMENT
        + timedelta(minutes=rng.randrange(60 * 24 * 45), microseconds=rng.choice((0, 1, 999_999))),
        endpoint=rng.choice(("/v1/chat/completions", "/v1/embeddings")),
        status=status,
        end_reason=end_reason,
        status_code=status_code,
        api_key_id=maybe(f"key-{rng.randrange(3)}"),
        user_id=maybe(rng.choice(("ann", "Ann", "ann ", "bob", "zoë", "漢字", "o'hara", "%", ""))),
        provider=maybe(rng.choice(("openai", "local"))),
        model=maybe(rng.choice(("gpt-4o-mini", "fake", "Fake"))),
        stream=rng.random() < 0.5,
        prompt_tokens=maybe(prompt),
        completion_tokens=maybe(completion),
        total_tokens=maybe(prompt + completion),
        cached_tokens=maybe(prompt // 2),
        reasoning_tokens=maybe(completion // 3),
        cost=maybe(Decimal(rng.randrange(10**9)).scaleb(-9)),
        latency_ms=maybe(rng.choice((float(rng.randrange(50)), rng.random() * 3000))),
        ttft_ms=maybe(rng.random() * 300),
        tags=maybe(f'{{"n":{number}}}'),
    )


def _huge_ints() -> st.SearchStrategy[int]:
    return st.integers(60, 20_000).map(lambda bits: (1 << bits) - 1)


def _buried(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _loose_json(value: Any) -> str:
    """As a careless client writes it: NaN and lone surrogates included."""
    try:
        return json.dumps(value)
    except ValueError:  # an integer with more digits than Python prints
        return "{"
