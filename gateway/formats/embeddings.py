"""Embeddings: texts go in, numbers come out, at once."""

from __future__ import annotations

from ..errors import BadRequest
from ..inference_request import Members
from .base import Format


class EmbeddingsFormat(Format):
    """``/v1/embeddings``."""

    has_stream = False
    has_text = False

    def check(self, body: Members) -> None:
        """See ``Format``."""
        if body.get("input") in (None, "", []):
            message = "input is a text, or a list that is not empty."
            raise BadRequest(message, code="invalid_input", param="input")


EMBEDDINGS = EmbeddingsFormat()
