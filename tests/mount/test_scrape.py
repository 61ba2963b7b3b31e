"""The page for Prometheus is served in the loop: whoever asks, however slowly, whatever nonsense comes, nobody is waited for."""

import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.service.figures import MountFigures
from razortools.service.metrics import page
from razortools.service.options import Address
from razortools.service.scrape import PATIENCE_S, RECEIVED_BYTES, REQUEST_BYTES_MAX, SCRAPES_MAX, Scrape
from tests.mount.test_exposition import PLAIN

GET = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"
GRACE_S = 60.0  # of a machine that is busy


@pytest.fixture
def scrape() -> Iterator[Scrape]:
    with closing(Scrape(Address("127.0.0.1", 0))) as made:
        yield made


async def said(scrape: Scrape, request: bytes) -> tuple[bytes, bytes]:
    """Send *request*; return the line of the status, and the body."""
    with trio.fail_after(GRACE_S):
        async with await trio.open_tcp_stream(scrape.address.host, scrape.address.port) as stream:
            await stream.send_all(request)
            reply = b"".join([part async for part in stream])
    head, _, body = reply.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], body


def served(scrape: Scrape, work: Callable[[], Awaitable[None]], take: Callable[[], MountFigures] = lambda: PLAIN) -> None:
    """Do *work* while *scrape* serves."""

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scrape.serve, take)
            await work()
            nursery.cancel_scope.cancel()

    trio.run(both)


@pytest.mark.parametrize("path", [b"/metrics", b"/", b"/metrics?name=all"])
def test_the_page_is_that_of_the_library_and_of_the_process(scrape: Scrape, path: bytes) -> None:
    async def work() -> None:
        status, body = await said(scrape, GET.replace(b"/metrics", path))
        assert status == b"HTTP/1.1 200 "
        assert body.decode().startswith(page([PLAIN])) and b"process_resident_memory_bytes" in body

    served(scrape, work)


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        (b"HEAD /metrics HTTP/1.1\r\nHost: here\r\n\r\n", b"200", b""),
        (b"GET /other HTTP/1.1\r\nHost: here\r\n\r\n", b"404", b"/metrics"),
        (b"POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n", b"405", b"GET"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400", b"no request"),
        (b"\x16\x03\x01 who speaks TLS\r\n\r\n", b"400", b"no request"),
        (b"GET /".ljust(REQUEST_BYTES_MAX + RECEIVED_BYTES, b"x"), b"431", b"no request"),
    ],
    ids=["head", "elsewhere", "post", "no host", "TLS", "endless"],
)
def test_what_is_not_to_be_had_is_told(scrape: Scrape, request_: bytes, status: bytes, word: bytes) -> None:
    async def work() -> None:
        line, body = await said(scrape, request_)
        assert line.split()[1] == status
        assert word in body and bool(word) == bool(body)

    served(scrape, work)


@given(
    sent=st.binary(max_size=200) | st.builds(lambda at, more: GET[:at] + more, st.integers(0, len(GET)), st.binary(max_size=9))
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_sent_the_next_one_is_answered(sent: bytes) -> None:
    with closing(Scrape(Address("127.0.0.1", 0))) as scrape:

        async def work() -> None:
            with trio.fail_after(GRACE_S):
                stream = await trio.open_tcp_stream(scrape.address.host, scrape.address.port)
                await stream.send_all(sent)
                await stream.aclose()
            assert (await said(scrape, GET))[0] == b"HTTP/1.1 200 "

        served(scrape, work)


def test_a_page_that_cannot_be_made_is_logged_and_the_mount_lives_on(scrape: Scrape, caplog: pytest.LogCaptureFixture) -> None:
    figures = iter([None, None, PLAIN])  # the first is taken before anybody asks

    async def work() -> None:
        with caplog.at_level(logging.WARNING, logger="razorfs"):
            assert await said(scrape, GET) == (b"", b"")
        assert "the page of metrics cannot be made" in caplog.text
        assert (await said(scrape, GET))[0] == b"HTTP/1.1 200 "

    served(scrape, work, lambda: next(figures))  # type: ignore[arg-type, return-value]


def test_nobody_waits_for_who_is_slow() -> None:
    """As many as there is room for do not end what they say; who comes beside them is answered when patience ends."""

    async def work() -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        with closing(Scrape(Address("127.0.0.1", 0))) as scrape, ExitStack() as held:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(scrape.serve, lambda: PLAIN)
                address = (scrape.address.host, scrape.address.port)
                for _ in range(SCRAPES_MAX * 2):
                    held.enter_context(socket.create_connection(address))  # who says nothing takes no place
                for _ in range(SCRAPES_MAX - 1):
                    held.enter_context(socket.create_connection(address)).sendall(GET[:9])
                assert (await said(scrape, GET))[0] == b"HTTP/1.1 200 "  # in the last place
                held.enter_context(socket.create_connection(address)).sendall(GET[:9])
                waiting = trio.Event()

                async def ask() -> None:
                    assert (await said(scrape, GET))[0] == b"HTTP/1.1 200 "
                    waiting.set()

                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert not waiting.is_set()
                clock.jump(PATIENCE_S)
                await waiting.wait()
                nursery.cancel_scope.cancel()

    trio.run(work, clock=trio.testing.MockClock())
