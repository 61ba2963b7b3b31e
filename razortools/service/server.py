"""Serving: one image at one mount point, from the first request to the closed image.

Order of things. Start: the image is opened and recovered, FUSE is mounted, the kernel says hello, the mount answers a question
of our own, then `ready` is called. End, however it comes about (umount, fusermount3 -u, a signal, a dead connection): no request
is served any more, the volume is closed (committed, checkpointed, marked clean), waiting clients of the control socket are told,
and only then the session goes.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from razortools.engine import collector, orphans
from razortools.engine.store.admin import since_last_mount
from razortools.engine.volume import Volume
from razortools.errors import DeviceFailed, ImageBusy, RazorError, sentence
from razortools.service import closing, logs, memory_room, mountpoints, placement
from razortools.service.audit import AuditedOperations, Trail
from razortools.service.channel import Channel
from razortools.service.committer import Committer
from razortools.service.connecting import connect, fuse_options
from razortools.service.control import Client, Control, Farewell, Greeting, listen
from razortools.service.figures import Telling
from razortools.service.holding import Holder
from razortools.service.logs import log
from razortools.service.memory import Memory, fitted
from razortools.service.opening import Place, open_place
from razortools.service.operations import Operations
from razortools.service.options import MountOptions
from razortools.service.pump import Pump
from razortools.service.recompressing import Recompressor
from razortools.service.recorded import RecordedOperations
from razortools.service.remount import Remounter
from razortools.service.session import Session
from razortools.service.settled import Settled
from razortools.service.slow import SlowLog
from razortools.service.space_history import SpaceHistory
from razortools.service.wakefulness import Wakefulness
from razortools.units import plural

if TYPE_CHECKING:
    from razortools.service.scrape import Scrape

UNMOUNT_GRACE_S = 10.0  # after a signal
UNWRITTEN = "what the kernel had still to write of mapped files"
SWITCH_S = 0.005  # between threads, as Python has it; the pump, while it serves, wants its turn sooner


def serve(
    place: Place, options: MountOptions, ready: Callable[[], None], *, before_mounting: Callable[[], None] = lambda: None
) -> None:
    """Serve an image until it is unmounted. *ready* is called when the mount answers. Raises RazorError before or after that.

    *before_mounting* is called when the image is open, which is the last that is looked for in this mount namespace.
    """
    volume = open_place(place, fitted(options, memory_room.allowed_bytes()))
    try:
        before_mounting()
        mounted = Mounted(volume, place, options, ready)
    except BaseException:
        volume.close()
        raise
    mounted.run()


class Mounted:
    """One mounted volume. Made: mounted. Run: served until it is not mounted any more, then closed."""

    def __init__(self, volume: Volume, place: Place, options: MountOptions, ready: Callable[[], None]) -> None:
        """Mount *volume*. Raises MountRefused with what the host says."""
        self._volume = volume
        self._place = place
        self._options = options
        self._ready = ready
        self._hello = trio.Event()
        self._ending = closing.Ending()
        self._control: Control | None = None
        self._device: tuple[int, int] | None = None  # of the mount, once it answers
        words = fuse_options(place.image, options)
        self._trail = None if options.audit is None else Trail(options.audit)
        self._scrape = _scrape(options)
        try:
            self._connection = connect(place, options, words)
            try:
                self._prepare(words)
            except BaseException:
                self._connection.abandon()
                raise
        except BaseException:
            self._end_scrape()
            raise

    def _prepare(self, words: set[str]) -> None:
        """Put together what serves the connection."""
        volume, options = self._volume, self._options
        self._channel = Channel(self._connection.descriptor)
        self._session = Session(self._channel, words, writeback=options.writeback, greeted=self._hello.set)
        self._settled = Settled(volume, self._channel.forget_attributes)
        self._committer = Committer(volume, options)
        self._handlers = operations = self._operations()
        self._committer.after_commit = self._note_commit
        operations.listings.drop = self._channel.forget_pages
        self._memory = Memory(volume, self._committer, options)
        self._remounter = Remounter(volume, self._committer, options, self._adopt)
        self._holder = Holder(volume, self._committer)
        self._recompressor = Recompressor(
            volume, operations.fetcher, lambda: self._pump.served_count, self._settled.estimated, rest_s=options.rest_s
        )
        slow = None if options.slow_s is None else SlowLog(volume, options.slow_s)
        self._wakefulness = Wakefulness()
        self._wakefulness.configure(options.low_latency)
        self._pump = Pump(self._channel, operations, self._session.forward, slow, self._wakefulness)
        self._history = SpaceHistory(volume.used_bytes)
        self._telling = Telling(
            os.getpid(), self._place.image, self._place.mount_point, self._pump, operations, self._committer, self._memory,
            self._recompressor, self._wakefulness, self._history, mounted_at_s=time.monotonic(),
        )  # fmt: skip

    def _note_commit(self) -> None:
        """A commit has been made, or has failed."""
        self._settled.note_commit()
        self._handlers.tell_losses()

    def _adopt(self, options: MountOptions) -> None:
        """Go by *options* from now on."""
        self._memory.take(options)
        self._handlers.adopt(options)
        self._recompressor.configure(options.rest_s)
        self._wakefulness.configure(options.low_latency)

    def _operations(self) -> Operations:
        """Return the handlers that the options ask for."""
        volume, options = self._volume, self._options
        if self._trail is not None:
            return AuditedOperations(volume, self._committer, self._settled, options, self._trail)
        kind = Operations if options.record is None else RecordedOperations
        return kind(volume, self._committer, self._settled, options)

    def _note(self, event: str, **fields: object) -> None:
        """Note an event of the mount in the audit log."""
        if self._trail is not None:
            self._trail.note(event, None, image=self._place.image, mount_point=self._place.mount_point, **fields)

    def run(self) -> None:
        """Serve, then close. Raises RazorError if the image could not be closed well."""
        try:
            trio.run(self._serve)
        finally:
            closing.ignore_signals()
            sys.setswitchinterval(SWITCH_S)
            self._end_scrape()
            if self._control is not None:
                self._control.stop_listening()
            try:
                with closing.telling_where_it_hangs():
                    self._close()
            except Exception as failed:
                self._ending.fail(failed)
                raise
            finally:
                self._note("unmount", **self._ending.document())
                if self._control is not None:
                    self._control.finish(Farewell(self._ending.reason))
                self._wakefulness.close()
                self._connection.detach()
                self._channel.close()
                self._session.close()

    def _end_scrape(self) -> None:
        if self._scrape is not None:
            self._scrape.close()

    def _close(self) -> None:
        """Close the volume. Raises RazorError if the image is not clean now."""
        volume = self._volume
        failure = ""
        try:
            if not volume.read_only:
                _let_go(volume)
                self._store_all()
            failure = volume.store.failure
        finally:
            volume.close()
        if failure:
            raise DeviceFailed(f"{self._place.image}: not closed cleanly, the next mount recovers it: {failure}")
        log.info("%s: closed", self._place.image)

    def _store_all(self) -> None:
        """Store what is dirty while what a damaged image cannot take may still be told, in the image among others."""
        self._volume.begin_commit(storing=True)
        self._volume.settle()
        self._handlers.tell_losses()
        lost = len(self._volume.records.losses.files())
        if lost:
            text = f"what was written to {plural(lost, 'file')} could not be stored, because the image is damaged; see the log"
            self._ending.lose(f"{self._place.image}: {text}")

    async def _serve(self) -> None:
        """Serve until the session ends."""
        placement.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._session.run)
            nursery.start_soon(self._committer.run)
            nursery.start_soon(self._settled.run)
            nursery.start_soon(self._memory.run)
            nursery.start_soon(self._watch_signals, nursery.cancel_scope)
            nursery.start_soon(self._history.run)
            nursery.start_soon(self._recompressor.run)
            nursery.start_soon(self._announce, nursery)
            if self._scrape is not None:
                nursery.start_soon(self._scrape.serve, self._telling.take)
                log.info("metrics at http://%s/metrics", self._scrape.address)
            await self._pump.run()
            nursery.cancel_scope.cancel()

    async def _announce(self, nursery: trio.Nursery) -> None:
        """Once the mount answers: raise its read-ahead, open the control socket, tell whoever waits."""
        await self._hello.wait()
        # Should the pump end now nobody answers the thread before the connection is closed, which is when trio has ended.
        device = self._device = await trio.to_thread.run_sync(_device_of, self._place.mount_point, abandon_on_cancel=True)
        collector.calm()
        if device is None:
            log.info("%s: not mounted at %s any more", self._place.image, self._place.mount_point)
        else:
            await self._open_control(device, nursery)
            log.info("%s: mounted at %s%s", self._place.image, self._place.mount_point, ", read-only" * self._volume.read_only)
            if self._trail is not None:
                done = since_last_mount(self._volume.store.superblock, is_mounted=not self._volume.read_only)
                self._trail.note_history(done, image=self._place.image)
            self._note("mount", read_only=self._volume.read_only, pid=os.getpid())
            nursery.start_soon(self._remounter.follow_table, device)
            nursery.start_soon(self._remounter.show_failure, device, self._place.mount_point)
        self._ready()

    async def _open_control(self, device: tuple[int, int], nursery: trio.Nursery) -> None:
        """Open the control socket of the mount with this number, after raising its read-ahead."""
        _set_read_ahead(device, self._options.readahead_bytes)
        try:
            self._control = await listen(device, self._greeting, self._converse)
            nursery.start_soon(self._control.serve)
        except OSError as failed:
            log.warning("no control socket, so umount.razorfs cannot wait for this mount: %s", failed.strerror)

    async def _converse(self, request: dict[str, object], client: Client) -> None:
        """Answer what a client of the control socket asks for."""
        if request.get("figures"):
            client.hand({"figures": self._telling.take().document()})
        elif "hold" in request:
            await self._holder.converse(request, client)
        else:
            await self._remounter.converse(request, client)
            self._note("remount asked for", options=request.get("options"), read_only=self._volume.read_only)

    def _greeting(self) -> Greeting:
        """Return what a client of the control socket is told now."""
        place, volume = self._place, self._volume
        return Greeting(
            os.getpid(),
            place.image,
            place.mount_point,
            read_only=volume.read_only,
            failure=volume.store.failure,
            held_inodes=volume.inodes.held_count,
            requests=self._pump.served_count,
        )

    async def _watch_signals(self, serving: trio.CancelScope) -> None:
        """Unmount when told to end: as umount does if nobody uses the mount, else its users lose it."""
        # The receiver leaves signals as it found them, and gives them those that came while the first one was obeyed.
        closing.ignore_signals()
        with trio.open_signal_receiver(*closing.SIGNALS) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    logs.reopen()
                    if self._trail is not None:
                        self._trail.reopen()
                    log.info("SIGHUP: the log is opened again")
                    continue
                log.info("%s: unmounting", signal.Signals(number).name)
                with trio.move_on_after(UNMOUNT_GRACE_S) as grace:
                    await trio.to_thread.run_sync(self._unmount, abandon_on_cancel=True)
                if grace.cancelled_caught:
                    text = f"not unmounted within {UNMOUNT_GRACE_S:g} s; {UNWRITTEN} is lost"
                    self._ending.lose(f"{self._place.mount_point}: {text}")
                serving.cancel()

    def _unmount(self) -> None:
        """Unmount while requests are still served: the kernel may have pages to write. In a thread."""
        place = self._place.mount_point
        failure = ""
        try:
            if self._device is not None:
                mount = mountpoints.mount_of(self._device, place)
                if mount is None:
                    return
                place = os.fsdecode(mount.path)
            mountpoints.unmount(place)
        except ImageBusy:
            log.warning("%s is in use; its users lose it now", place)
            failure = closing.write_back(place)
        except RazorError as refused:
            log.warning("%s", refused)
            failure = closing.write_back(place)
        except OSError as failed:  # it is not even known what is mounted there
            failure = sentence(failed)
        if failure:
            self._ending.lose(f"{place}: {UNWRITTEN} may be lost: {failure}")


def _scrape(options: MountOptions) -> "Scrape | None":
    """Return the server of the page for Prometheus, if it is asked for. Raises MountRefused if it cannot be had."""
    if options.metrics is None:
        return None
    from razortools.service.scrape import Scrape  # late: prometheus_client takes a tenth of a second

    return Scrape(options.metrics)


def _let_go(volume: Volume) -> None:
    """No kernel knows any inode now: let unlinked files go that were held until the end."""
    for ino in orphans.standing(volume):
        while volume.inodes.is_held(ino):
            volume.inodes.release(ino)
    orphans.finish_orphans(volume)


def _device_of(mount_point: str) -> tuple[int, int] | None:
    """Return the number of the mount that answers at *mount_point*; None if it is gone: what answers there then is the host's."""
    try:
        number = os.stat(mount_point).st_dev  # first: a question to the daemon
        mount = mountpoints.mount_at(mount_point)
    except OSError as gone:
        log.debug("%s does not answer: %s", mount_point, gone)
        return None
    device = (os.major(number), os.minor(number))
    return device if mount is not None and mount.is_fuse and mount.device == device else None


def _set_read_ahead(device: tuple[int, int], size_bytes: int) -> None:
    """Let the kernel read ahead *size_bytes* on the mount, if we may."""
    with suppress(OSError):
        Path(f"/sys/class/bdi/{device[0]}:{device[1]}/read_ahead_kb").write_text(str(size_bytes // 1024))
