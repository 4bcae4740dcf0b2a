"""The URL table, nothing else."""

from __future__ import annotations

from aiohttp import web

from .handlers import inference, models, operations, usage


def add_routes(app: web.Application) -> None:
    """Give ``app`` every endpoint that it has."""
    app.add_routes(
        [
            web.post("/v1/chat/completions", inference.chat_completions),
            web.post("/v1/embeddings", inference.embeddings),
            web.get("/v1/models", models.list_models),
            web.get("/v1/models/{id:.+}", models.get_model),
            web.get("/v1/usage", usage.list_usage),
            web.get("/v1/usage/summary", usage.summarise_usage),
            web.get("/v1/log-writer", operations.log_writer),
            web.get("/health", operations.health),
            web.get("/health/liveness", operations.health),
            web.get("/health/readiness", operations.readiness),
            web.get("/metrics", operations.metrics),
        ]
    )
