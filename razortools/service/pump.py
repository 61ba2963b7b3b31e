"""The request pump: takes requests from the kernel one after the other and has them answered, without going to sleep in between.

Waking a processor that sleeps costs about 40 microseconds, more than most requests. So the pump looks whether a request is there
already, keeps looking for a moment after one was served, giving way to others between two looks, and only then lets trio wait for
it. What a handler can answer at once is answered before the next request is read; what has to wait (a flush, room, the disk)
goes on as a task.

Invariants: other tasks run after at most BURST_MAX requests in a row, fewer large ones, and once BURST_NS are over; an idle mount
never spins; a spin never lasts longer than SPIN_S; requests that wait hold no more bytes than they may, and one burst more: those
that come then wait in the kernel, with what they hold at their own account; whatever a handler raises becomes the errno of its
own request, and the mount lives on.
"""

import os
import select
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol

import trio

from razortools.engine.store.residence import NOTHING, NotResident
from razortools.errors import OutOfSpace
from razortools.service import phases
from razortools.service.callers import Caller
from razortools.service.channel import Channel
from razortools.service.handlers import CHANGING_TREE, Answer, Handler, Soon, name_of
from razortools.service.phases import Phase
from razortools.service.residence import Fetcher
from razortools.service.tally import LATELY_MAX, Tally
from razortools.service.wakefulness import Wakefulness
from razortools.service.wire import HEAD, Opcode
from razortools.service.write_order import WriteOrder, Writing
from razortools.units import KIB, NANOSECONDS, InodeNo

BURST_MAX = 48  # requests served before others get their turn
BURST_NS = 1_000_000  # and how long that may take: a client may think between two requests, or wait for a processor
LARGE_BYTES = 16 * KIB  # a request takes as long as one more for each time that it holds this
SPIN_S = 100e-6  # a client that will ask again does so within about this time
CREDIT_MAX = 16
FOLLOWING = 8  # requests that came one right after the other: more will, and who waits for them is not to be woken each time
WORTHWHILE = 8  # things put off: while requests still come they are done together
RETRY_EVERY = 32  # parkings without spinning before it is tried again
SWITCH_S = 0.0005  # threads compress and write while requests are served; a request would wait up to the usual 5 ms for them

_HEAD_BYTES = HEAD.size
_WRITE = int(Opcode.WRITE)
_unpack_head = HEAD.unpack_from
_clock = time.perf_counter_ns
NO_PHASES: Mapping[Phase, float] = {}
SILENT = frozenset((int(Opcode.FORGET), int(Opcode.BATCH_FORGET)))  # the kernel expects no answer to them


class Served(Protocol):
    """What the pump needs of the handlers."""

    fetcher: Fetcher
    holds_back: bool  # what changes the tree is to wait for less_dirty() for now

    def table(self) -> dict[int, Handler]:
        """Return the handlers by opcode."""

    def refusal(self, failure: Exception, what: str, ino: InodeNo) -> int:
        """Return the errno for a failure."""

    def commit_here(self) -> bool:
        """Make everything durable at once if that is quick; whether it was. Raises what kept it from being durable."""

    def after_burst(self) -> None:
        """Called now and then while requests are served, before others have their turn. Raises nothing."""

    async def durable_file(self, ino: InodeNo) -> bytes:
        """Return when everything is durable: the reply to who asked for that of a file. Raises what kept it from being so."""

    def loss_of(self, ino: InodeNo) -> Exception | None:
        """Return why something of a file can never be durable; None: all of it is."""

    async def less_dirty(self) -> None:
        """Return when the tree may be changed without keeping others waiting."""

    def waiting_bytes_max(self) -> int:
        """Return how many bytes the requests that wait may hold."""

    async def may_have_room_soon(self) -> bool:
        """Whether a request that found no room is worth another try."""

    def tidy(self, at_least: int) -> Callable[[], Awaitable[object]] | None:
        """Do what was put off, if there are *at_least* so many things; return what takes longer. Raises nothing."""


class SlowRequests(Protocol):
    """Who is told of requests that took long."""

    from_s: float

    def tell(self, what: str, ino: InodeNo, took_s: float, spent: Mapping[Phase, float]) -> None:
        """Tell of one that took at least *from_s* seconds, and of what it spent waiting in each phase."""


class Pump:
    """Serves the requests of one channel."""

    def __init__(
        self,
        channel: Channel,
        served: Served,
        forward: Callable[[memoryview], None],
        slow: SlowRequests | None = None,
        wakefulness: Wakefulness | None = None,
    ) -> None:
        """Have *served* answer what arrives at *channel*, and *forward* take what it does not know.

        What takes longer than it should is told to *slow*; *wakefulness* is for whoever waits for the replies.
        """
        self._channel = channel
        self._served = served
        self._handlers: dict[int, Handler] = {int(opcode): handler for opcode, handler in served.table().items()}
        self._attempt = served.fetcher.residence.attempt
        self._forward = forward
        self.tally = Tally(self._handlers)
        self._note = {opcode: lately.append for opcode, lately in self.tally.lately.items()}
        self._count_at = LATELY_MAX
        self._slow = slow
        self._slow_ns = sys.maxsize if slow is None else int(slow.from_s * NANOSECONDS)
        self._poller = select.poll()
        self._poller.register(channel.descriptor, select.POLLIN)
        self._credit = CREDIT_MAX  # how well spinning has paid; at 0 it is left out
        self._unspun_count = 0
        self._wakefulness = Wakefulness() if wakefulness is None else wakefulness
        self._spun_count = 0  # looks that found a request, since it was parked
        self._syncing: list[tuple[int, int, int, InodeNo]] = []  # start, opcode, unique, node of those who wait for a commit
        self._waiting_bytes = 0  # of the requests whose tasks have not ended
        self._writes = WriteOrder()
        self._held_back = trio.lowlevel.ParkingLot()  # where run() waits until one of them has, while they hold too much
        self.parked_count = 0
        self.served_count = 0

    async def run(self) -> None:
        """Serve until the connection ends."""
        sys.setswitchinterval(SWITCH_S)
        try:
            async with trio.open_nursery() as nursery:
                while await self._serve_burst(nursery):
                    pass
                nursery.cancel_scope.cancel()
        finally:
            self._wakefulness.let_go()  # it may end in the middle of a burst, and closing may take its time

    async def _serve_burst(self, nursery: trio.Nursery) -> bool:
        """Serve up to BURST_MAX requests and give others their turn; whether there may be more."""
        receive, answer = self._channel.receive, self._answer
        while self._waiting_bytes and self._waiting_bytes > self._served.waiting_bytes_max():
            self._wakefulness.let_go()
            self._tidy(nursery, 1)  # what was put off may be the room that others wait for
            await self._held_back.park()
        if self.served_count >= self._count_at:
            self._count_at = self.served_count + LATELY_MAX
            self.tally.settle()
        started = _clock()
        left, until = BURST_MAX, started + BURST_NS
        while left > 0 and started < until:
            try:
                length = receive()
            except BlockingIOError:
                if self._syncing:
                    if not self._sync(nursery):
                        break
                    started = _clock()
                    continue
                self._tidy(nursery, WORTHWHILE)
                if self._may_spin() and self._spin():
                    started = _clock()
                    self._spun_count += 1
                    if self._spun_count == FOLLOWING:
                        self._wakefulness.keep()
                    continue
                self._spun_count = 0
                self._wakefulness.let_go()
                self._tidy(nursery, 1)
                self._served.after_burst()
                self.parked_count += 1
                await trio.lowlevel.wait_readable(self._channel.descriptor)
                return True
            if not length:
                return False
            left -= 1 + length // LARGE_BYTES
            self.served_count += 1
            started = answer(length, started, nursery)
        if self._syncing:
            self._sync(nursery)
        self._served.after_burst()
        await trio.lowlevel.checkpoint()
        return True

    def _tidy(self, nursery: trio.Nursery, at_least: int) -> None:
        """Have done what was put off until there is nothing else to do."""
        work = self._served.tidy(at_least)
        if work is not None:
            nursery.start_soon(work)

    def _answer(self, length: int, started: int, nursery: trio.Nursery) -> int:
        """Answer the request in the channel's buffer, or begin a task that will; it was looked for at *started*.

        Returns what the clock says now, which is when the next one is looked for.
        """
        buffer = self._channel.buffer
        _, opcode, unique, node, uid, gid, pid, _, _ = _unpack_head(buffer)
        handler = self._handlers.get(opcode)
        if handler is None:
            self._forward(buffer[:length])
            return _clock()
        body = buffer[_HEAD_BYTES:length]
        caller = (uid, gid, pid)
        if self._served.holds_back and opcode in CHANGING_TREE:
            answer = partial(self._answer_with, self._when_less_is_dirty, opcode, unique, node, bytes(body), caller)
            self._have_wait(nursery, length, started, opcode, node, answer)
            return _clock()
        if opcode == _WRITE and node in self._writes.of:
            earlier = self._writes.before(node, body)
            if earlier:
                answer = partial(self._answer_with, partial(self._after, earlier), opcode, unique, node, bytes(body), caller)
                self._have_wait(nursery, length, started, opcode, node, answer)
                return _clock()
        try:
            reply = self._attempt(NOTHING, handler, node, body, caller)
        except NotResident as told:
            fetch = partial(self._served.fetcher.finish, told)
            answer = partial(self._answer_with, fetch, opcode, unique, node, bytes(body), caller)
            self._have_wait(nursery, length, started, opcode, node, answer)
            return _clock()
        except OutOfSpace:
            answer = partial(self._try_again, opcode, unique, node, bytes(body), caller)
            self._have_wait(nursery, length, started, opcode, node, answer)
            return _clock()
        except Exception as failure:
            self._refuse(opcode, unique, node, failure)
            return self._end(started, opcode, node)
        if type(reply) is bytes or type(reply) is tuple:
            if opcode not in SILENT:
                self._channel.reply(unique, reply)
            now = _clock()
            took_ns = now - started
            self._note[opcode](took_ns)
            if took_ns >= self._slow_ns:
                self._complain(opcode, node, took_ns)
            return now
        if reply is Soon.DURABLE:
            self._syncing.append((started, opcode, unique, node))
        else:
            self._have_wait(nursery, length, started, opcode, node, partial(self._answer_later, opcode, unique, node, reply))
        return _clock()

    def _have_wait(
        self, nursery: trio.Nursery, length: int, started: int, opcode: int, node: InodeNo, answer: Callable[[], Awaitable[None]]
    ) -> None:
        """Begin a task that answers a request of *length* bytes; it keeps a copy of them."""
        self._waiting_bytes += length
        if opcode == _WRITE:
            answer = partial(self._write, self._writes.begin(node, self._channel.buffer[_HEAD_BYTES:]), answer)
        nursery.start_soon(self._timed, length, started, opcode, node, answer)

    async def _after(self, earlier: list[Writing], handler: Handler, node: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """Have a write done once those before it are."""
        for each in earlier:
            await each.done.wait()
        return await self._served.fetcher.run(handler, node, body, caller)

    async def _write(self, writing: Writing, answer: Callable[[], Awaitable[None]]) -> None:
        """Answer a write that has to wait, and let those go on that wait for it."""
        try:
            await answer()
        finally:
            self._writes.end(writing)

    async def _timed(
        self, length: int, started: int, opcode: int, node: InodeNo, answer: Callable[[], Awaitable[None]]
    ) -> None:
        """Answer a request that has to wait, and count how long it took."""
        spent = phases.begin()
        self.tally.under_way += 1
        try:
            await answer()
        finally:
            self.tally.under_way -= 1
            self._waiting_bytes -= length
            self._held_back.unpark_all()
            self.tally.wait(spent)
            self._end(started, opcode, node, spent)

    def _end(self, started: int, opcode: int, node: InodeNo, spent: Mapping[Phase, float] = NO_PHASES) -> int:
        """Count a request that has been answered; return the time."""
        now = _clock()
        took_ns = now - started
        self._note[opcode](took_ns)
        if took_ns >= self._slow_ns:
            self._complain(opcode, node, took_ns, spent)
        return now

    def _complain(self, opcode: int, node: InodeNo, took_ns: int, spent: Mapping[Phase, float] = NO_PHASES) -> None:
        if self._slow is not None:
            self._slow.tell(name_of(opcode), node, took_ns / NANOSECONDS, spent)

    def _sync(self, nursery: trio.Nursery) -> bool:
        """Answer all who wait for a commit with one, or let tasks wait for it; whether they are answered."""
        self._tidy(nursery, 1)  # or the commit would store what is about to go
        waiting, self._syncing = self._syncing, []
        try:
            is_durable = self._served.commit_here()
        except Exception as failure:
            for started, opcode, unique, node in waiting:
                self._refuse(opcode, unique, node, failure)
                self._end(started, opcode, node)
            return True
        for started, opcode, unique, node in waiting:
            if is_durable:
                loss = self._served.loss_of(node)
                if loss is None:
                    self._channel.reply(unique, b"")
                else:
                    self._refuse(opcode, unique, node, loss)
                self._end(started, opcode, node)
            else:
                answer = partial(self._answer_later, opcode, unique, node, Soon.DURABLE)
                self._have_wait(nursery, _HEAD_BYTES, started, opcode, node, answer)
        return is_durable

    async def _answer_later(self, opcode: int, unique: int, node: InodeNo, answer: Answer) -> None:
        """Answer a request when its handler's coroutine has ended."""
        try:
            if answer is Soon.DURABLE:
                answer = self._served.durable_file(node)
            reply = answer if isinstance(answer, bytes | tuple) else await answer
        except Exception as failure:
            self._refuse(opcode, unique, node, failure)
            return
        if opcode not in SILENT:
            self._channel.reply(unique, reply)

    async def _answer_with(
        self, attempt: Callable[..., Awaitable[Answer]], opcode: int, unique: int, node: InodeNo, body: bytes, caller: Caller
    ) -> None:
        """Answer a request with what *attempt* brings its handler to, once that has what it waits for."""
        try:
            answer = await attempt(self._handlers[opcode], node, memoryview(body), caller)
        except OutOfSpace:
            await self._try_again(opcode, unique, node, body, caller)
            return
        except Exception as failure:
            self._refuse(opcode, unique, node, failure)
            return
        await self._answer_later(opcode, unique, node, answer)

    async def _when_less_is_dirty(self, handler: Handler, node: InodeNo, body: memoryview, caller: Caller) -> Answer:
        """Have a request done that changes the tree, once that keeps nobody else waiting."""
        await self._served.less_dirty()
        return await self._served.fetcher.run(handler, node, body, caller)

    async def _try_again(self, opcode: int, unique: int, node: InodeNo, body: bytes, caller: Caller) -> None:
        """Answer a request that found no room, once there may be some."""
        try:
            await self._served.may_have_room_soon()
            answer = await self._served.fetcher.run(self._handlers[opcode], node, memoryview(body), caller)
        except Exception as failure:
            self._refuse(opcode, unique, node, failure)
            return
        await self._answer_later(opcode, unique, node, answer)

    def _refuse(self, opcode: int, unique: int, node: InodeNo, failure: Exception) -> None:
        number = self._served.refusal(failure, name_of(opcode), node)
        self.tally.refuse(opcode, number)
        if opcode not in SILENT:
            self._channel.refuse(unique, number)

    def _may_spin(self) -> bool:
        """Whether spinning has paid lately, or is due to be tried again."""
        if self._credit > 0:
            return True
        self._unspun_count += 1
        if self._unspun_count < RETRY_EVERY:
            return False
        self._unspun_count = 0
        return True

    def _spin(self) -> bool:
        """Look for a request for SPIN_S at the most; whether there is one."""
        poll, clock = self._poller.poll, time.perf_counter
        end = clock() + SPIN_S
        while clock() < end:
            if poll(0):
                self._credit = min(CREDIT_MAX, self._credit + 2)
                return True
            os.sched_yield()  # the client may be waiting for this very processor
        self._credit -= 1 if self._credit > 0 else 0
        return False
