"""The audit log: who changed owners, modes and security attributes, what was denied, when it was mounted, and what was done to
the image since the mount before (checks, repairs, resizing, surgery). Lines of JSON.

Invariants: a line is appended when the event has happened, never before; the file is opened for appending only, by its owner
alone, and anew when somebody has moved it away; what cannot be written there is said in the log once; no request fails for it.

Most of what is denied is denied by the kernel, which never asks us (default_permissions): what is here was denied by the daemon.
"""

import errno
import json
import logging
import os
import stat
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from io import TextIOWrapper
from typing import Any

from razortools.engine import acls
from razortools.engine.administration import document
from razortools.engine.volume import Volume
from razortools.errors import PosixError, UsageError
from razortools.format.admin import AdminEntry
from razortools.service.callers import Caller
from razortools.service.committer import Committer
from razortools.service.failures import path_of
from razortools.service.handlers import Answer, Handler, Refused, Soon, name_of
from razortools.service.logs import LogFile, log
from razortools.service.operations import Operations
from razortools.service.options import MountOptions
from razortools.service.settled import Settled
from razortools.service.wire import SETATTR, SETXATTR, Opcode, SetattrField
from razortools.units import NANOSECONDS, InodeNo

MODE_OF_FILE = 0o600
_OWNERSHIP = int(SetattrField.MODE | SetattrField.UID | SetattrField.GID)
_DENIALS = (errno.EPERM, errno.EACCES)
_WATCHED = (b"security.", b"trusted.")


class _AuditFile(LogFile):
    """A file that only its owner reads."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE_OF_FILE)
        return os.fdopen(descriptor, "a", encoding="utf-8")

    has_complained = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Say once that nothing is audited any more."""
        if self.has_complained:
            return
        self.has_complained = True
        log.error("the audit log %s cannot be written to; see whether its disk is full", self.baseFilename)


class Trail:
    """The audit log of one mount."""

    def __init__(self, path: str) -> None:
        """Append to *path*. Raises UsageError if that cannot be done."""
        try:
            self._file = _AuditFile(path)
        except OSError as refused:
            raise UsageError(f"option audit: {path}: cannot be written to: {refused.strerror}") from None

    def note(self, event: str, caller: Caller | None = None, **fields: object) -> None:
        """Append one event; *caller* is who asked the kernel for it."""
        line: dict[str, object] = {"time": _iso(datetime.now(UTC)), "event": event}
        if caller is not None:
            line |= dict(zip(("uid", "gid", "pid"), caller, strict=True))
        text = json.dumps(line | fields)
        self._file.emit(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))

    def note_history(self, entries: Iterable[AdminEntry], **fields: object) -> None:
        """Append what was done to the image by tools that know of no audit log."""
        for one in entries:
            at = _iso(datetime.fromtimestamp(one.at_ns / NANOSECONDS, UTC))
            self.note("administration", None, **fields, at=at, **document(one))

    def reopen(self) -> None:
        """Open the file again, after somebody has moved it away."""
        refusal = self._file.reopen()
        if refusal:
            log.warning("%s: cannot be opened again: %s", self._file.baseFilename, refusal)

    def close(self) -> None:
        """Write no more."""
        self._file.close()


class AuditedOperations(Operations):
    """Operations whose security-relevant requests leave a trail."""

    def __init__(self, volume: Volume, committer: Committer, settled: Settled, options: MountOptions, trail: Trail) -> None:
        """As Handlers; events go to *trail*."""
        super().__init__(volume, committer, settled, options)
        self._trail = trail

    def table(self) -> dict[int, Handler]:
        """Return all handlers, each followed by what the trail needs."""
        table = super().table()
        table[Opcode.SETATTR] = self._then_note_owner(table[Opcode.SETATTR])
        table[Opcode.SETXATTR] = self._then_note_xattr(table[Opcode.SETXATTR], "xattr set")
        table[Opcode.REMOVEXATTR] = self._then_note_xattr(table[Opcode.REMOVEXATTR], "xattr removed")
        return {opcode: self._noting_denials(opcode, handler) for opcode, handler in table.items()}

    def _then_note_owner(self, handler: Handler) -> Handler:
        def answered(ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
            fields, *_ = SETATTR.unpack_from(body)
            if not fields & _OWNERSHIP:
                return handler(ino, body, caller)
            inode = self.volume.inodes.get(ino)
            before = inode.mode, inode.uid, inode.gid
            answer = handler(ino, body, caller)
            inode = self.volume.inodes.get(ino)
            after = inode.mode, inode.uid, inode.gid
            told = {"before": _owner(*before), "after": _owner(*after)}
            event, path = "owner" if before[1:] != after[1:] else "mode", path_of(self.volume, ino)
            self._trail.note(event, caller, path=path, inode=ino, **told)
            return answer

        return answered

    def _then_note_xattr(self, handler: Handler, event: str) -> Handler:
        def answered(ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
            name, _, _ = bytes(body[SETXATTR.size if event == "xattr set" else 0 :]).partition(b"\0")
            answer = handler(ino, body, caller)
            if name.startswith(_WATCHED) or name in acls.NAMES:
                self._trail.note(event, caller, path=path_of(self.volume, ino), inode=ino, name=os.fsdecode(name))
            return answer

        return answered

    def _noting_denials(self, opcode: int, handler: Handler) -> Handler:
        def answered(ino: InodeNo, body: memoryview, caller: Caller) -> Answer:
            try:
                answer = handler(ino, body, caller)
            except (Refused, PosixError) as refused:
                self._note_denial(refused, opcode, ino, caller)
                raise
            if isinstance(answer, bytes | tuple | Soon):
                return answer
            return self._end(answer, opcode, ino, caller)

        return answered

    async def _end(self, answer: Coroutine[Any, Any, bytes], opcode: int, ino: InodeNo, caller: Caller) -> bytes:
        """Return the reply of a handler that had to wait."""
        try:
            return await answer
        except (Refused, PosixError) as refused:
            self._note_denial(refused, opcode, ino, caller)
            raise

    def _note_denial(self, refused: Refused | PosixError, opcode: int, ino: InodeNo, caller: Caller) -> None:
        number = refused.number if isinstance(refused, Refused) else refused.mount_errno
        if number in _DENIALS:
            error = errno.errorcode[number]
            self._trail.note("denied", caller, operation=name_of(opcode), path=path_of(self.volume, ino), inode=ino, error=error)


def _iso(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds")


def _owner(mode: int, uid: int, gid: int) -> dict[str, object]:
    return {"mode": f"{stat.S_IMODE(mode):04o}", "uid": uid, "gid": gid}
