"""What a provider says about a failure is made fit for clients and rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers.redaction import message_in_body, redact, retry_after

KEY = "a plain word, but the key"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdefgh12345678",
        "sk-proj-abc_DEF-123456789",
        "sk-abc***xyz9",
        "tg-0123456789abcdef",
        "gsk_0123456789",
        "AIzaSyA0123456789abcdefgh",
        "eyJhbGciOiJIUzI1NiJ9eyJzdWIiOiIxMjM0NTY3ODkwIn0",
        "0123456789abcdef" * 4,
        KEY,
    ],
)
def test_keys_are_taken_out(secret: str) -> None:
    text = redact(f"Incorrect key provided: {secret}. Look it up.", KEY)

    assert text == "Incorrect key provided: [redacted]. Look it up."


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Basic"])
def test_credentials_of_a_header_are_taken_out(scheme: str) -> None:
    assert redact(f"Authorization: {scheme} abc.def==", "") == f"Authorization: {scheme} [redacted]"


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 8192 tokens, you asked for 9000.",
        "The task-based, risk-free ask failed.",
        "Request req_0123456789abcdef0123456789abcdef failed.",
        "See 018f2b1e-7c3a-7abc-9def-0123456789ab.",
    ],
)
def test_ordinary_sentences_stay(text: str) -> None:
    assert redact(text, KEY) == text


def test_control_characters_and_line_ends_become_one_space() -> None:
    assert redact("a\r\n\tb\x00\x1b[31mc\u2028d\ud800e\n", "") == "a b [31mc d e"


@given(st.text(max_size=2000), st.text(max_size=8))
def test_any_text_becomes_one_short_printable_line(text: str, key: str) -> None:
    line = redact(text, key)

    assert len(line) <= 400
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 or 0xD800 <= ord(each) < 0xE000 for each in line)


def test_a_key_that_the_cut_would_halve_is_gone() -> None:
    assert "sk-secret" not in redact("x" * 5 + " y" * 194 + " sk-secret0123456789", "")


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "too long", "type": "invalid_request_error"}},
        {"error": "too long"},
        {"message": "too long", "object": "error"},
    ],
)
def test_the_usual_shapes_of_errors_are_read(payload: object) -> None:
    assert message_in_body(json.dumps(payload).encode(), "") == "too long"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>502 Bad Gateway</body></html>",
        b"plain text",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"error": null}',
        b'{"error": {"message": 5}}',
        b'{"error": {"message": "<!DOCTYPE html><html>no</html>"}}',
        b"[" * 100_000,
        b"9" * 5000,
    ],
)
def test_anything_else_says_nothing(body: bytes) -> None:
    assert message_in_body(body, "") == ""


@pytest.mark.parametrize("value", ["0", "30", "Fri, 31 Dec 2027 23:59:59 GMT"])
def test_a_plausible_retry_after_is_kept(value: str) -> None:
    assert retry_after(value) == value


@pytest.mark.parametrize(
    "value",
    [None, "", "-1", "1.5", "soon", "99999999", "\u0663", "30\r\nx: y", "Fri, 31 Dec 2027", "1" * 500],
)
def test_any_other_retry_after_is_dropped(value: str | None) -> None:
    assert retry_after(value) is None
