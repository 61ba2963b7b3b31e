"""The session of libfuse and pyfuse3: it greets the kernel and answers what nobody else does.

libfuse gets one end of a socket pair for its connection. What arrives at the kernel's is answered by our own handlers; what they
do not know, and the greeting (INIT), goes through the pair, one message a request. The reply to INIT is changed on its way back:
libfuse can neither leave opening out nor ask for several things that it has no name for.

Why: a request that goes through libfuse and pyfuse3 costs twice as much as one that is answered here, see docs/ARCHITECTURE.md.
"""

import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

import pyfuse3
import trio

from razortools.service.channel import Channel
from razortools.service.logs import log
from razortools.service.mountpoints import MountRefused
from razortools.service.wire import HEAD, INIT_IN, INIT_OUT, INIT_PAGES, INIT_PAGES_AT, REPLY_HEAD, InitFlag, Opcode
from razortools.units import MIB

MESSAGE_BYTES_MAX = 192 * 1024  # more than any request that comes here: data and attributes are ours
WRITE_BYTES_MAX = 1 * MIB
PAGES_MAX = 256  # of a request; what the kernel allows at most
BACKGROUND_MAX = 64  # read-ahead and the like that the kernel may ask for at once
CONGESTED_AT = 48

# Asked for if the kernel offers it.
_WANTED = (
    InitFlag.BIG_WRITES | InitFlag.DO_READDIRPLUS | InitFlag.READDIRPLUS_AUTO | InitFlag.PARALLEL_DIROPS | InitFlag.ASYNC_DIO
    | InitFlag.MAX_PAGES | InitFlag.CACHE_SYMLINKS | InitFlag.HANDLE_KILLPRIV_V2 | InitFlag.EXPORT_SUPPORT
    # A directory's default access control list replaces the umask, and only we know whether there is one.
    | InitFlag.DONT_MASK
)  # fmt: skip
# Never: we are not asked when a file is opened, so O_TRUNC has to come as a truncation; and what the kernel has cached stays true
# whatever a file's times say, for nobody else writes.
_UNWANTED = InitFlag.ATOMIC_O_TRUNC | InitFlag.AUTO_INVAL_DATA


class _Greeter(pyfuse3.Operations):
    """What pyfuse3 serves: the greeting. Everything else answers ENOSYS, and the kernel does it by itself."""

    supports_dot_lookup = True


_NOT_LIBFUSES = {"symfollow", "nosymfollow"}  # flags of the mount alone, which it knows nothing of


class Session:
    """libfuse's session, behind the kernel's connection."""

    def __init__(self, channel: Channel, words: Set[str], *, writeback: bool, greeted: Callable[[], None]) -> None:
        """Make the session; *words* are mount options; *greeted* is called when the kernel has the reply to its greeting."""
        self._channel = channel
        self._greeted = greeted
        self._offered = InitFlag(0)
        self._init_unique = 0
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        operations = _Greeter()
        operations.enable_acl = True
        operations.enable_writeback_cache = writeback
        with _what_libfuse_says() as said:
            try:
                pyfuse3.init(operations, f"/dev/fd/{theirs.detach()}", set(words) - _NOT_LIBFUSES)
            except RuntimeError:
                raise MountRefused(f"libfuse refuses the session: {said() or 'it gives no reason'}") from None

    def forward(self, message: memoryview) -> None:
        """Let libfuse answer a request."""
        _, opcode, unique, *_ = HEAD.unpack_from(message)
        if opcode == Opcode.INIT:
            *_, flags = INIT_IN.unpack_from(message, HEAD.size)
            self._offered, self._init_unique = InitFlag(flags), unique
        try:
            self._ours.send(message)
        except OSError as failed:  # too many at once, or longer than anything that we know of
            log.error("request %d cannot be handed to libfuse: %s", opcode, failed.strerror)
            self._channel.refuse(unique, errno.EIO)

    async def run(self) -> None:
        """Serve what is forwarded, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._return_replies)
            await pyfuse3.main()

    async def _return_replies(self) -> None:
        """Give the kernel what libfuse answers."""
        while True:
            await trio.lowlevel.wait_readable(self._ours)
            message = self._ours.recv(MESSAGE_BYTES_MAX)
            if not message:
                return
            _, error, unique = REPLY_HEAD.unpack_from(message)
            is_greeting = unique == self._init_unique and not error
            self._channel.pass_on(self._agreed(message) if is_greeting else message)
            if is_greeting:
                self._init_unique = 0
                self._greeted()

    def _agreed(self, message: bytes) -> bytes:
        """Return libfuse's reply to INIT with what we want beyond it."""
        reply = bytearray(message)
        at = REPLY_HEAD.size
        major, minor, read_ahead, flags, *_ = INIT_OUT.unpack_from(reply, at)
        flags = (flags | _WANTED & self._offered) & ~_UNWANTED
        log.debug("the kernel offers %r, agreed on %r", self._offered, InitFlag(flags))
        INIT_OUT.pack_into(reply, at, major, minor, read_ahead, flags, BACKGROUND_MAX, CONGESTED_AT, WRITE_BYTES_MAX)
        INIT_PAGES.pack_into(reply, at + INIT_PAGES_AT, PAGES_MAX)
        return bytes(reply)

    def close(self) -> None:
        """End the session. The mount itself is not libfuse's."""
        pyfuse3.close(unmount=True)
        self._ours.close()


@contextmanager
def _what_libfuse_says() -> Iterator[Callable[[], str]]:
    """Yield a function that returns what libfuse has written to stderr inside; it knows no other way to give its reasons."""
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)

        def said() -> str:
            caught.seek(0)
            return caught.read().decode(errors="replace").strip()

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
