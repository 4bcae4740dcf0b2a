"""How the gateway does: for load balancers, Prometheus and whoever watches the ledger."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..access import require_master
from ..keys import ACCESS, FLEET, LIFECYCLE, METRICS, PRINCIPAL, WRITER
from ..merging import total


async def health(request: web.Request) -> web.Response:
    """``GET /health``: the process answers, whatever is wrong behind it."""
    return web.json_response({"status": "ok"})


async def readiness(request: web.Request) -> web.Response:
    """``GET /health/readiness``: 503 only if the next call would be refused. Trouble behind is named."""
    phase = request.app[LIFECYCLE].phase
    if phase != "running":
        return _not_ready(phase, reason=phase)
    stats = request.app[WRITER].stats()
    reasons, health = dict(stats.degraded), request.app[ACCESS].health
    if health.is_ailing:
        reasons["store_down"] = "no answer"
    degraded = sorted(reasons)
    if stats.would_refuse is not None:
        return _not_ready("refusing", reason=stats.would_refuse, degraded=degraded)
    if health.is_down:
        return _not_ready("refusing", reason="store_unavailable", degraded=degraded)
    return web.json_response({"status": "ready", "degraded": degraded})


async def metrics(request: web.Request) -> web.Response:
    """``GET /metrics``, of all workers together."""
    fleet = request.app.get(FLEET)
    body, content_type = request.app[METRICS].render() if fleet is None else await fleet.metrics()
    return web.Response(body=body, headers={"Content-Type": content_type})


async def log_writer(request: web.Request) -> web.Response:
    """``GET /v1/log-writer``: the live ledger in sum, and each worker's own."""
    require_master(request[PRINCIPAL])
    fleet = request.app.get(FLEET)
    ledgers = [request.app[WRITER].stats().to_json()] if fleet is None else await fleet.ledgers()
    return web.json_response({**total(ledgers), "workers": ledgers})


def _not_ready(status: str, **why: Any) -> web.Response:
    return web.json_response({"status": status, **why}, status=503)
