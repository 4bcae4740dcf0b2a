"""PostgreSQL: what the server refuses, what the wire loses, and a server that is killed or frozen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from servers.base import free_port, need_ours
from servers.postgres_database import OwnSchema
from servers.proxy import Proxy

from backends.errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable
from backends.postgres import COPY_ABOVE_ROWS, PostgresSink
from backends.record import Batch
from backends.sink import Committed
from backends.testing import make_batch, make_record, make_records
from backends.testing.cases.base import PATIENCE_S, bounded, outcome_of, settled
from backends.testing.faults import Deliver
from backends.testing.rig import running, until
from backends.usage_query import UsageQuery

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the server

SHORT_S = 0.3
VERY_PATIENT = dict.fromkeys(("statement_timeout_s", "command_timeout_s"), 600.0)
"""Longer than any test may take: no call ends because its time is up."""
IMPATIENT = {"acquire_timeout_s": SHORT_S, "statement_timeout_s": SHORT_S, "command_timeout_s": SHORT_S}
T = TypeVar("T")
LARGE = COPY_ABOVE_ROWS + 1
PASSWORD = "battery staple"


# --- opening


async def test_opening_asks_no_server(postgres: OwnSchema) -> None:
    async with postgres.opened(port=free_port()):
        pass

    async with postgres.opened():
        assert await postgres.backends(0) == set()


# --- what a person has to mend


async def test_a_wrong_password_is_fatal_and_not_told(postgres: OwnSchema) -> None:
    dsn = postgres.server.dsn_of("tallygate", "opensesame")

    error = await _error_of(postgres, dsn=dsn)

    assert (type(error), error.code) == (SinkFatal, "28P01")
    assert "opensesame" not in f"{error} {error!r}"


async def test_a_missing_database_is_fatal(postgres: OwnSchema) -> None:
    dsn = urlsplit(postgres.dsn())._replace(path="/nowhere").geturl()

    error = await _error_of(postgres, dsn=dsn)

    assert (type(error), error.code, error.message) == (
        SinkFatal,
        "3D000",
        'database "nowhere" does not exist',
    )


async def test_a_missing_schema_is_fatal(postgres: OwnSchema) -> None:
    error = await _error_of(postgres, table="no_such_schema.usage_logs")

    assert (type(error), error.code) == (SinkFatal, "3F000")


async def test_a_missing_right_is_fatal_and_heals(postgres: OwnSchema) -> None:
    batch = make_batch(2)

    async with _role(postgres) as (role, dsn), postgres.opened(dsn=dsn) as sink:
        with pytest.raises(SinkFatal) as caught:
            await sink.write(batch)
        await postgres.run(f"GRANT USAGE, CREATE ON SCHEMA {postgres.name} TO {role}")

        assert caught.value.code == "42501"
        assert await sink.write(batch) == Committed(2)


async def test_rights_to_insert_and_read_are_enough_on_tables_that_are_there(postgres: OwnSchema) -> None:
    batch = make_batch(2)

    async with _role(postgres) as (role, dsn), postgres.opened() as owner:
        await owner.migrate()
        await postgres.run(f"GRANT USAGE ON SCHEMA {postgres.name} TO {role}")
        await postgres.run(f"GRANT SELECT, INSERT ON usage_logs TO {role}")
        async with postgres.opened(dsn=dsn) as sink:
            assert await sink.write(batch) == Committed(2)
            assert len((await sink.read_usage(UsageQuery())).rows) == 2


# --- what the server cannot do now


async def test_failover_readonly(postgres: OwnSchema) -> None:
    batch = make_batch(2)

    async with postgres.opened() as sink:
        await sink.write(make_batch(1))
    async with postgres.opened(dsn=f"{postgres.dsn()}?default_transaction_read_only=on") as standby:
        for call in (standby.write(batch), standby.ping()):
            error = await outcome_of(call)
            assert isinstance(error, SinkRetryable)
            assert (error.code, error.ambiguous) == ("25006", False)
    async with postgres.opened() as sink:
        assert await sink.write(batch) == Committed(2)


async def test_the_server_gives_up_a_statement_first_and_nothing_is_unknown(postgres: OwnSchema) -> None:
    batch = make_batch(2)

    async with postgres.opened(statement_timeout_s=SHORT_S) as sink:
        await sink.ping()
        async with _locked(postgres):
            error = await outcome_of(sink.write(batch))

        assert isinstance(error, SinkRetryable)
        assert (error.code, error.ambiguous) == ("57014", False)
        assert await _answer_of(partial(sink.write, batch)) == Committed(2)


async def test_a_connection_that_the_server_ends_in_a_statement_leaves_it_unknown(
    postgres: OwnSchema,
) -> None:
    batch = make_batch(2)

    async with postgres.opened() as sink:
        await sink.ping()
        async with _locked(postgres):
            write = asyncio.ensure_future(sink.write(batch))
            await _until_waiting(postgres)
            await postgres.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'tallygate' AND wait_event_type = 'Lock'"
            )
            error = await outcome_of(write)

        assert isinstance(error, SinkRetryable)
        assert error.ambiguous
        assert await sink.write(batch) == Committed(2)


async def test_writers_that_meet_in_the_same_rows_do_not_lock_each_other_out(postgres: OwnSchema) -> None:
    rows = make_records(500)
    forward, backward = Batch.of(rows), Batch.of(rows[::-1])

    async with postgres.opened() as one, postgres.opened() as other:
        for sink in (one, other):
            await sink.ping()
        answers = await asyncio.gather(one.write(forward), other.write(backward))

    assert sum(answer.new for answer in answers) == 500
    assert sum(answer.duplicates for answer in answers) == 500


# --- large batches


async def test_a_large_batch_is_stored_once(postgres: OwnSchema) -> None:
    rows = make_records(LARGE + 10)

    async with postgres.opened() as sink:
        first = await sink.write(Batch.of(rows[:LARGE]))
        again = await sink.write(Batch.of(rows[:LARGE]))
        overlapping = await sink.write(Batch.of((*rows[10:], rows[-1])))

    assert (first, again) == (Committed(LARGE), Committed(0, LARGE))
    assert overlapping == Committed(10, LARGE - 9)
    assert await postgres.ids() == [row.id for row in rows]


@pytest.mark.parametrize("fields", [{"prompt_tokens": 2**63}, {"user_id": "a\0b"}, {"cost": "a lot"}])
async def test_a_large_batch_with_one_bad_row_is_refused_whole(
    postgres: OwnSchema, fields: dict[str, Any]
) -> None:
    good = make_records(LARGE)

    async with postgres.opened() as sink:
        with pytest.raises(SinkBatchRejected):
            await sink.write(Batch.of((*good, make_record(**fields))))
        serving = await postgres.backends(1)
        answer = await sink.write(Batch.of(good))

        assert await postgres.backends(1) == serving
    assert answer == Committed(LARGE)


async def test_poison_single_row(postgres: OwnSchema) -> None:
    async with postgres.opened() as inner, running(inner, linger_s=0.05) as rig:
        await inner.ping()
        good = await rig.put_many(99)
        bad = await rig.put(prompt_tokens=2**63)
        await rig.writer.flush(30)

        assert rig.box.ids() == [bad]
    assert await postgres.ids() == sorted(good)


# --- cancelling, aborting, closing


async def test_a_cancelled_write_leaves_no_connection_checked_out(postgres: OwnSchema) -> None:
    batches = [make_batch(5) for _ in range(3)]

    async with postgres.opened(write_connections=1) as sink:
        await sink.ping()
        async with _locked(postgres):
            for batch in batches:
                write = asyncio.ensure_future(sink.write(batch))
                await _until_waiting(postgres)
                write.cancel()
                await settled(write)
                assert write.cancelled()
                assert _checked_out(sink) == 0
                await postgres.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'tallygate' AND wait_event_type = 'Lock'"
                )
        for batch in batches:
            await bounded(sink.write(batch))

    assert await postgres.ids() == sorted(row.id for batch in batches for row in batch.rows)


async def test_a_write_that_is_cancelled_while_it_waits_for_a_connection_stores_nothing(
    postgres: OwnSchema,
) -> None:
    first, second = make_batch(2), make_batch(2)

    async with postgres.opened(write_connections=1) as sink:
        await sink.ping()
        async with _locked(postgres):
            holding = asyncio.ensure_future(sink.write(first))
            await _until_waiting(postgres)
            waiting = asyncio.ensure_future(sink.write(second))
            await asyncio.sleep(0)
            waiting.cancel()
            await settled(waiting)
        await bounded(holding)
        await bounded(sink.ping())

    assert await postgres.ids() == sorted(row.id for row in first.rows)


async def test_abort_ends_every_call_at_once_and_refuses_more(postgres: OwnSchema) -> None:
    async with postgres.opened(write_connections=1) as sink:
        await sink.ping()
        async with _locked(postgres):
            calls = [asyncio.ensure_future(sink.write(make_batch(2))) for _ in range(3)]
            calls.append(asyncio.ensure_future(sink.ping()))
            await _until_waiting(postgres)
            sink.abort()
            for call in calls:
                await settled(call)
            later = await outcome_of(sink.write(make_batch(1)))

    errors = [call.exception() for call in calls]
    assert all(isinstance(error, SinkRetryable) for error in errors), errors
    assert isinstance(later, SinkRetryable) and later.code == "closing"


async def test_questions_have_connections_of_their_own_and_delay_no_row(postgres: OwnSchema) -> None:
    async with postgres.opened(read_connections=1, acquire_timeout_s=SHORT_S) as sink:
        await _answer_of(sink.ping)  # the connections are there: none is waited for but the one in use
        await _answer_of(partial(sink.read_usage, UsageQuery()))
        async with sink._reading.session():
            second = await outcome_of(sink.read_usage(UsageQuery()))

            assert await sink.write(make_batch(2)) == Committed(2)
        assert isinstance(second, SinkRetryable) and not second.ambiguous
        assert len((await sink.read_usage(UsageQuery())).rows) == 2


# --- the wire


async def test_start_with_sink_down(postgres: OwnSchema) -> None:
    async with _wire(postgres) as proxy:
        proxy.refuse()
        async with postgres.opened(proxy.port) as inner, running(inner, linger_s=0) as rig:
            given = await rig.put_many(20)
            await until(lambda: any(isinstance(write.outcome, SinkRetryable) for write in rig.sink.writes))
            await proxy.heal()
            await rig.writer.flush(30)

    assert await postgres.ids() == sorted(given)


@pytest.mark.parametrize("count", [5, LARGE])
async def test_ack_lost_after_commit(postgres: OwnSchema, count: int) -> None:
    batch = make_batch(count)

    async with _wire(postgres) as proxy, postgres.opened(proxy.port) as sink:
        await sink.ping()
        await sink.write(make_batch(1))
        proxy.drop_reply(reply=b"INSERT 0 " if count == 5 else b"COMMIT")
        error = await outcome_of(sink.write(batch))

        assert isinstance(error, SinkRetryable) and error.ambiguous
        assert proxy.strikes == 1
        assert await sink.write(batch) == Committed(0, count)
    assert len(await postgres.ids()) == count + 1


async def test_a_request_that_is_cut_anywhere_stores_nothing_or_all(postgres: OwnSchema) -> None:
    batches = {count: make_batch(200) for count in (1, 10, 1_000, 10_000, 20_000)}

    async with _wire(postgres) as proxy, postgres.opened(proxy.port) as sink:
        for count, batch in batches.items():
            await sink.ping()
            proxy.cut_after(count)
            error = await outcome_of(sink.write(batch))
            assert isinstance(error, SinkRetryable), count
            assert await sink.write(batch) == Committed(200), count

    assert len(await postgres.ids()) == 1000


@pytest.mark.parametrize("mode", ["reset", "black_hole"])
async def test_a_wire_that_fails_is_given_up_in_time(postgres: OwnSchema, mode: str) -> None:
    batch = make_batch(3)

    async with _wire(postgres) as proxy, postgres.opened(proxy.port, **IMPATIENT) as sink:
        await _answer_of(sink.ping)
        getattr(proxy, mode)()
        for call in (sink.write(batch), sink.write(batch), sink.ping(), sink.read_usage(UsageQuery())):
            assert isinstance(await outcome_of(call), SinkRetryable)
        assert _checked_out(sink) == 0
        await proxy.heal()

        answer = await _answer_of(partial(sink.write, batch))
        assert answer.new + answer.duplicates == 3


# --- the server's process


async def test_server_sigkilled_and_restarted(postgres: OwnSchema) -> None:
    need_ours(postgres.server)

    killed = asyncio.Event()

    async def kill_meanwhile(deliver: Deliver) -> Committed:
        answer = asyncio.ensure_future(deliver())
        await asyncio.to_thread(postgres.server.kill)
        killed.set()
        return await answer

    async with postgres.opened() as inner, running(inner, linger_s=0.01, max_rows=20) as rig:
        await inner.ping()
        for _ in range(2):
            killed.clear()
            rig.sink.script(kill_meanwhile)
            await rig.put_many(100)
            await bounded(killed.wait())
            await rig.put_many(100)
            await postgres.restart()
            await rig.writer.flush(60)

        counts = rig.writer.stats().counts
        assert counts.committed + counts.duplicates == 400
        assert await postgres.ids() == sorted(rig.given)


async def test_rows_that_were_promised_survive_the_server(postgres: OwnSchema) -> None:
    need_ours(postgres.server)
    promised: list[UUID] = []

    async with postgres.opened() as sink:
        for count in (1, 50, LARGE):
            batch = make_batch(count)
            await sink.write(batch)
            promised += [row.id for row in batch.rows]
            await asyncio.to_thread(postgres.server.kill)
            await postgres.restart()

    assert await postgres.ids() == sorted(promised)


async def test_server_frozen_and_thawed(postgres: OwnSchema) -> None:
    """For at least five attempts, each of which the core cuts short: then the breaker opens."""
    need_ours(postgres.server)
    limits = {"linger_s": 0.01, "max_rows": 20, "attempt_timeout_s": SHORT_S, "max_queue_rows": 400}

    async with postgres.opened() as inner, running(inner, **limits) as rig:
        await inner.ping()
        with _frozen(postgres):
            await rig.put_many(200)
            await until(lambda: rig.writer.stats().breaker == "open")
            assert rig.writer.stats().counts.committed == 0
            assert _checked_out(inner) <= 2
        await rig.writer.flush(60)

        assert await postgres.ids() == sorted(rig.given)


async def test_a_frozen_server_delays_neither_a_cancel_nor_an_abort_nor_the_end(postgres: OwnSchema) -> None:
    """The driver alone would wait for an answer to its request to cancel."""
    need_ours(postgres.server)
    cancelled, large, aborted = make_batch(3), make_batch(LARGE), make_batch(3)

    async with postgres.opened(**VERY_PATIENT) as sink:
        await asyncio.gather(sink.ping(), sink.ping(), sink.ping())
        with _frozen(postgres):
            async with asyncio.timeout(PATIENCE_S):
                for batch in (cancelled, large):
                    write = asyncio.ensure_future(sink.write(batch))
                    await asyncio.wait({write}, timeout=SHORT_S)
                    write.cancel()
                    await settled(write)
                assert _checked_out(sink) == 0
                write = asyncio.ensure_future(sink.write(aborted))
                await asyncio.wait({write}, timeout=SHORT_S)
                sink.abort()
                await settled(write)
                assert isinstance(write.exception(), SinkRetryable)
    async with postgres.opened() as sink:
        for batch in (cancelled, large, aborted):
            await sink.write(batch)

    everything = [row.id for batch in (cancelled, large, aborted) for row in batch.rows]
    assert await postgres.ids() == sorted(everything)


async def test_closing_waits_for_no_frozen_server(postgres: OwnSchema) -> None:
    need_ours(postgres.server)

    async with postgres.opened() as sink:
        await asyncio.gather(sink.ping(), sink.read_usage(UsageQuery()))
        postgres.server.freeze()
    with _thawing(postgres):
        pass

    async with postgres.opened() as sink:
        assert await sink.write(make_batch(1)) == Committed(1)


# --- helpers


async def _error_of(postgres: OwnSchema, **options: Any) -> SinkError:
    async with postgres.opened(**options) as sink:
        error = await outcome_of(sink.write(make_batch(1)))
    assert isinstance(error, SinkError)
    return error


@asynccontextmanager
async def _role(postgres: OwnSchema) -> AsyncIterator[tuple[str, str]]:
    """A user who may nothing, and the DSN for it."""
    role = f"role_{uuid4().hex[:16]}"
    await postgres.run(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    try:
        yield role, postgres.server.dsn_of(role, PASSWORD)
    finally:
        await postgres.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


@asynccontextmanager
async def _locked(postgres: OwnSchema, table: str = "usage_logs") -> AsyncIterator[None]:
    """Somebody changes the table meanwhile."""
    async with postgres.connected() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


async def _answer_of(call: Callable[[], Awaitable[T]]) -> T:
    """With so little time for an answer, a loaded machine may need to be asked again."""
    async with asyncio.timeout(PATIENCE_S):
        while isinstance(answer := await outcome_of(call()), SinkRetryable):
            pass
    assert not isinstance(answer, SinkError)
    return answer


async def _until_waiting(postgres: OwnSchema) -> None:
    """Return once a statement of the sink waits for a lock."""
    sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tallygate' AND wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_S):
        while not await postgres.fetch(sql):
            pass


@asynccontextmanager
async def _wire(postgres: OwnSchema) -> AsyncIterator[Proxy]:
    async with postgres.opened() as sink:  # the tables are there, so that what follows is about rows
        await sink.migrate()
    async with postgres.proxy() as proxy:
        yield proxy


@contextmanager
def _frozen(postgres: OwnSchema) -> Iterator[None]:
    postgres.server.freeze()
    with _thawing(postgres):
        yield


@contextmanager
def _thawing(postgres: OwnSchema) -> Iterator[None]:
    try:
        yield
    finally:
        postgres.server.thaw()


def _checked_out(sink: PostgresSink) -> int:
    """Connections that nobody gave back."""
    pools = [connections._pool for connections in (sink._writing, sink._reading)]
    return sum(not holder.is_idle() for pool in pools for holder in pool._holders)
