"""What a client asks of an inference endpoint, checked before anything else happens.

Pure. Holds the few members that the gateway itself must know, and the body as it goes on to the provider: as
it came, with only the model's name changed and what the format has to tell the provider beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct, field

from .errors import BadRequest
from .providers.base import Payload

MAX_NAME = 256
"""Characters of ``model`` and ``user``: what a column of the usage row holds."""
MAX_COUNT = 10_000_000
"""What a larger number of tokens or choices is taken for; no provider gives so many."""


class Members(Protocol):
    """A body that is read member by member, and written with some of them changed."""

    @property
    def members(self) -> Mapping[str, Any]:
        """All of them, by name."""
        ...

    def get(self, key: str) -> Any:
        """The member ``key``, or None."""
        ...

    def with_members(self, changes: Mapping[str, Any]) -> bytes:
        """The body with these members changed, or added. Raises ``BadRequest``."""
        ...


class InferenceRequest(Struct, frozen=True, kw_only=True):
    """One checked request. ``shows_usage``: the client asked for the stream's usage chunk itself;
    ``prompt_tokens`` are an estimate. ``output_tokens``: the most that the client wants for each of its
    ``choices``, None if it does not say; ``images``: how many it wants. ``user``: whom the body names;
    ``is_user_opaque``: that need not be one of the gateway's. ``is_relayed``: the answer is passed on piece
    by piece. ``additions`` go to the provider beside the model's name; ``headers``, too."""

    body: Members
    model: str
    stream: bool = False
    is_relayed: bool = False
    shows_usage: bool = True
    tags: str | None = None
    prompt_tokens: int = 0
    output_tokens: int | None = None
    choices: int = 1
    images: int = 0
    user: str | None = None
    is_user_opaque: bool = False
    additions: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def most_tokens(self, default_output_tokens: int) -> int:
        """What the call may take, as far as anybody can tell. ``default_output_tokens``: of each choice, for
        clients that do not say."""
        output = default_output_tokens if self.output_tokens is None else self.output_tokens
        return self.prompt_tokens + self.choices * output

    def upstream_body(self, model: str) -> Payload:
        """The body for the provider, which knows the model as ``model``. Raises ``BadRequest``."""
        return Payload(self.body.with_members({"model": model, **self.additions}), self.headers)


def name_in(body: Members, key: str) -> str | None:
    """The name under ``key``, if there is one. Raises ``BadRequest`` for what is no name."""
    return checked_name(body.get(key), key)


def checked_name(name: object, key: str) -> str | None:
    """``name``, which stood under ``key``. Raises ``BadRequest`` for what is no name."""
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{key} is a text that is not empty.", code=f"invalid_{key}", param=key)
    if len(name) > MAX_NAME:
        message = f"{key} has {len(name)} characters; {MAX_NAME} are the most."
        raise BadRequest(message, code=f"{key}_too_long", param=key)
    return name


def count_in(body: Members, *keys: str) -> int | None:
    """The largest number of something under ``keys``: providers differ in which of them they heed. What a
    value is else is for the provider to refuse."""
    counts = [each for each in map(body.get, keys) if _is_count(each)]
    return min(int(max(counts)), MAX_COUNT) if counts else None


def _is_count(value: object) -> bool:
    """Whether it is a whole number; for some providers 8.0 is one."""
    if isinstance(value, float):
        return value.is_integer() and value >= 0
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
