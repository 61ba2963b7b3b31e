"""Items that are sealed with right checksums and make no sense: who uses them is told, and nobody else has to wait for it."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from razortools.engine import files, namespace, xattrs
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.recovery import open_store
from razortools.engine.store.superblocks import newest
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, DeviceFailed, PosixError
from razortools.format.compression import Algorithm
from razortools.format.data import STORED_BYTES_MAX, DataRecord
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import COUNTERS_KEY, inode_key, record_key
from razortools.format.volume import Counters
from razortools.units import MIB, InodeNo
from tests.check.editing import write_superblocks
from tests.engine.data_volumes import formatted, new_file, open_again

FILE_BYTES = 300_000
CONTENTS = random.Random(1).randbytes(FILE_BYTES)


def with_file() -> tuple[MemoryDevice, InodeNo]:
    """An image with a file of three records, closed."""
    device = formatted(MemoryDevice(32 * MIB))
    volume = open_again(device)
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, ino, 0, CONTENTS)
    volume.close()
    return device, ino


def edit(device: MemoryDevice, key: bytes, change: Callable[[bytes], bytes]) -> None:
    """Change the value of an item, with all checksums."""
    store, _ = open_store(device)
    store.room.holds_tree()
    value = store.get(key)
    assert value is not None
    store.tree.put(key, change(value))
    store.room.holds_tree()
    store.checkpoint(7)


def assert_others_are_served(volume: Volume, device: MemoryDevice) -> None:
    """What somebody else writes is durable, now and after the image was closed and opened again."""
    other = new_file(volume)
    files.write(volume, other, 0, b"unrelated")
    volume.commit()
    volume.checkpoint()
    assert not volume.read_only
    volume.close()
    again = open_again(device)
    assert files.read(again, other, 0, 100) == b"unrelated"
    again.close()


RECORDS = {
    "its list of runs is cut off": lambda record: replace(record, more=record.more + bytes(7)),
    "behind the image": lambda record: replace(record, address=1 << 20),
    "behind any image": lambda record: replace(record, address=(1 << 63) + 5),
    "over the superblock": lambda record: replace(record, address=0),
    "far too large": lambda record: replace(record, stored_bytes=STORED_BYTES_MAX + 1),
    "as large as can be": lambda record: replace(record, stored_bytes=(1 << 32) - 1),
}  # fmt: skip
USES: dict[str, Callable[[Volume, InodeNo], object]] = {
    "unlink": lambda volume, ino: namespace.unlink(volume, ROOT_INODE, b"file"),
    "truncate": lambda volume, ino: files.truncate(volume, ino, 0),
    "overwrite": lambda volume, ino: files.write(volume, ino, 0, bytes(FILE_BYTES)),
    "read": lambda volume, ino: files.read(volume, ino, 0, 10),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("nonsense", RECORDS)
def test_a_record_that_makes_no_sense_stops_nobody_else(nonsense: str, use: str) -> None:
    """No commit of anybody succeeded any more, or no checkpoint, and then no mount."""
    device, ino = with_file()
    edit(device, record_key(ino, 0), lambda raw: RECORDS[nonsense](DataRecord.decode(raw)).encode())
    volume = open_again(device)
    refused = False
    try:
        USES[use](volume, ino)
    except (CorruptImage, DeviceFailed):
        refused = True
    assert refused == (use == "read")  # what it held is damaged; to be rid of it must always be possible
    assert_others_are_served(volume, device)


COUNTS: dict[str, tuple[str, Callable[[Volume, InodeNo], object]]] = {
    "data_blocks": ("counters", lambda volume, ino: files.write(volume, ino, 0, b"a" * FILE_BYTES)),
    "raw_bytes": ("counters", lambda volume, ino: files.write(volume, ino, 0, bytes(FILE_BYTES))),
    "name_count": ("counters", lambda volume, ino: namespace.unlink(volume, ROOT_INODE, b"file")),
    "inode_count": ("counters", lambda volume, ino: namespace.unlink(volume, ROOT_INODE, b"file")),
    "stored_blocks": ("inode", lambda volume, ino: files.write(volume, ino, 0, b"a" * FILE_BYTES)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_that_is_too_low_keeps_nobody_from_committing(name: str) -> None:
    device, ino = with_file()
    where, use = COUNTS[name]
    if where == "inode":
        edit(device, inode_key(ino), lambda raw: replace(Inode.decode(raw), **{name: 0}).encode())
    else:
        edit(device, COUNTERS_KEY, lambda raw: replace(Counters.decode(raw), **{name: 0}).encode())
    volume = open_again(device)
    use(volume, ino)
    volume.commit()
    assert not volume.read_only
    assert_others_are_served(volume, device)


@pytest.mark.parametrize("log2", [0, 11, 21, 40, 255])
def test_records_of_a_size_that_cannot_be_are_not_asked_for(log2: int) -> None:
    """A read of ten bytes took a gibibyte of memory."""
    device, ino = with_file()
    edit(device, inode_key(ino), lambda raw: replace(Inode.decode(raw), record_log2=log2).encode())
    volume = open_again(device)
    with pytest.raises(CorruptImage, match="are not possible"):
        files.read(volume, ino, 0, 10)
    assert_others_are_served(volume, device)


FIELDS = {
    "node_bytes": (0, 4095, 1 << 31), "record_bytes": (0, 4097, 1 << 31), "metadata_copies": (0, 3, 255),
    "block_count": (0, (1 << 64) - 1), "spacemap_active": (2, 255), "journal_blocks": (0, (1 << 64) - 1),
    "generation": ((1 << 64) - 1,), "transaction": ((1 << 64) - 1,), "journal_sequence": ((1 << 64) - 1,),
    "journal_tail": ((1 << 64) - 1,), "spacemap_a": ((1 << 64) - 1,),
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in FIELDS.items() for value in values])
def test_a_superblock_that_makes_no_sense_is_refused_in_one_sentence(field: str, value: int) -> None:
    device, _ = with_file()
    write_superblocks(device, backups=True, **{field: value})
    with pytest.raises(CorruptImage, match="razorfsck"):
        newest(device)


def test_an_attribute_that_is_too_long_to_name_a_compression_is_refused() -> None:
    """It was taken, stored in blocks, and then nothing could be made in that directory any more."""
    device = formatted(MemoryDevice(32 * MIB))
    volume = open_again(device)
    with pytest.raises(PosixError):
        xattrs.set(volume, ROOT_INODE, xattrs.COMPRESSION, b"zstd" + bytes(3000))
    xattrs.set(volume, ROOT_INODE, xattrs.COMPRESSION, b"lz4\0\0")
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    assert volume.inodes.get(ino).compression == Algorithm.LZ4


def test_an_inherited_compression_that_cannot_be_read_hands_down_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    device = formatted(MemoryDevice(32 * MIB))
    volume = open_again(device)
    monkeypatch.setattr(xattrs, "_policy", lambda value: xattrs.Policy())
    monkeypatch.setattr(xattrs, "POLICY_BYTES_MAX", 10_000)
    xattrs.set(volume, ROOT_INODE, xattrs.COMPRESSION, b"zstd" + bytes(3000))
    monkeypatch.undo()
    ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    assert xattrs.names(volume, ino) == []
