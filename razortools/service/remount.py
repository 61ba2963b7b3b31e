"""Remounting: changing a mount while it is served.

Two halves change together: the daemon's (this module) and the kernel's flags (service/kernel_mount.py, called by whoever
remounts). Order of things: to read-only: the kernel first, which writes back what it holds and refuses if files are open for
writing; then the daemon makes everything durable and marks the image clean. To writing: the daemon first, so that the kernel
never lets a write through that is refused behind it. The daemon also follows a change that it learns of from the mount table
alone: that is how a system that shuts down makes its filesystems read-only.

Invariants: what cannot change is refused before anything has changed; of two remounts at once the second waits for the first,
which is given up if its client falls silent; whatever goes wrong here, the mount lives on.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import replace

import trio

from razortools.engine import orphans
from razortools.engine.volume import Volume
from razortools.errors import DeviceFailed, RazorError
from razortools.service import kernel_mount, logs, mount_table, mountpoints
from razortools.service.committer import Committer
from razortools.service.control import Client
from razortools.service.logs import log
from razortools.service.options import MountOptions, named_options
from razortools.service.remount_plan import kernel_words, options_after

FORGETTING_S = 0.01  # the kernel puts forgetting behind other requests
FORGETTING_LOOKS = 100
REPLY_PATIENCE_S = 60.0  # the kernel may have much to write back before a mount is read-only


class Remounter:
    """The daemon's half. One for each mount."""

    def __init__(
        self, volume: Volume, committer: Committer, options: MountOptions, adopt: Callable[[MountOptions], None]
    ) -> None:
        """Change the mount of *volume*, which has *options* now. *adopt* hands other ones to whoever goes by them."""
        self._volume = volume
        self._committer = committer
        self._options = replace(options, allow_other=options.is_for_all(is_root=os.geteuid() == 0))  # as the mount table has it
        self._adopt = adopt
        self._lock = trio.Lock()

    async def converse(self, request: dict[str, object], client: Client) -> None:
        """Change what a client of the control socket asks for, while it changes the kernel's flags."""
        texts = request.get("options")
        if not isinstance(texts, list):
            client.answer("not a request to remount")
            return
        try:
            async with self._lock:
                await self._remount([str(text) for text in texts], client, sloppy=bool(request.get("sloppy")))
        except RazorError as refused:
            client.answer(str(refused))
        except Exception as failure:  # ours: the mount lives on
            log.error("a remount failed: %s", failure, exc_info=True)
            client.answer(f"the daemon met a bug, see its log: {type(failure).__name__}: {failure}")

    async def _remount(self, texts: list[str], client: Client, *, sloppy: bool) -> None:
        options = options_after(self._options, texts, sloppy=sloppy)
        was_read_only = self._volume.read_only
        if "read_only" in named_options(texts, sloppy=True)[0] and not options.read_only:
            await self._resume()
        client.answer("")
        reply = None
        with trio.move_on_after(REPLY_PATIENCE_S) as waiting:
            reply = await client.receive()
        if reply is None or not reply.get("done"):  # the kernel refused, or the client is gone or as good as that
            if was_read_only and not self._volume.read_only:
                await self._make_read_only()
            if waiting.cancelled_caught:
                client.answer(f"given up, as nothing was heard for {REPLY_PATIENCE_S:.0f} s")
            return
        if options.read_only:
            await self._make_read_only()
        self._take(options)
        client.answer("")

    def _take(self, options: MountOptions) -> None:
        """Go by *options* from now on."""
        self._options = options
        logs.set_level(options.log_level)
        self._adopt(options)
        log.info("%s: remounted%s", self._volume.store.device.name, ", read-only" * self._volume.read_only)

    async def _resume(self) -> None:
        """Have the volume take changes. Raises what stands against it."""
        if self._volume.read_only:
            await self._committer.between_commits(self._volume.resume_writing)

    async def _make_read_only(self) -> None:
        """Have the volume refuse changes, with everything durable and the image clean. Raises DeviceFailed."""
        if not self._volume.read_only:
            await self._unlinked_files_are_forgotten()
            await self._committer.between_commits(self._volume.set_read_only)
        if self._volume.store.failure:
            raise DeviceFailed(f"it is read-only, but the image is not clean: {self._volume.store.failure}")

    async def _unlinked_files_are_forgotten(self) -> None:
        """Give the kernel time to say that it has forgotten files without a name; what is left then, the next writer deletes."""
        for _ in range(FORGETTING_LOOKS):
            orphans.finish_orphans(self._volume)
            if next(orphans.standing(self._volume), None) is None:
                return
            await trio.sleep(FORGETTING_S)

    # The mount table

    async def follow_table(self, device: tuple[int, int]) -> None:
        """Follow what others make of the mount with this device number, until cancelled. Raises nothing but that."""
        try:
            was_read_only = _table_says_read_only(device)
            async for _ in mount_table.changes():
                async with self._lock:  # first: a remount that is under way may change it again
                    is_read_only = _table_says_read_only(device)
                    if is_read_only is not None and is_read_only != was_read_only:
                        was_read_only = is_read_only
                        await self._follow(is_read_only=is_read_only)
        except Exception as failure:
            log.error("the mount table is not followed any more: %s", failure, exc_info=True)

    async def _follow(self, *, is_read_only: bool) -> None:
        """Make of the image what has been made of the mount."""
        try:
            await (self._make_read_only() if is_read_only else self._resume())
            self._take(replace(self._options, read_only=is_read_only))
        except Exception as failure:
            is_ours = not isinstance(failure, RazorError)
            now = "read-only" if is_read_only else "writable"
            log.error("the mount is %s now, the image is not: %s", now, failure, exc_info=is_ours)

    async def show_failure(self, device: tuple[int, int], mount_point: str) -> None:
        """Have the mount table say that the volume has turned read-only by itself, once no file is open for writing."""
        await self._committer.failed.wait()
        while True:
            if self._volume.store.failure:
                try:
                    await trio.to_thread.run_sync(_show_read_only, device, mount_point, abandon_on_cancel=True)
                    return
                except Exception as refused:
                    if not isinstance(refused, OSError) or refused.errno != errno.EBUSY:
                        log.debug("the mount table still says that %s is writable: %s", mount_point, refused)
                        return
            await trio.sleep(self._options.commit_interval_s)


def _table_says_read_only(device: tuple[int, int]) -> bool | None:
    """Return what the mount table says of the mount now; None, too, if it cannot be read now."""
    try:
        return mount_table.is_read_only(device)
    except Exception as failure:
        log.error("the mount table cannot be read: %s", failure, exc_info=not isinstance(failure, OSError))
        return None


def _show_read_only(device: tuple[int, int], mount_point: str) -> None:
    """Make the kernel refuse changes. Raises OSError."""
    mount = mountpoints.mount_of(device, mount_point)
    if mount is not None and not mount.is_read_only:
        kernel_mount.remount(os.fsdecode(mount.path), kernel_words(mount) - {"rw"} | {"ro"})
