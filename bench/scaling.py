"""What the repair of one thing costs, by how many things of its kind are damaged: it must not grow with their number.

    python -m bench.scaling                              each class of damage, 1,000 and 8,000 things
    python -m bench.scaling --sizes 1000 10000 100000
    python -m bench.scaling --only orphans links
    python -m bench.scaling --write                      and put the table into docs/BENCHMARKS.md

An image is made in memory, and things of one class are damaged in it: items under right checksums, data beyond what a checksum
mends. Then it is repaired, all of it in memory. Told is the processor time of the repair for each thing, and how that grows from
one size to the next: 1.0 is linear.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from bench.check import say
from bench.page import publish
from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.repair.surveying import believed, indexed
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.check.tree import TreeIndex
from razortools.engine import files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.device import Device
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.store import Store
from razortools.engine.volume import open_volume
from razortools.format.data import DataRecord
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import Kind, Table, object_of
from razortools.format.name import Name
from razortools.units import KIB, MIB

RECORD_BYTES = 4 * KIB
FILES, LARGE, LINKED = b"files", b"large", b"linked"
Items = list[tuple[bytes, bytes]]


class _Kept(MemoryDevice):
    """Memory that outlives the volume on it."""

    def close(self) -> None:
        """Do nothing."""


def made(count: int, kind: str) -> Device:
    """Return an image with *count* small files in a directory, one file of *count* records, or one file of *count* names."""
    device = _Kept(64 * MIB + count * 24 * KIB)
    create(device, plan_create(device.size_bytes, record_bytes=RECORD_BYTES, uuid=bytes(range(16)), hash_seed=bytes(16)))
    chance = random.Random(1)
    with open_volume(device) as volume:
        if kind == "large":
            ino = namespace.create(volume, ROOT_INODE, LARGE, 0o644, 0, 0)
            for number in range(count):
                files.write(volume, ino, number * RECORD_BYTES, chance.randbytes(RECORD_BYTES))
            return device
        folder = namespace.mkdir(volume, ROOT_INODE, FILES, 0o755, 0, 0)
        if kind == "linked":
            ino = namespace.create(volume, ROOT_INODE, LINKED, 0o644, 0, 0)
            for number in range(count):
                namespace.link(volume, ino, folder, b"name %d" % number)
            return device
        for number in range(count):
            ino = namespace.create(volume, folder, b"file %d" % number, 0o644, 0, 0)
            files.write(volume, ino, 0, chance.randbytes(RECORD_BYTES) if kind == "data" else b"%d" % number)
    return device


def tree_of(device: Device) -> TreeIndex:
    """Return the index of the image's tree."""
    facts = believed(device)
    assert facts is not None
    return indexed(facts.image)


def items(device: Device, kind: Kind) -> Items:
    """Return the items of a kind, but for those of the root directory."""
    return [
        (key, value)
        for _, (keys, values) in tree_of(device).leaves()
        for key, value in zip(keys, values, strict=True)
        if key[9] == kind and not (key[0] == Table.FILES and object_of(key) <= ROOT_INODE)
    ]


@contextmanager
def editing(device: Device) -> Iterator[Store]:
    """Open the tree for raw edits, then write a checkpoint."""
    store, _ = open_store(device)
    yield store
    store.checkpoint(store.superblock.written_at_ns)


def delete(device: Device, *kinds: Kind) -> None:
    """Delete all items of these kinds that belong to files in the directory."""
    gone = [key for kind in kinds for key, _ in items(device, kind) if kind is not Kind.INODE or object_of(key) > ROOT_INODE + 1]
    with editing(device) as store:
        for key in gone:
            store.tree.delete(key)


def wrong_links(device: Device) -> None:
    """Give every file a wrong link count."""
    found = items(device, Kind.INODE)
    with editing(device) as store:
        for key, value in found:
            store.tree.put(key, replace(Inode.decode(value), link_count=9).encode())


def wrong_references(device: Device) -> None:
    """Give every string a wrong count of users."""
    found = items(device, Kind.NAME)
    with editing(device) as store:
        for key, value in found:
            store.tree.put(key, replace(Name.decode(value), reference_count=9).encode())


def hurt_data(device: Device) -> None:
    """Hurt every data record beyond what a checksum mends."""
    for _, value in items(device, Kind.DATA_RECORD):
        place = DataRecord.decode(value).runs(4096)[0][0] * 4096
        device.write(place + 100, bytes(200))


def share_blocks(device: Device) -> None:
    """Let every second record claim the blocks of the one before it."""
    found = items(device, Kind.DATA_RECORD)
    with editing(device) as store:
        for (_, value), (key, _) in zip(found[::2], found[1::2], strict=False):
            store.tree.put(key, value)


def forget_inode(device: Device) -> None:
    """Take the inodes of all files away."""
    delete(device, Kind.INODE)


CLASSES: dict[str, tuple[str, Callable[[Device], None]]] = {
    "links": ("small", wrong_links),
    "references": ("small", wrong_references),
    "orphans": ("small", lambda device: delete(device, Kind.DIRECTORY_ENTRY, Kind.BACK_LINK)),
    "entries": ("small", lambda device: delete(device, Kind.DIRECTORY_ENTRY)),
    "back links": ("small", lambda device: delete(device, Kind.BACK_LINK)),
    "strings": ("small", lambda device: delete(device, Kind.NAME)),
    "inodes": ("small", forget_inode),
    "data": ("data", hurt_data),
    "data of one file": ("large", hurt_data),
    "shared blocks": ("data", share_blocks),
    "shared in one file": ("large", share_blocks),
    "names of one file": ("linked", lambda device: delete(device, Kind.BACK_LINK)),
}


def measured(name: str, count: int) -> tuple[float, Repaired]:
    """Return (processor time of the repair in seconds, what came of it)."""
    kind, damage = CLASSES[name]
    device = made(count, kind)
    damage(device)
    started = time.process_time()
    done = finished(repair(device, Wishes(Options(threads=1))))
    return time.process_time() - started, done


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure how repair scales with damage.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 8000])
    parser.add_argument("--only", nargs="+", choices=sorted(CLASSES), default=list(CLASSES))
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    chosen = parser.parse_args()
    lines = [f"{'class':<20} {'things':>8} {'each':>10} {'growth':>7}  outcome"]
    sys.stdout.write(lines[0] + "\n")
    for name in chosen.only:
        before = 0.0
        for count in chosen.sizes:
            say(f"{name}, {count:,}")
            took_s, done = measured(name, count)
            each_us = 1e6 * took_s / count
            growth = f"{each_us / before:>7.2f}" if before else " " * 7
            before = each_us
            left = f"refused: {done.refused[:60]}" if done.refused else f"{done.after.problem_count} left"
            rounds = f"{len(done.rounds)} rounds, overlay {done.overlay.written_bytes / MIB:.0f} MiB"
            lines.append(f"{name:<20} {count:>8,} {each_us:>7.0f} us {growth}  {left}, {rounds}")
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    if chosen.write:
        publish("scaling", "\n```\n" + "\n".join(lines) + "\n```\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
