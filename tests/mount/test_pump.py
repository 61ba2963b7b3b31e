"""The request pump, without a mount: a pair of sockets stands for the kernel's connection."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from razortools.engine.store.residence import Residence
from razortools.errors import CorruptImage, OutOfSpace
from razortools.service import phases
from razortools.service import pump as pump_module
from razortools.service.callers import Caller
from razortools.service.channel import Channel
from razortools.service.handlers import Answer, Handler, Refused, Soon
from razortools.service.phases import Phase
from razortools.service.pump import BURST_MAX, CREDIT_MAX, LARGE_BYTES, WORTHWHILE, Pump, SlowRequests
from razortools.service.residence import Fetcher
from razortools.service.wakefulness import Wakefulness
from razortools.service.wire import HEAD, REPLY_HEAD, WRITE, Opcode
from razortools.units import InodeNo

ECHO, FAIL, WAIT, FULL, UNKNOWN, SYNC = 1001, 1002, 1003, 1004, 1005, 1006
FORGET = int(Opcode.FORGET)
CHANGE = int(Opcode.UNLINK)
STORE = int(Opcode.WRITE)


class Kernel:
    """The other end of the connection."""

    def __init__(self) -> None:
        self._end, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end.setblocking(False)
        self.channel = Channel(daemon.detach())
        self._unique = 0

    def ask(self, opcode: int, body: bytes = b"", node: int = 7) -> int:
        """Send a request about *node*; return its number."""
        self._unique += 1
        self._end.send(HEAD.pack(HEAD.size + len(body), opcode, self._unique, node, 1, 2, 3, 0, 0) + body)
        return self._unique

    def told(self) -> list[tuple[int, int, bytes]]:
        """Return (number, errno, reply) of all answers that are there."""
        answers = []
        while True:
            try:
                message = self._end.recv(1 << 16)
            except BlockingIOError:
                return answers
            length, error, unique = REPLY_HEAD.unpack_from(message)
            assert length == len(message)
            answers.append((unique, -error, message[REPLY_HEAD.size :]))

    def hang_up(self) -> None:
        self._end.close()

    def close(self) -> None:
        self._end.close()
        self.channel.close()


class Served:
    """Handlers for the opcodes above."""

    def __init__(self) -> None:
        self.fetcher = Fetcher(Residence())
        self.released = trio.Event()
        self.full_times = 0
        self.failed: list[str] = []
        self.forgotten: list[bytes] = []
        self.echoes = 0
        self.commits: list[int] = []  # echoes that each commit covers
        self.is_quick = True
        self.commit_fails = False
        self.put_off = 0
        self.put_off_at_commits: list[int] = []
        self.tidied: list[tuple[int, int]] = []  # how many it had to be, echoes before
        self.tidies_slowly = False
        self.burst_count = 0
        self.holds_back = False
        self.is_less_dirty = trio.Event()
        self.may_wait_bytes = 1 << 30
        self.losses: dict[InodeNo, Exception] = {}
        self.stored: list[int] = []  # the flags of the writes done, in this order

    def table(self) -> dict[int, Handler]:
        served = {ECHO: self.echo, FAIL: self.fail, WAIT: self.wait, FULL: self.full}
        return served | {CHANGE: self.full, FORGET: self.forget, SYNC: self.sync, STORE: self.store}

    def echo(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        self.echoes += 1
        return repr((ino, bytes(body), caller)).encode()

    def sync(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        return Soon.DURABLE

    def commit_here(self) -> bool:
        if self.commit_fails:
            raise ZeroDivisionError
        if self.is_quick:
            self.commits.append(self.echoes)
            self.put_off_at_commits.append(self.put_off)
        return self.is_quick

    def loss_of(self, ino: InodeNo) -> Exception | None:
        return self.losses.get(ino)

    async def durable_file(self, ino: InodeNo) -> bytes:
        await self.released.wait()
        self.commits.append(self.echoes)
        if ino in self.losses:
            raise self.losses[ino]
        return b""

    def fail(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        if body:
            raise Refused(errno.EPERM)
        raise ZeroDivisionError

    async def wait(self, ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
        await self.released.wait()
        return b"waited"

    def full(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        if self.full_times:
            self.full_times -= 1
            raise OutOfSpace("no room")
        return bytes(body)

    def store(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        *_, flags = WRITE.unpack_from(body)
        return self.store_later(flags) if flags % 2 else self.store_now(flags)

    def store_now(self, flags: int) -> bytes:
        self.stored.append(flags)
        return b""

    async def store_later(self, flags: int) -> bytes:
        await self.released.wait()
        return self.store_now(flags)

    def forget(self, ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
        self.forgotten.append(bytes(body))
        if body == b"badly":
            raise ZeroDivisionError
        return b""

    def refusal(self, failure: Exception, what: str, ino: InodeNo) -> int:
        self.failed.append(f"{what} of {ino}: {failure!r}")
        return failure.number if isinstance(failure, Refused) else errno.EIO

    async def may_have_room_soon(self) -> bool:
        return True

    def after_burst(self) -> None:
        self.burst_count += 1

    async def less_dirty(self) -> None:
        await self.is_less_dirty.wait()

    def waiting_bytes_max(self) -> int:
        return self.may_wait_bytes

    def tidy(self, at_least: int) -> Callable[[], Awaitable[object]] | None:
        if self.put_off < max(1, at_least):
            return None
        self.tidied.append((at_least, self.echoes))
        self.put_off = 0
        return self.released.wait if self.tidies_slowly else None


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    end = Kernel()
    yield end
    end.close()


class Pumping:
    """A pump at work."""

    def __init__(self, kernel: Kernel, slow: SlowRequests | None = None, wakefulness: Wakefulness | None = None) -> None:
        self.served = Served()
        self.forwarded: list[bytes] = []
        self.pump = Pump(
            kernel.channel, self.served, lambda message: self.forwarded.append(bytes(message)), slow, wakefulness
        )  # fmt: skip


@asynccontextmanager
async def pumping(kernel: Kernel) -> AsyncIterator[Pumping]:
    at_work = Pumping(kernel)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at_work.pump.run)
        yield at_work
        nursery.cancel_scope.cancel()


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        with trio.fail_after(30):
            await story()

    trio.run(whole)


def test_a_request_is_answered_with_what_its_handler_returns(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel):
            unique = kernel.ask(ECHO, b"body")
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.told() == [(unique, 0, b"(7, b'body', (1, 2, 3))")]

    run(story)


@pytest.mark.parametrize("parts", [(), (b"one",), (b"a" * 5000, b"", b"b" * 9000)])
def test_a_reply_may_come_in_parts(kernel: Kernel, parts: tuple[bytes, ...]) -> None:
    async def story() -> None:
        at_work = Pumping(kernel)
        at_work.pump._handlers[ECHO] = lambda ino, body, caller: parts
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at_work.pump.run)
            unique = kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.told() == [(unique, 0, b"".join(parts))]
            nursery.cancel_scope.cancel()

    run(story)


def test_requests_that_are_there_are_answered_in_their_order_without_a_pause(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            asked = [kernel.ask(ECHO) for _ in range(BURST_MAX - 1)]
            await trio.testing.wait_all_tasks_blocked()
            assert [unique for unique, *_ in kernel.told()] == asked
            assert at_work.pump.served_count == BURST_MAX - 1
            assert at_work.pump.parked_count == 1  # only now

    run(story)


@pytest.mark.parametrize(("body_bytes", "a_turn"), [(0, BURST_MAX), (7 * LARGE_BYTES, BURST_MAX // 8)])
def test_others_get_their_turn_however_busy_it_is(
    kernel: Kernel, body_bytes: int, a_turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large requests count for more: 48 writes of a MiB in a row kept all others waiting for 50 ms."""
    monkeypatch.setattr(pump_module, "BURST_NS", 60_000_000_000)  # or a busy machine ends turns earlier

    async def story() -> None:
        at_work = Pumping(kernel)
        turns = 0

        def flooded(ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
            kernel.ask(ECHO, bytes(body_bytes))  # the next one is there before this one is answered
            kernel.told()
            return b""

        at_work.pump._handlers[ECHO] = flooded
        kernel.ask(ECHO, bytes(body_bytes))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at_work.pump.run)
            while at_work.pump.served_count < a_turn * 10:
                turns += 1
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert 9 <= turns <= 12

    run(story)


def test_an_idle_pump_sleeps_and_is_woken(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            await trio.testing.wait_all_tasks_blocked()  # it has given up spinning
            parked = at_work.pump.parked_count
            assert parked == 1
            unique = kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert [number for number, *_ in kernel.told()] == [unique]
            assert at_work.pump.parked_count == parked + 1

    run(story)


@pytest.mark.parametrize("count", [1, BURST_MAX, 2 * BURST_MAX + 1])
def test_who_looks_after_what_is_left_is_called_after_each_burst_and_before_the_pump_sleeps(kernel: Kernel, count: int) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            await trio.testing.wait_all_tasks_blocked()
            before = at_work.served.burst_count
            for _ in range(count):
                kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert at_work.served.burst_count - before >= count // BURST_MAX + 1

    run(story)


def test_what_changes_the_tree_is_held_back_and_nothing_else(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.holds_back = True
            held, other = kernel.ask(CHANGE, b"name"), kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert [unique for unique, *_ in kernel.told()] == [other]
            at_work.served.full_times = 1  # it is one that may find no room, too
            at_work.served.is_less_dirty.set()
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.told() == [(held, 0, b"name")]
            at_work.served.holds_back = False
            at_work.served.is_less_dirty = trio.Event()
            free = kernel.ask(CHANGE, b"another")
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.told() == [(free, 0, b"another")]

    run(story)


def test_what_was_put_off_is_done_before_the_pump_sleeps(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.put_off = 1
            for _ in range(3):
                kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert at_work.served.tidied == [(1, 3)]

    run(story)


def test_while_requests_come_it_waits_until_there_is_more_of_it(kernel: Kernel) -> None:
    async def story() -> None:
        at_work = Pumping(kernel)
        served = at_work.served
        at_work.pump._spin = lambda: bool(served.echoes < 3 and kernel.ask(ECHO))  # type: ignore[method-assign]

        def put_off(ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
            served.put_off = WORTHWHILE - 2 + served.echoes  # at the second one there are enough
            return served.echo(ino, body, caller)

        at_work.pump._handlers[ECHO] = put_off
        async with trio.open_nursery() as nursery:
            kernel.ask(ECHO)
            nursery.start_soon(at_work.pump.run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert served.tidied == [(WORTHWHILE, 3)]

    run(story)


def test_what_takes_longer_of_it_keeps_nobody_waiting(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.put_off, at_work.served.tidies_slowly = 1, True
            kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert len(kernel.told()) == 2
            at_work.served.released.set()

    run(story)


def test_what_was_put_off_is_done_before_a_commit(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.put_off = 1
            kernel.ask(ECHO)
            kernel.ask(SYNC)
            kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert at_work.served.commits == [2]
            assert at_work.served.put_off_at_commits == [0]

    run(story)


def test_spinning_that_does_not_pay_is_left_out(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            for _ in range(CREDIT_MAX + 2):
                kernel.ask(ECHO)
                await trio.testing.wait_all_tasks_blocked()
            assert at_work.pump._credit == 0
            polled = []
            at_work.pump._spin = lambda: bool(polled.append(1))  # type: ignore[method-assign]
            for _ in range(8):
                kernel.ask(ECHO)
                await trio.testing.wait_all_tasks_blocked()
            assert polled == []

    run(story)


def test_a_failing_handler_is_its_callers_misfortune_alone(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            asked = [kernel.ask(FAIL, b"refused"), kernel.ask(FAIL), kernel.ask(ECHO)]
            await trio.testing.wait_all_tasks_blocked()
            told = [(number, error) for number, error, _ in kernel.told()]
            assert told == list(zip(asked, (errno.EPERM, errno.EIO, 0), strict=True))
            assert at_work.served.failed[1] == f"request {FAIL} of 7: ZeroDivisionError()"

    run(story)


def test_each_request_is_counted_once_with_its_time_and_what_it_was_refused_with(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.full_times = 1
            for opcode in (ECHO, ECHO, FAIL, WAIT, FULL, CHANGE, FORGET, SYNC):
                kernel.ask(opcode)
            kernel.ask(STORE, WRITE.pack(0, 0, 0, 0))
            kernel.ask(FAIL, b"refused")
            await trio.testing.wait_all_tasks_blocked()
            tally = at_work.pump.tally
            assert tally.under_way == 1
            at_work.served.released.set()
            await trio.testing.wait_all_tasks_blocked()
            counts = {opcode: sum(times.counts) for opcode, times in tally.times.items()}
            assert counts == {ECHO: 2, FAIL: 2, WAIT: 1, FULL: 1, CHANGE: 1, FORGET: 1, SYNC: 1, STORE: 1}
            assert tally.refusals == {(FAIL, errno.EIO): 1, (FAIL, errno.EPERM): 1}
            assert tally.under_way == 0
            assert all(times.total_s > 0 for times in tally.times.values())

    run(story)


def test_what_a_request_waits_for_is_told_if_it_takes_long(kernel: Kernel) -> None:
    class Slow:
        from_s = 0.0
        lines: list[tuple[str, int, dict[Phase, float]]] = []

        def tell(self, what: str, ino: InodeNo, took_s: float, spent: Mapping[Phase, float]) -> None:
            assert took_s >= sum(spent.values())
            self.lines.append((what, ino, dict(spent)))

    async def story() -> None:
        at_work = Pumping(kernel, Slow())

        async def waits(ino: InodeNo, body: memoryview, caller: Caller) -> bytes:
            for which, took_s in ((Phase.QUEUE, 1e-9), (Phase.READ, 2e-9), (Phase.READ, 3e-9)):
                phases.add(which, took_s)
            return b""

        at_work.pump._handlers[WAIT] = waits
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at_work.pump.run)
            kernel.ask(WAIT)
            kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        spent = {Phase.QUEUE: 1e-9, Phase.READ: 5e-9}
        assert sorted(Slow.lines, key=str) == [(f"request {ECHO}", 7, {}), (f"request {WAIT}", 7, spent)]
        assert at_work.pump.tally.waited_s[Phase.READ] == 5e-9

    run(story)


def test_who_has_to_wait_keeps_nobody_else_waiting(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            slow, quick = kernel.ask(WAIT), kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert [number for number, *_ in kernel.told()] == [quick]
            at_work.served.released.set()
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.told() == [(slow, 0, b"waited")]

    run(story)


def test_a_write_waits_for_one_before_it_of_the_same_bytes_and_no_other_does(kernel: Kernel) -> None:
    # A page can be on its way twice: by write(2), and by what was stored through a mapping meanwhile. The later one must last.
    def ask(number: int, offset: int, size: int, node: int = 7) -> None:
        kernel.ask(STORE, WRITE.pack(offset, size, 0, number) + bytes(size), node)

    async def story() -> None:
        async with pumping(kernel) as at_work:
            stored = at_work.served.stored
            ask(1, 4096, 8192)  # odd ones wait
            ask(2, 0, 4096)
            ask(4, 12288, 4096)
            ask(6, 4096, 4096, node=8)
            ask(10, 8192, 4096)
            ask(13, 8192, 8192)
            ask(16, 12288, 4096)
            await trio.testing.wait_all_tasks_blocked()
            assert stored == [2, 4, 6]
            at_work.served.released.set()
            await trio.testing.wait_all_tasks_blocked()
            assert stored == [2, 4, 6, 1, 10, 13, 16]
            assert len(kernel.told()) == len(stored)
            ask(18, 8192, 4096)
            await trio.testing.wait_all_tasks_blocked()
            assert stored[-1] == 18

    run(story)


@pytest.mark.parametrize(("times", "answer"), [(1, (0, b"data")), (2, (errno.EIO, b""))])
def test_who_finds_no_room_is_tried_once_more(kernel: Kernel, times: int, answer: tuple[int, bytes]) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.full_times = times
            unique = kernel.ask(FULL, b"data")
            kernel.ask(ECHO, b"what overwrites the buffer")
            await trio.testing.wait_all_tasks_blocked()
            assert (unique, *answer) in kernel.told()

    run(story)


def test_what_looking_for_room_meets_is_the_callers_misfortune_too(kernel: Kernel) -> None:
    async def unreadable() -> bool:
        raise CorruptImage("the orphan table cannot be read")

    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.full_times = 1
            at_work.served.may_have_room_soon = unreadable  # type: ignore[method-assign]
            asked = [kernel.ask(FULL), kernel.ask(ECHO)]
            await trio.testing.wait_all_tasks_blocked()
            assert sorted((number, error) for number, error, _ in kernel.told()) == list(zip(asked, (errno.EIO, 0), strict=True))

    run(story)


def test_all_who_sync_while_the_pump_is_busy_share_one_commit_of_all_that_came_before(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            asked = [kernel.ask(opcode) for opcode in (ECHO, SYNC, ECHO, SYNC, SYNC, ECHO)]
            await trio.testing.wait_all_tasks_blocked()
            told = kernel.told()
            assert [unique for unique, *_ in told] == [asked[0], asked[2], asked[5], asked[1], asked[3], asked[4]]
            assert all(error == 0 for _, error, _ in told)
            assert at_work.served.commits == [3]

    run(story)


@pytest.mark.parametrize("is_quick", [True, False])
def test_who_syncs_a_file_of_which_something_is_lost_is_told_each_time_and_nobody_else(kernel: Kernel, is_quick: bool) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.is_quick = is_quick
            at_work.served.released.set()
            at_work.served.losses[InodeNo(7)] = CorruptImage("its leaf is damaged")
            asked = [kernel.ask(SYNC, node=node) for node in (6, 7, 8)]
            await trio.testing.wait_all_tasks_blocked()
            told = {unique: error for unique, error, _ in kernel.told()}
            assert [told[unique] for unique in asked] == [0, errno.EIO, 0]
            again = kernel.ask(SYNC, node=7)
            await trio.testing.wait_all_tasks_blocked()
            assert [(unique, error) for unique, error, _ in kernel.told()] == [(again, errno.EIO)]

    run(story)


def test_requests_that_wait_hold_no_more_than_they_may_and_a_burst(kernel: Kernel) -> None:
    """Any user could have a thousand threads write a MiB each, and the daemon held all of it, whatever its limits."""

    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.may_wait_bytes = 2500
            waiting = [kernel.ask(WAIT, bytes(1000)) for _ in range(60)]  # more than a burst
            echo = kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.told() == [] and at_work.pump.served_count <= BURST_MAX
            taken = at_work.pump.served_count
            at_work.served.released.set()
            await trio.testing.wait_all_tasks_blocked()
            assert {unique for unique, _, _ in kernel.told()} == {*waiting, echo}
            assert taken < at_work.pump.served_count == 61

    run(story)


def test_when_enough_has_been_answered_the_next_are_taken(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.may_wait_bytes = 40_000
            for _ in range(10):  # 17 KiB each: a large one ends a burst sooner
                kernel.ask(WAIT, bytes(17_000))
            await trio.testing.wait_all_tasks_blocked()
            taken = at_work.pump.served_count
            at_work.served.may_wait_bytes = 0
            kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert at_work.pump.served_count == taken and kernel.told() == []
            at_work.served.released.set()
            await trio.testing.wait_all_tasks_blocked()
            assert len(kernel.told()) == 11

    run(story)


def test_a_sync_does_not_wait_for_the_end_of_a_stream_of_requests(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            synced = kernel.ask(SYNC)
            for _ in range(BURST_MAX + 10):
                kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert at_work.served.commits == [BURST_MAX - 1]
            assert [unique for unique, *_ in kernel.told()].index(synced) == BURST_MAX - 1

    run(story)


def test_a_commit_that_takes_its_time_keeps_nobody_else_waiting(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.is_quick = False
            synced, other = kernel.ask(SYNC), kernel.ask(ECHO)
            await trio.testing.wait_all_tasks_blocked()
            assert [unique for unique, *_ in kernel.told()] == [other]
            at_work.served.released.set()
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.told() == [(synced, 0, b"")]

    run(story)


def test_a_commit_that_is_made_at_once_does_not_end_the_turn(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who syncs each of its writes paid for a turn of all others with each of them: 15 us of 260."""
    monkeypatch.setattr(pump_module, "BURST_NS", 60_000_000_000)  # or a busy machine ends turns earlier

    async def story() -> None:
        at_work = Pumping(kernel)
        turns = 0

        def committed() -> bool:
            kernel.told()
            kernel.ask(SYNC)
            return True

        at_work.served.commit_here = committed  # type: ignore[method-assign]
        kernel.ask(SYNC)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at_work.pump.run)
            while at_work.pump.served_count < BURST_MAX * 10:
                turns += 1
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert 9 <= turns <= 12

    run(story)


def test_a_commit_that_fails_is_told_to_all_who_asked_for_it(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            at_work.served.commit_fails = True
            asked = [kernel.ask(SYNC), kernel.ask(SYNC)]
            await trio.testing.wait_all_tasks_blocked()
            assert kernel.told() == [(unique, errno.EIO, b"") for unique in asked]

    run(story)


@pytest.mark.parametrize("body", [b"well", b"badly"])
def test_forgetting_has_no_answer(kernel: Kernel, body: bytes) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            kernel.ask(FORGET, body)
            await trio.testing.wait_all_tasks_blocked()
            assert at_work.served.forgotten == [body]
            assert kernel.told() == []

    run(story)


def test_what_nobody_here_knows_is_handed_on_whole(kernel: Kernel) -> None:
    async def story() -> None:
        async with pumping(kernel) as at_work:
            unique = kernel.ask(UNKNOWN, b"body")
            await trio.testing.wait_all_tasks_blocked()
            (message,) = at_work.forwarded
            assert HEAD.unpack_from(message)[:3] == (len(message), UNKNOWN, unique)
            assert message.endswith(b"body")

    run(story)


def test_the_pump_ends_with_its_connection(kernel: Kernel) -> None:
    async def story() -> None:
        at_work = Pumping(kernel)
        kernel.ask(WAIT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at_work.pump.run)
            await trio.testing.wait_all_tasks_blocked()
            kernel.hang_up()  # run ends although a request still waits

    run(story)


def test_a_reply_that_nobody_waits_for_is_no_error(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    gone = Channel(os.open(os.devnull, os.O_WRONLY))
    os.close(gone.descriptor)
    reader, gone.descriptor = os.pipe2(os.O_NONBLOCK)
    os.close(reader)
    gone.reply(1, b"")  # EPIPE is not one of those
    assert len(caplog.records) == 1
    gone.close()
