"""A program that writes pages at random places of a large file, as databases do, finds all of them again."""

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from razortools.units import MIB
from tests.mount.mounts import FSCK, Mounted, run
from tests.mount.test_killed import contents

IMAGE_BYTES = 192 * MIB
FILE_BYTES = 32 * MIB  # 256 records: more than may be changed before pages wait as such
PAGE_BYTES = 4096
OPTIONS = ("dirty=16M", "cache=1M")


def write_some(descriptor: int, model: bytearray, chance: random.Random, count: int) -> None:
    """Write *count* times whole pages, now and then something else, read back in between, and sync at the end."""
    for _ in range(count):
        kind = chance.random()
        length = chance.choice((1, 1, 1, 2, 8)) * PAGE_BYTES if kind < 0.85 else chance.randrange(1, 9000)
        offset = chance.randrange(FILE_BYTES - length)
        if kind < 0.85:
            offset -= offset % PAGE_BYTES
        if kind >= 0.95:
            assert os.pread(descriptor, length, offset) == model[offset : offset + length]
            continue
        data = chance.randbytes(length // 2) + bytes(length - length // 2)
        assert os.pwrite(descriptor, data, offset) == length
        model[offset : offset + length] = data
    os.fsync(descriptor)


@pytest.mark.mount
@pytest.mark.slow
def test_pages_at_random_places_are_there_after_a_remount_and_after_a_kill(fuse: None, tmp_path: Path) -> None:
    chance = random.Random(11)
    model = bytearray(contents(1, 64 * PAGE_BYTES) * (FILE_BYTES // (64 * PAGE_BYTES)))
    mounted = Mounted(tmp_path, IMAGE_BYTES)
    path = mounted.path / "file"
    try:
        mounted.mount(*OPTIONS)
        path.write_bytes(model)
        for ends_well in (True, False):
            mounted.remount(*OPTIONS)
            descriptor = os.open(path, os.O_RDWR)
            write_some(descriptor, model, chance, 1000)
            if not ends_well:
                mounted.send(signal.SIGKILL)
            with suppress(OSError):  # to close a file of a dead mount is an error
                os.close(descriptor)
            mounted.remount(*OPTIONS) if ends_well else mounted.mount(*OPTIONS)
            assert path.read_bytes() == model
        mounted.umount()
        checked = run(FSCK, "-n", mounted.image)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert mounted.complaints == []
    finally:
        mounted.take_away()
