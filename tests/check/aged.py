"""Images that have aged: files came and went and grew by turns, names were forgotten and stored again."""

import functools
import random

from razortools.check.compact.compact import Compacted, compact
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB, InodeNo
from tests.check.samples import Copy, fill, new_device, opened


@functools.cache
def _aged(size_bytes: int, copies: int, seed: int, growing_count: int) -> Device:
    device = new_device(size_bytes, metadata_copies=copies)
    chance = random.Random(seed)
    with opened(device) as volume:
        fill(volume)
        crowds = [namespace.mkdir(volume, ROOT_INODE, b"crowd %d" % number, 0o755, 1, 2) for number in range(3)]
        _fill(volume, crowds, chance)
        _grow(volume, crowds[0], growing_count, chance)
        _thin(volume, crowds)
    with opened(device) as volume:  # what was remembered of names is forgotten
        last = namespace.mkdir(volume, ROOT_INODE, b"last", 0o755, 1, 2)
        for number in range(0, 100, 3):
            _small(volume, last, number, chance)
        for number in range(3, 99, 6):
            namespace.unlink(volume, last, b"name %d" % number)
    return device


def _fill(volume: Volume, crowds: list[InodeNo], chance: random.Random) -> None:
    for crowd in crowds:
        for number in range(100):
            _small(volume, crowd, number, chance)


def _small(volume: Volume, crowd: InodeNo, number: int, chance: random.Random) -> None:
    ino = namespace.create(volume, crowd, b"name %d" % number, 0o644, 1, 2)
    files.write(volume, ino, 0, chance.randbytes(chance.choice((40, 300))))


def _grow(volume: Volume, crowd: InodeNo, count: int, chance: random.Random) -> None:
    """Let files grow by turns, one of them sparse, one with a large attribute, so that none lies in one piece."""
    growing = [namespace.create(volume, crowd, b"growing %d" % number, 0o644, 1, 2) for number in range(count)]
    for step in range(6):
        for place, ino in enumerate(growing):
            files.write(volume, ino, step * (8192 if place else 40_000), chance.randbytes(8192 - 4096 * (place == 1)))
        volume.commit()
    xattrs.set(volume, growing[0], b"user.large", chance.randbytes(9000))
    namespace.link(volume, growing[0], ROOT_INODE, b"grown")


def _thin(volume: Volume, crowds: list[InodeNo]) -> None:
    """Delete nine of ten files."""
    for crowd in crowds:
        for number in range(100):
            if number % 10:
                namespace.unlink(volume, crowd, b"name %d" % number)
        volume.checkpoint()


def aged(size_bytes: int = 2 * MIB, copies: int = 2, seed: int = 1, growing_count: int = 5) -> Copy:
    """Return a copy of an image that has aged, closed cleanly."""
    return Copy(_aged(size_bytes, copies, seed, growing_count))


def compacted(device: Device, steps_max: int = 99) -> Compacted:
    """Compact the image on *device* in its place, at most so many steps; what they show is written at once."""
    written: list[int] = []

    def write(overlay: OverlayDevice) -> str:
        for offset, page in list(overlay.written_pages()):
            device.write(offset, page)
        written.append(1)
        return "undo"

    return finished(compact(device, Options(threads=1), write, lambda: len(written) >= steps_max))
