"""What a volume takes of the host's memory stays inside its limits, however much is done without a pause."""

import pytest

from razortools.engine import files, namespace
from razortools.engine.limits import Limits
from razortools.engine.store.pages import MemoryDevice
from razortools.format.inode import ROOT_INODE
from razortools.units import GIB, KIB, MIB
from tests.workload import formatted, opened

LIMITS = Limits(metadata_cache_bytes=8 * MIB, record_cache_bytes=4 * MIB, dirty_bytes=2 * MIB)


def test_the_caches_hold_their_limits_while_many_files_are_made() -> None:
    device = formatted(MemoryDevice(16 * GIB))  # its journal is large, so nothing but the limits asks for a checkpoint
    with opened(device, limits=LIMITS) as volume:
        for number in range(20_000):
            ino = namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
            files.write(volume, ino, 0, b"%d " % number * 200)
            if number % 100 == 0:
                figures = volume.statistics()
                assert figures.metadata_cache_bytes <= LIMITS.metadata_cache_bytes, f"after {number} files: {figures}"
                assert figures.dirty_bytes <= LIMITS.dirty_bytes
                assert figures.record_cache_bytes <= LIMITS.record_cache_bytes


@pytest.mark.parametrize("piece_bytes", [3000, 700 * KIB])
def test_the_caches_hold_their_limits_while_a_large_file_is_written_and_read(piece_bytes: int) -> None:
    device = formatted(MemoryDevice(256 * MIB))
    with opened(device, limits=LIMITS) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
        for offset in range(0, 1000 * piece_bytes if piece_bytes < MIB // 4 else 100 * MIB, piece_bytes):
            files.write(volume, ino, offset, b"%d " % offset * (piece_bytes // 10))
            assert volume.statistics().dirty_bytes <= LIMITS.dirty_bytes + MIB
        for offset in range(0, volume.inodes.get(ino).size, piece_bytes):
            files.read(volume, ino, offset, piece_bytes)
            assert volume.statistics().record_cache_bytes <= LIMITS.record_cache_bytes
