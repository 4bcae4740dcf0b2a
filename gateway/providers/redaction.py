"""What a provider says about a failure, made fit for our clients and for the row.

Takes the body of an error; gives one short line without keys, control characters or mark-up.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from email.utils import parsedate_to_datetime

from .errors import MAX_MESSAGE

_REDACTED = "[redacted]"
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=*-]{4,}", re.IGNORECASE)
_PREFIXED_KEY = re.compile(r"\b(?:sk|pk|rk|tg|gsk|xai|hf|ghp|key)[-_][\w.*-]{5,}[\w*]|\bAIza[\w-]{10,}")
_LONG_TOKEN = re.compile(r"[\w+/=-]{40,}")  # longer than a UUID or a provider's request id
_CONTROLS = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]+")
_MARKUP = re.compile(r"<\s*(?:!doctype|html|head|body|script)\b", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,7}")


def redact(text: str, api_key: str) -> str:
    """``text`` as one line of at most 400 characters, without ``api_key`` and whatever looks like a key."""
    text = _CONTROLS.sub(" ", text).strip()
    if api_key:
        text = text.replace(api_key, _REDACTED)
    text = _BEARER.sub(rf"\1 {_REDACTED}", text)
    text = _PREFIXED_KEY.sub(_REDACTED, text)
    text = _LONG_TOKEN.sub(_REDACTED, text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def message_in_body(body: bytes, api_key: str) -> str:
    """What the body of an error says, redacted; empty when it says nothing in JSON."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return error_message(payload, api_key)


def error_message(payload: object, api_key: str) -> str:
    """The text of an error in one of its usual shapes, redacted: ``{"error": {"message"}}``,
    ``{"error": text}`` or ``{"message"}``."""
    if not isinstance(payload, dict):
        return ""
    error = payload.get("error")
    text = error.get("message") if isinstance(error, dict) else error or payload.get("message")
    if not isinstance(text, str) or _MARKUP.search(text):
        return ""
    return redact(text, api_key)


def retry_after(value: str | None) -> str | None:
    """``value`` when it is a plausible Retry-After: seconds, or a date with its zone."""
    if value is None or _SECONDS.fullmatch(value):
        return value
    return value if _is_http_date(value) else None


def _is_http_date(value: str) -> bool:
    if len(value) > len("Wednesday, 09-Nov-1994 08:49:37 GMT") or not value.isprintable():
        return False
    try:
        moment: datetime = parsedate_to_datetime(value)
    except ValueError:
        return False
    return moment.tzinfo is not None
