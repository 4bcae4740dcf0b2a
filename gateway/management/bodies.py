"""The body of a management request: JSON whose numbers keep every digit, checked against a model."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from aiohttp import web
from pydantic import ValidationError

from ..errors import BadRequest, PayloadTooLarge, UnprocessableEntity, UnsupportedMediaType
from .requests import Request

MAX_BODY_BYTES = 256 * 1024
MAX_PARAM = 256
_IN_OTHER_WORDS = {"missing": "is missing", "extra_forbidden": "is not known here"}

M = TypeVar("M", bound=Request)


async def read_body(request: web.Request, model: type[M], *, is_optional: bool = False) -> M:
    """The body of ``request`` as a ``model``; with ``is_optional`` no body is an empty one. Raises
    ``BadRequest``, ``UnsupportedMediaType``, ``PayloadTooLarge`` and what ``checked`` raises."""
    raw = await request.read()
    if not raw and is_optional:
        return checked(model, {})
    if request.content_type != "application/json":
        raise UnsupportedMediaType("The body is JSON: send content-type: application/json.")
    if len(raw) > MAX_BODY_BYTES:
        raise PayloadTooLarge(f"The body is larger than the {MAX_BODY_BYTES} bytes that this endpoint takes.")
    return checked(model, parse_json(raw))


def checked(model: type[M], values: Any) -> M:
    """``values`` as a ``model``. Raises ``UnprocessableEntity``, whose ``param`` is the path of the first
    member that is wrong, with dots; its text shows no value."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _told(error) from None


def parse_json(raw: bytes) -> Any:
    """The value in ``raw``; numbers with a point are ``Decimal``. Raises ``BadRequest``, ``invalid_json``."""
    try:
        return json.loads(raw.decode(), parse_float=Decimal, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _invalid(f"The request body is not valid JSON ({place}).") from None
    except UnicodeDecodeError:
        raise _invalid("The request body is not UTF-8 text.") from None
    except (ValueError, ArithmeticError):  # NaN, or digits beyond what a number can hold
        raise _invalid("The request body holds a number that JSON does not allow.") from None
    except RecursionError:
        raise _invalid("The request body is nested too deeply.") from None


def _told(error: ValidationError) -> UnprocessableEntity:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])[:MAX_PARAM]
    why = _IN_OTHER_WORDS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    if not path:
        return UnprocessableEntity(
            "The body is a JSON object whose names are Unicode text.", "invalid_request"
        )
    return UnprocessableEntity(f"{path} {_joined(why)}.", "invalid_request", path)


def _joined(why: str) -> str:
    """pydantic's own texts begin with a capital; ours go on behind the name."""
    return f"is not valid: {why}" if why[:1].isupper() else why


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _invalid(message: str) -> BadRequest:
    return BadRequest(message, "invalid_json")
