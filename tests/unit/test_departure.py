"""On a virtual clock: what is looked at is a request whose connection the test closes."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from backends.testing.clock import virtual_clock
from gateway.departure import LOOK_S, ClientLeft, Departure, has_left, unsent_bytes


class Transport:
    def __init__(self):
        self.closing = False

    def is_closing(self):
        return self.closing


class Request:
    def __init__(self):
        self.transport = Transport()

    def leave(self):
        self.transport = None


def now():
    return asyncio.get_running_loop().time()


async def wait_for_ever():
    await asyncio.Event().wait()


def test_a_client_has_left_when_its_connection_closes_or_is_gone():
    request = Request()
    assert not has_left(request)
    request.transport.closing = True
    assert has_left(request)
    request.leave()
    assert has_left(request)


@virtual_clock
async def test_a_silence_ends_soon_after_the_client_left():
    request = Request()
    asyncio.get_running_loop().call_later(7.1, request.leave)
    departure = Departure(request, 0.0)

    with pytest.raises(ClientLeft):
        async with departure:
            await wait_for_ever()

    assert 7.1 <= now() <= 7.1 + LOOK_S
    assert departure.left_at == now()


@virtual_clock
async def test_patience_counts_from_the_leave():
    request = Request()
    asyncio.get_running_loop().call_later(7.1, request.leave)
    departure = Departure(request, 30.0)

    with pytest.raises(ClientLeft):
        async with departure:
            await wait_for_ever()

    assert departure.left_at + 30 <= now() <= departure.left_at + 30 + LOOK_S


@virtual_clock
async def test_patience_may_end_while_the_client_is_gone():
    request = Request()
    departure = Departure(request, 30.0)

    with pytest.raises(ClientLeft):
        async with departure:
            request.leave()
            await asyncio.sleep(5)
            departure.patience_s = 0.0
            await wait_for_ever()

    assert 5 <= now() <= 5 + LOOK_S


@virtual_clock
async def test_a_client_that_stays_disturbs_nobody_and_leaves_no_timer():
    departure = Departure(Request(), 0.0)

    async with departure:
        await asyncio.sleep(100)

    assert departure.left_at is None
    await asyncio.sleep(100)


@virtual_clock
async def test_what_ends_by_itself_ends_as_it_does():
    for error in (ValueError, TimeoutError, ConnectionResetError):
        with pytest.raises(error) as raised:
            async with Departure(Request(), 0.0):
                raise error
        assert not isinstance(raised.value, ClientLeft)


@virtual_clock
async def test_a_cancel_from_elsewhere_stays_a_cancel():
    async def guarded():
        async with Departure(Request(), 0.0):
            await wait_for_ever()

    task = asyncio.ensure_future(guarded())
    await asyncio.sleep(3)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()


@virtual_clock
async def test_a_cancel_in_the_moment_of_the_leave_stays_a_cancel():
    request = Request()

    async def guarded():
        async with Departure(request, 0.0):
            await wait_for_ever()

    task = asyncio.ensure_future(guarded())
    await asyncio.sleep(0)
    request.leave()
    asyncio.get_running_loop().call_at(now() + LOOK_S, task.cancel)
    await asyncio.wait({task})

    assert task.cancelled()


class Unread(Transport):
    """A connection that has ``waiting`` bytes to send, and the kernel more if it is that of ``socket``."""

    def __init__(self, waiting=1000, socket=None):
        super().__init__()
        self.waiting = waiting
        self.socket = socket

    def get_write_buffer_size(self):
        return self.waiting

    def get_extra_info(self, name):
        return {"socket": self.socket}[name]

    def abort(self):
        self.closing = True


class Response:
    writes = 1
    is_writing = True


def unread(waiting=1000):
    request, response = Request(), Response()
    request.transport = Unread(waiting)
    departure = Departure(request, 0.0)
    departure.watch(response, 10.0)
    return request, response, departure


@virtual_clock
async def test_a_write_that_nobody_reads_closes_the_connection():
    _, _, departure = unread()

    with pytest.raises(ClientLeft):
        async with departure:
            await wait_for_ever()

    assert 10 <= now() <= 10 + 3 * LOOK_S


@virtual_clock
async def test_whoever_reads_a_little_is_waited_for():
    request, _, departure = unread()

    async with departure:
        for _ in range(50):
            await asyncio.sleep(9)
            request.transport.waiting -= 1

    assert not request.transport.closing


@virtual_clock
async def test_whoever_has_another_write_has_read():
    request, response, departure = unread()

    async with departure:
        for _ in range(50):
            await asyncio.sleep(9)
            response.writes += 1

    assert not request.transport.closing


@virtual_clock
async def test_a_silence_of_the_provider_is_not_the_clients_fault():
    request, response, departure = unread()
    response.is_writing = False

    async with departure:
        await asyncio.sleep(1000)

    assert not request.transport.closing


@virtual_clock
async def test_with_0_nobody_is_given_up():
    request, response, departure = unread()
    departure.watch(response, 0.0)

    async with departure:
        await asyncio.sleep(1000)

    assert not request.transport.closing


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell")
def test_what_the_kernel_holds_for_a_client_is_unsent():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with client, ours:
        assert unsent_bytes(Unread(1000, ours)) == 1000
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                ours.send(bytes(64 * 1024))
        full = unsent_bytes(Unread(1000, ours))
        assert full > 1000

        while unsent_bytes(Unread(1000, ours)) == full:  # the kernel says that it is read when it likes
            assert client.recv(64 * 1024)


def test_where_no_kernel_tells_what_the_process_holds_is_unsent(tmp_path):
    with (tmp_path / "no-socket").open("w") as file:
        assert unsent_bytes(Unread(1000, file)) == 1000
    assert unsent_bytes(Unread(1000)) == 1000
