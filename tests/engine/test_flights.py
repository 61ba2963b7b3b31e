"""While a commit or checkpoint flies, operations go on; what they find and what they free is right at any moment."""

import pytest

from razortools.check import runner
from razortools.engine import files, namespace
from razortools.engine.limits import Limits
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB
from tests.workload import formatted, opened

ENTRIES = 80  # several leaves of one block


def made(volume: Volume, first: int, count: int) -> None:
    for number in range(first, first + count):
        namespace.mkdir(volume, ROOT_INODE, b"%d" % number, 0o755, 0, 0)


def removed(volume: Volume, first: int, count: int) -> None:
    for number in range(first, first + count):
        namespace.rmdir(volume, ROOT_INODE, b"%d" % number)


@pytest.fixture
def device() -> MemoryDevice:
    device = MemoryDevice(1 * MIB)
    formatted(device)
    return device


def test_nodes_that_a_checkpoint_has_not_written_yet_stay_in_memory_however_small_the_cache(device: MemoryDevice) -> None:
    volume = opened(device, limits=Limits(metadata_cache_bytes=12 * KIB))
    made(volume, 0, ENTRIES)
    volume.begin_checkpoint()
    nodes = volume.store.nodes
    nodes.note_stable(nodes.stable_generation)  # nothing new, but a reason to look at all of them again
    made(volume, ENTRIES, 1)  # the end of an operation is when nodes are dropped
    removed(volume, 0, ENTRIES)  # reads what nobody has written
    volume.close()
    assert not runner.check_quietly(device).findings


def test_blocks_that_are_freed_while_a_checkpoint_flies_are_kept_for_it(device: MemoryDevice) -> None:
    volume = opened(device)
    made(volume, 0, ENTRIES)
    volume.begin_checkpoint()
    before = len(volume.store.maps.pending)
    removed(volume, 0, ENTRIES - 2)  # leaves are joined: what the checkpoint names of them is let go
    freed = list(volume.store.maps.pending)[before:]
    assert freed
    volume.settle()
    assert all(volume.store.maps.is_used(start) for start, _ in freed)
    again = opened(device.copy())  # the power fails here
    assert namespace.lookup(again, ROOT_INODE, b"%d" % (ENTRIES - 1))
    again.close()
    volume.checkpoint()
    assert not runner.check_quietly(device.copy()).findings


def test_dropping_what_was_not_committed_leaves_a_checkpoint_under_way_alone(device: MemoryDevice) -> None:
    volume = opened(device)
    made(volume, 0, ENTRIES)
    volume.begin_checkpoint()
    removed(volume, 0, ENTRIES)
    ino = namespace.create(volume, ROOT_INODE, b"f", 0o644, 0, 0)
    files.write(volume, ino, 0, b"f" * 9000)
    volume.abort()
    assert all(namespace.lookup(volume, ROOT_INODE, b"%d" % number) for number in range(ENTRIES))
    assert not runner.check_quietly(device.copy()).findings
    volume.close()
    assert not runner.check_quietly(device).findings
