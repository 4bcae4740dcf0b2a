"""``GET /metrics`` after calls of every kind: the contract's metrics with their labels, and no others."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from promises import CONTRACT
from troupe import ask, named, says, well

WRITER_SEES = {"gateway_log_shed_total", "gateway_log_degraded"}
"""Shown with a label once there is something to show."""


async def shown(gateway):
    """The families by name, each with the labels of its samples."""
    response = await gateway.client.get("/metrics")
    found = {}
    for family in text_string_to_metric_families(await response.text()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = labels
    return found


async def test_the_metrics_after_calls_are_those_of_the_contract(cast):
    gateway, _ = await cast(
        {"a": says(500), "b": well},
        named("a", fallbacks=["b"], retries=0),
        "batch:sqlite",
        budget_strategy="cas",
    )
    await ask(gateway)
    await ask(gateway, stream=True)
    await gateway.settled()

    there = await shown(gateway)

    promised = {**CONTRACT["metrics"]["promised"], **CONTRACT["metrics"]["ours"]}
    assert there.keys() == promised.keys()
    different = {name: labels for name, labels in there.items() if labels != set(promised[name])}
    assert different.keys() <= WRITER_SEES
