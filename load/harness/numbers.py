"""What calls add up to: throughput over a scenario's own time, percentiles, the gateway's own share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.calls import Call

SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def percentiles(values: Iterable[float]) -> dict[str, float] | None:
    """By nearest rank, to a hundredth; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return {name: round(nearest_rank(ordered, share), 2) for name, share in SHARES.items()}


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """The smallest of the values with at least ``share`` of all at or below it."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def by_scenario(calls: Iterable[Call], provider_ms: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """A summary of each scenario, in the order of their first calls. ``provider_ms`` is the provider's own
    time by request id."""
    found: dict[str, list[Call]] = {}
    for call in sorted(calls, key=lambda each: each.due_ms):
        found.setdefault(call.scenario, []).append(call)
    return {name: summary(each, provider_ms) for name, each in found.items()}


def summary(calls: Sequence[Call], provider_ms: Mapping[str, float]) -> dict[str, Any]:
    """Times in milliseconds, of answered calls. ``overhead_ms`` is a call's time less that which its provider
    took for it: gateway, client and the wires between them."""
    answered = [call for call in calls if call.outcome == "answered"]
    spent_s = (max(call.done_ms for call in calls) - min(call.due_ms for call in calls)) / 1000
    overhead = [
        call.done_ms - call.sent_ms - provider_ms[call.request_id]
        for call in answered
        if call.request_id in provider_ms
    ]
    return {
        "calls": len(calls),
        "answered": len(answered),
        "failed": sum(call.failed for call in calls),
        "outcomes": dict(Counter(call.outcome for call in calls)),
        "codes": dict(Counter(call.code for call in calls if call.code)),
        "seconds": round(spent_s, 2),
        "per_second": round(len(answered) / spent_s, 1) if spent_s > 0 else 0.0,
        "latency_ms": percentiles(call.latency_ms for call in answered),
        "overhead_ms": percentiles(overhead),
        "first_ms": percentiles(
            call.first_ms - call.sent_ms for call in answered if call.kind == "stream" and call.first_ms
        ),
    }
