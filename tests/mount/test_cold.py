"""A mount whose caches hold next to nothing, on a host that has forgotten the image: everything is found, by many at once."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from razortools.units import KIB, MIB
from tests.mount.mounts import Mounted

CLIENTS = 8


def content(number: int) -> bytes:
    """Return what file *number* holds: small, large, and some that shrink to a fraction."""
    chance = random.Random(number)
    size = chance.choice([0, 10, 3000, 40 * KIB, 300 * KIB, 1 * MIB])
    return chance.randbytes(size) if number % 3 else (b"%d line that shrinks\n" % number * (size // 10))[:size]


def forgotten_by_host(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def test_everything_is_found_by_many_at_once_however_cold_it_is(unmounted: Mounted) -> None:
    mounted = unmounted.mount()
    names = [f"{number % 12}/file with a long name {'x' * 60} {number}" for number in range(240)]
    for folder in range(12):
        (mounted.path / str(folder)).mkdir()
    for number, name in enumerate(names):
        (mounted.path / name).write_bytes(content(number))
    mounted.umount()
    forgotten_by_host(mounted.image)
    mounted.mount("cache=1M,metadata_cache=1M")

    def client(seed: int) -> None:
        order = list(enumerate(names))
        random.Random(seed).shuffle(order)
        for number, name in order:
            assert (mounted.path / name).read_bytes() == content(number), name
        assert sum(1 for _ in mounted.path.rglob("file*")) == len(names)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    forgotten_by_host(mounted.image)
    for name in names[::7]:  # what changes is cold too
        (mounted.path / name).rename(mounted.path / f"{name} moved")
        (mounted.path / f"{name} moved").unlink()
    assert sum(1 for _ in mounted.path.rglob("file*")) == len(names) - len(names[::7])
