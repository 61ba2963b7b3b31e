"""Write protection: the host opens a block device for writing that takes no write. It has to be asked."""

import fcntl
import os
import stat
import sys

from razortools.errors import ReadOnly

_BLKROGET = 0x125E  # _IO(0x12, 94) of linux/fs.h


def refuse_protected(descriptor: int, name: str) -> None:
    """Raise ReadOnly if *descriptor* is a block device that is write-protected: a switch, a loop device, a snapshot."""
    if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
        return
    answer = bytearray(4)
    try:
        fcntl.ioctl(descriptor, _BLKROGET, answer)
    except OSError:
        return  # it does not tell: the first write will
    if int.from_bytes(answer, sys.byteorder):
        raise ReadOnly(f"{name}: the device is write-protected; open it read-only")
