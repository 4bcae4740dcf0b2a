"""What the fake provider reads of a request, and its errors in the shape of the endpoint."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

ANTHROPIC_HEADERS = ("x-api-key", "anthropic-version")
ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def words(value: object) -> int:
    """The words in a text, or in all ``content`` and ``text`` members below a list of messages or parts."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(words(each) for each in value)
    if isinstance(value, dict):
        return words(value.get("content")) + words(value.get("text"))
    return 0


async def read_body(request: web.Request) -> dict[str, Any]:
    if request.content_type == "multipart/form-data":
        return await _form(request)
    try:
        body = await request.json()
    except ValueError:
        raise bad_request("the body is not JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the body is not an object")
    return body


async def _form(request: web.Request) -> dict[str, Any]:
    """The fields of a form; of a file, what it would hold if it were text. ``fake`` is written as JSON."""
    fields: dict[str, Any] = {}
    try:
        posted = await request.post()
    except (ValueError, AssertionError, HttpProcessingError):
        raise bad_request("the body is not a form") from None
    for name, value in posted.items():
        if isinstance(value, web.FileField):
            value = value.file.read().decode("utf-8", "replace")
        fields[name] = value
    if "fake" in fields:
        fields["fake"] = json.loads(fields["fake"])
    return fields


def first(body: dict[str, Any], *names: str) -> Any:
    return next((body[name] for name in names if body.get(name) is not None), None)


def bad_request(message: str, endpoint: str = "") -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps(error(400, message, endpoint)), content_type="application/json")


def error(status: int, message: str, endpoint: str = "") -> dict[str, Any]:
    if endpoint.startswith("/v1/messages"):
        kind = ANTHROPIC_ERRORS.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "code": None, "param": None}}


def check_headers(request: web.Request) -> None:
    """Those that Anthropic asks for."""
    for name in ANTHROPIC_HEADERS:
        if name not in request.headers:
            raise bad_request(f"{name} is missing", request.path)
