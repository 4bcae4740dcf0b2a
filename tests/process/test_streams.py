"""Case 45 with real connections: clients that leave, and what their rows say."""

from __future__ import annotations


async def test_45_stream_client_disconnect_has_the_providers_totals(serve_held, held) -> None:
    async with serve_held() as gateway:
        held.hold()
        async with gateway.chat(stream=True) as stream:
            await stream.content.readany()
        await gateway.pumps(1)
        held.go()
        await gateway.ledger_shows(committed=1)

        row = gateway.row(gateway.promised(stream))
        assert (row["status"], row["end_reason"]) == ("cancelled", "client_disconnect")
        assert row["status_code"] == 499
        counts = (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"], row["usage_source"])
        assert counts == (1, 5, 6, "provider")
        assert await gateway.stop() == 0


async def test_45_many_clients_that_leave_have_a_row_each(serve_held, held) -> None:
    async with serve_held() as gateway:
        held.hold()
        promised = []
        for _ in range(20):
            async with gateway.chat(stream=True) as stream:
                promised.append(gateway.promised(stream))
        await gateway.pumps(20)
        held.go()
        assert await gateway.stop() == 0
        assert {row["id"] for row in gateway.rows()} == set(promised)
        assert {row["end_reason"] for row in gateway.rows()} == {"client_disconnect"}
        assert {row["usage_source"] for row in gateway.rows()} == {"provider"}
