"""mount.razorfs over a host whose disk fails as a file says: python -m tests.mount.failing FAULTS ARGUMENTS...

Each line of FAULTS is "read FIRST END" or "write FIRST END", bytes of the image, or "flush"; the host answers EIO to what touches
them. The file is read at each call, so a test changes what fails while the daemon runs.
"""

import errno
import os
import sys
from pathlib import Path
from typing import Any

from razortools import mount
from razortools.engine.store import device


def fail(faults: Path, image: str) -> None:
    """Let the calls of this process on *image* fail."""
    pread, preadv, pwrite, pwritev, fdatasync = os.pread, os.preadv, os.pwrite, os.pwritev, os.fdatasync

    def meet(kind: str, descriptor: int, offset: int, length: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}") != image:
            return
        for line in faults.read_text().splitlines():
            name, *edges = line.split()
            first, end = map(int, edges or (0, sys.maxsize))
            if name == kind and offset < end and offset + length > first:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def failing_pread(descriptor: int, length: int, offset: int) -> bytes:
        meet("read", descriptor, offset, length)
        return pread(descriptor, length, offset)

    def failing_preadv(descriptor: int, buffers: Any, offset: int, flags: int = 0) -> int:
        meet("read", descriptor, offset, sum(map(len, buffers)))
        return preadv(descriptor, buffers, offset, flags)

    def failing_pwrite(descriptor: int, data: Any, offset: int) -> int:
        meet("write", descriptor, offset, len(data))
        return pwrite(descriptor, data, offset)

    def failing_pwritev(descriptor: int, parts: Any, offset: int) -> int:
        meet("write", descriptor, offset, sum(map(len, parts)))
        return pwritev(descriptor, parts, offset)

    def failing_fdatasync(descriptor: int) -> None:
        meet("flush", descriptor, 0, 1)
        fdatasync(descriptor)

    device.os.pread, device.os.preadv = failing_pread, failing_preadv  # type: ignore
    device.os.pwrite, device.os.pwritev = failing_pwrite, failing_pwritev  # type: ignore
    device.os.fdatasync = failing_fdatasync  # type: ignore


if __name__ == "__main__":
    fail(Path(sys.argv[1]), os.path.realpath(sys.argv[2]))
    sys.argv[1:2] = []
    mount.main()
