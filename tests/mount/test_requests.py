"""How often the kernel has to ask: what it knows already costs no message to the daemon."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mount.mounts import Mounted

pytestmark = pytest.mark.mount

BLOCK = b"x" * 4096
Step = Callable[[Path], object]


def write_anew(path: Path) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(descriptor, BLOCK)
    os.close(descriptor)


def write_twice(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, BLOCK, 0)
    os.pwrite(descriptor, BLOCK, 4096)
    os.close(descriptor)


def read(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.read(descriptor, 4096)
    os.close(descriptor)


def close_opened(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR))


def look_for_what_is_not_there(path: Path) -> None:
    assert not os.path.exists(path.with_name("absent"))


def count(mounted: Mounted, step: Step, path: Path) -> int:
    os.stat(mounted.path)  # a directory that has changed costs one GETATTR
    before = mounted.greeting.requests
    step(path)
    return mounted.greeting.requests - before


def test_the_kernel_asks_for_nothing_twice(mounted: Mounted) -> None:
    path = mounted.path / "file"
    write_anew(mounted.path / "other")  # the first time, the kernel learns what it need not ask
    assert count(mounted, write_anew, path) == 4, "LOOKUP, MKNOD, GETXATTR of a capability, WRITE"
    assert count(mounted, write_twice, path) == 2, "WRITE, WRITE"
    assert count(mounted, os.stat, path) == 1, "GETATTR, after writing"
    assert count(mounted, os.stat, path) == 0
    assert count(mounted, close_opened, path) == 0
    assert count(mounted, read, path) == 0, "it has what was written"
    assert count(mounted, look_for_what_is_not_there, path) == 1
    assert count(mounted, look_for_what_is_not_there, path) == 0


def test_what_was_read_once_is_read_from_the_kernels_memory(mounted: Mounted) -> None:
    path = mounted.path / "file"
    write_anew(path)
    mounted.remount()
    read(path)
    assert count(mounted, read, path) == 0
    os.utime(path)  # its new time does not make the contents another's
    assert count(mounted, read, path) == 0
