"""Forms: their fields are read, one is replaced, and every other byte stays what it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.form_body import MAX_PARTS, FormBody

TYPE = "multipart/form-data; boundary=xyz"


def part(name: str, content: bytes, disposition: str = "") -> bytes:
    head = f'--xyz\r\nContent-Disposition: form-data; name="{name}"{disposition}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--xyz--\r\n"


SOUND = part("file", b"\x00\xff--xy\r\n--xyzz\r\n", '; filename="a.wav"')


def test_fields_are_read_and_files_are_not() -> None:
    body = FormBody.parse(form(part("model", b"a:m"), SOUND, part("empty", b"")), TYPE)

    assert body.members == {"model": "a:m", "empty": ""}
    assert (body.get("model"), body.get("file")) == ("a:m", None)


def test_only_the_field_that_is_changed_changes() -> None:
    raw = b"preamble\r\n" + form(SOUND, part("model", b"a:m"), part("language", b"en")) + b"epilogue"

    assert FormBody.parse(raw, TYPE).with_members({"model": "m"}) == raw.replace(b"a:m", b"m")


def test_a_field_that_is_there_twice_is_changed_twice() -> None:
    body = FormBody.parse(form(part("model", b"a:m"), part("model", b"a:n")), TYPE)

    assert body.get("model") == "a:n"
    assert body.with_members({"model": "n"}) == form(part("model", b"n"), part("model", b"n"))


@pytest.mark.parametrize(
    "content_type",
    ['multipart/form-data; boundary="xyz"', "Multipart/Form-Data; charset=utf-8; BOUNDARY=xyz"],
)
def test_a_boundary_may_be_written_in_other_ways(content_type: str) -> None:
    assert FormBody.parse(form(part("model", b"a:m")), content_type).members == {"model": "a:m"}


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b"", TYPE),
        (b"--xyz", TYPE),
        (part("model", b"a:m"), TYPE),
        (form(part("model", b"a:m"))[:-4], TYPE),
        (b"--xyz\r\nContent-Disposition: form-data\r\n--xyz--\r\n", TYPE),
        (form(part("model", b"\xff")), TYPE),
        (form(part("model", b"a:m")), "multipart/form-data"),
        (form(*[part("x", b"")] * (MAX_PARTS + 1)), TYPE),
    ],
    ids=range(8),
)
def test_what_is_no_form_is_refused(raw: bytes, content_type: str) -> None:
    with pytest.raises(BadRequest) as refused:
        FormBody.parse(raw, content_type)

    assert refused.value.code == "invalid_body"


@given(st.lists(st.binary(max_size=30)), st.binary(max_size=30))
def test_any_file_goes_through_as_it_is(contents: list[bytes], last: bytes) -> None:
    files = [part("file", each, '; filename="x"') for each in (*contents, last) if b"--xyz" not in each]
    raw = form(*files, part("model", b"a:m"))

    assert FormBody.parse(raw, TYPE).with_members({"model": "m"}) == form(*files, part("model", b"m"))


@given(st.binary(max_size=80))
def test_noise_is_refused_or_passed_on_as_it_is(noise: bytes) -> None:
    raw = b"--xyz\r\n" + noise + b"\r\n--xyz--"
    try:
        assert FormBody.parse(raw, TYPE).with_members({}) == raw
    except BadRequest:
        pass
