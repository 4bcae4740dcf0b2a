"""Cases 46 and 47, and the orderly stop: who may end by itself, who is ended, and what the rows say."""

from __future__ import annotations

import asyncio
import signal

import pytest

FOREVER_MS = 600_000
PATIENT = {"grace_s": 900, "drain_s": 300, "pump_s": 100, "stop_deadline_s": 300}
"""Longer than any test may take: no step ends because its time is up."""


async def test_sigterm_lets_running_calls_end_and_says_so_in_one_report(serve_held, held) -> None:
    async with serve_held() as gateway:
        quick = [await gateway.answered() for _ in range(3)]
        held.hold()
        async with gateway.chat(stream=True) as stream:
            gateway.process.send(signal.SIGTERM)
            await gateway.process.said("stopping", step="drain", calls=1)
            held.go()
            assert (await stream.read()).rstrip().endswith(b"[DONE]")

        assert await gateway.exits() == 0
        assert {row["id"] for row in gateway.rows()} == {*quick, gateway.promised(stream)}
        assert gateway.report["committed"] == 4
        steps = [line["step"] for line in gateway.process.all_of("stopping")]
        assert steps == ["readiness_delay", "drain", "pump", "stop"]


async def test_readiness_says_503_during_readiness_delay_while_calls_are_served(serve) -> None:
    async with serve(shutdown={**PATIENT, "readiness_delay_s": 100}) as gateway:
        assert await gateway.readiness() == (200, "ready")
        gateway.process.send(signal.SIGTERM)
        await gateway.process.said("stopping", step="readiness_delay")
        assert await gateway.readiness() == (503, "draining")
        served = await gateway.answered()
        await gateway.ledger_shows(committed=1)
        assert await gateway.stop() == 0
        assert [row["id"] for row in gateway.rows()] == [served]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_46_handler_outlives_shutdown_timeout_and_has_its_row(serve, is_stream) -> None:
    async with serve(shutdown={"drain_s": 0.3}) as gateway:
        slow = {"chunk_ms": FOREVER_MS} if is_stream else {"delay_ms": FOREVER_MS}
        call = asyncio.ensure_future(gateway.outcome(gateway.chat(stream=is_stream, **slow)))
        await gateway.begun(1)
        assert await gateway.stop() == 0

        status, code = await call
        assert (status, code) == (200 if is_stream else 503, "shutting_down")
        (row,) = gateway.rows()
        assert (row["status"], row["end_reason"]) == ("cancelled", "shutdown")
        assert row["status_code"] == status
        assert row["usage_source"] == "none"


async def test_answer_that_is_being_sent_when_the_signal_comes_is_sent_to_its_end(serve) -> None:
    asked = {"model": "local:fake", "input": "words", "encoding_format": "base64", "dimensions": 1_500_000}
    async with serve(shutdown=PATIENT) as gateway:
        async with gateway.session.post("/v1/embeddings", json=asked) as answer:
            await gateway.ledger_shows(committed=1)
            gateway.process.send(signal.SIGTERM)
            await gateway.process.said("stopping", step="drain", calls=1)  # more than fits the sockets
            assert len(await answer.read()) == answer.content_length
        assert await gateway.exits() == 0


async def test_47_pump_finishes_after_http_drain_and_before_the_writer(serve_held, held) -> None:
    async with serve_held(shutdown=PATIENT) as gateway:
        held.hold()
        async with gateway.chat(stream=True) as stream:
            await stream.content.readany()
        gateway.process.send(signal.SIGTERM)
        await gateway.process.said("stopping", step="pump", pumps=1)
        held.go()
        assert await gateway.exits() == 0

        row = gateway.row(gateway.promised(stream))
        assert (row["status"], row["end_reason"]) == ("cancelled", "client_disconnect")
        assert (row["total_tokens"], row["usage_source"]) == (6, "provider")


async def test_47_pump_that_takes_too_long_is_cut_and_has_its_row(serve_held, held) -> None:
    async with serve_held(shutdown={"drain_s": 0.1, "pump_s": 0.1}) as gateway:
        held.hold()
        async with gateway.chat(stream=True) as stream:
            await stream.content.readany()
        await gateway.pumps(1)
        gateway.process.send(signal.SIGTERM)
        await gateway.process.said("stopping", step="pump", pumps=1)
        assert await gateway.exits() == 0
        row = gateway.row(gateway.promised(stream))
        assert (row["status"], row["end_reason"]) == ("cancelled", "shutdown")
