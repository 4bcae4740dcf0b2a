"""The part of the table that is called with an ordinary key: inference, and the models to name there."""

from __future__ import annotations

from collections.abc import Mapping

from ..formats import BY_PATH
from ..handlers import models
from ..handlers.counting import count_tokens
from ..handlers.inference import calls_in
from .operation import JSON, Answer, Body, Operation, Shape, json_answer, reference

_CALL_ERRORS = (400, 401, 402, 403, 404, 413, 415, 422, 429, 500, 502, 503, 504)
_COUNT_ERRORS = tuple(status for status in _CALL_ERRORS if status != 402)
_PASSED_ON = {
    "4XX": json_answer("What the provider answered.", {"type": "object"}),
    "5XX": json_answer("What the provider answered.", {"type": "object"}),
}
_HEADERS = {"x-usage-id": "The id of this call's row."}

_EVENTS = "text/event-stream"
_SOUND = "audio/*"
_FORM = "multipart/form-data"
_STREAMED = {JSON: reference("ProviderAnswer"), _EVENTS: reference("ServerSentEvent")}
_PLAIN = {JSON: reference("ProviderAnswer")}


def _call(
    path: str,
    id: str,
    summary: str,
    shape: str,
    answers: Mapping[str, Shape],
    content_type: str = JSON,
    error: str = "Error",
) -> Operation:
    """One kind of call, with its row."""
    return Operation(
        method="POST",
        path=path,
        handler=calls_in(BY_PATH[path]),
        id=id,
        tag="Inference",
        summary=summary,
        body=Body(reference(shape), content_type),
        answers={"200": Answer("As the provider gave it.", answers, _HEADERS), **_PASSED_ON},
        errors=_CALL_ERRORS,
        error=error,
        needs="key",
    )


INFERENCE = (
    _call(
        "/v1/chat/completions",
        "create_chat_completion",
        "A chat completion, streamed or not",
        "ChatCompletionRequest",
        _STREAMED,
    ),
    _call(
        "/v1/completions",
        "create_completion",
        "A completion of the older kind, streamed or not",
        "CompletionRequest",
        _STREAMED,
    ),
    _call("/v1/responses", "create_response", "A response, streamed or not", "ResponseRequest", _STREAMED),
    _call("/v1/embeddings", "create_embeddings", "Embeddings", "EmbeddingsRequest", _PLAIN),
    _call(
        "/v1/moderations", "create_moderation", "What a text is classified as", "ModerationRequest", _PLAIN
    ),
    _call(
        "/v1/images/generations",
        "create_images",
        "Images from a text, streamed or not",
        "ImagesRequest",
        _STREAMED,
    ),
    _call(
        "/v1/audio/speech",
        "create_speech",
        "A text spoken",
        "SpeechRequest",
        {_SOUND: {"type": "string", "contentMediaType": _SOUND}, _EVENTS: reference("ServerSentEvent")},
    ),
    _call(
        "/v1/audio/transcriptions",
        "create_transcription",
        "What was spoken, as text, streamed or not",
        "TranscriptionRequest",
        {**_STREAMED, "text/plain": {"type": "string"}},
        _FORM,
    ),
    _call(
        "/v1/messages",
        "create_message",
        "A message in Anthropic's shape, streamed or not",
        "MessageRequest",
        _STREAMED,
        error="AnthropicError",
    ),
    Operation(
        method="POST",
        path="/v1/messages/count_tokens",
        handler=count_tokens,
        id="count_tokens",
        tag="Inference",
        summary="How many tokens a message would take; no call, so without a row",
        body=Body(reference("MessageRequest")),
        answers={"200": Answer("As the provider counts, or an estimate.", _PLAIN), **_PASSED_ON},
        errors=_COUNT_ERRORS,
        error="AnthropicError",
        needs="key",
    ),
    _call(
        "/v1/rerank",
        "create_ranking",
        "Documents ranked by what they say to a query",
        "RerankRequest",
        _PLAIN,
    ),
    Operation(
        method="GET",
        path="/v1/models",
        handler=models.list_models,
        id="list_models",
        tag="Models",
        summary="The models that may be named",
        answers={"200": json_answer("All of them.", reference("ModelList"))},
        errors=(401, 403, 503),
        needs="key",
    ),
    Operation(
        method="GET",
        path="/v1/models/{id:.+}",
        handler=models.get_model,
        id="get_model",
        tag="Models",
        summary="One model, by provider:model or provider/model",
        answers={"200": json_answer("The model.", reference("Model"))},
        errors=(400, 401, 403, 404, 503),
        needs="key",
    ),
)
