"""The parameters of a URL that several endpoints have in common, checked. Pure; every refusal names its
parameter."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import BadRequest

MAX_VALUE = 256
"""Characters that a text column of the row holds: nothing longer can match."""


def check_names(parameters: Mapping[str, str], repeated: frozenset[str], known: tuple[str, ...]) -> None:
    """Return if each of ``parameters`` is one of ``known`` and came once. Raises ``BadRequest`` with code
    ``unknown_parameter`` or ``invalid_parameter``; so do the others here, with the latter."""
    for name in parameters:
        if name not in known:
            there_are = f"There are: {', '.join(known)}." if known else "There are none here."
            message = f"There is no such parameter. {there_are}"
            raise BadRequest(message, "unknown_parameter", name[:MAX_VALUE])
        if name in repeated:
            raise invalid_parameter(name, "It may be given once.")


def parse_limit(parameters: Mapping[str, str], highest: int) -> int | None:
    """The number in ``limit``, if there is one."""
    if "limit" not in parameters:
        return None
    text = parameters["limit"]
    # Not all that int() reads is meant as a number: signs, blanks, underscores, digits of other scripts.
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    if not 1 <= limit <= highest:
        raise invalid_parameter("limit", f"It is a number from 1 to {highest}.")
    return limit


def parse_text(parameters: Mapping[str, str], name: str) -> str:
    """The text in ``name``, which is there."""
    value = parameters[name]
    if not value or len(value) > MAX_VALUE or not is_storable(value):
        raise invalid_parameter(name, f"It has 1 to {MAX_VALUE} characters, as a row can hold them.")
    return value


def is_storable(text: str) -> bool:
    """Whether every database can hold ``text``: it has neither NUL nor lone surrogates."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def invalid_parameter(name: str, why: str) -> BadRequest:
    """The refusal of the parameter ``name``."""
    return BadRequest(f"The parameter {name} is not valid. {why}", "invalid_parameter", name)
