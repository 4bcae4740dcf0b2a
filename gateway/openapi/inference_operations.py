"""The part of the table that is called with an ordinary key: inference, and the models to name there."""

from __future__ import annotations

from ..formats import CHAT, EMBEDDINGS
from ..handlers import models
from ..handlers.inference import calls_in
from .operation import JSON, Answer, Body, Operation, json_answer, reference

_CALL_ERRORS = (400, 401, 402, 403, 404, 413, 415, 422, 429, 500, 502, 503, 504)
_PASSED_ON = {
    "4XX": json_answer("What the provider answered.", {"type": "object"}),
    "5XX": json_answer("What the provider answered.", {"type": "object"}),
}
_HEADERS = {"x-usage-id": "The id of this call's row."}

INFERENCE = (
    Operation(
        method="POST",
        path="/v1/chat/completions",
        handler=calls_in(CHAT),
        id="create_chat_completion",
        tag="Inference",
        summary="A chat completion, streamed or not",
        body=Body(reference("ChatCompletionRequest")),
        answers={
            "200": Answer(
                "As the provider gave it.",
                {JSON: reference("ProviderAnswer"), "text/event-stream": reference("ServerSentEvent")},
                _HEADERS,
            ),
            **_PASSED_ON,
        },
        errors=_CALL_ERRORS,
        needs="key",
    ),
    Operation(
        method="POST",
        path="/v1/embeddings",
        handler=calls_in(EMBEDDINGS),
        id="create_embeddings",
        tag="Inference",
        summary="Embeddings",
        body=Body(reference("EmbeddingsRequest")),
        answers={
            "200": Answer("As the provider gave it.", {JSON: reference("ProviderAnswer")}, _HEADERS),
            **_PASSED_ON,
        },
        errors=_CALL_ERRORS,
        needs="key",
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
