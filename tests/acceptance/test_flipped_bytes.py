"""A flipped byte anywhere: what is read is right or an error, and the check tells, with the path of each file that is hurt."""

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from razortools.check.report import Report
from razortools.check.runner import check_quietly
from razortools.engine import directories, files, namespace, xattrs
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.pages import MemoryDevice, OverlayDevice
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, NotAnImage, RazorError
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB, InodeNo
from tests.acceptance.damage import flip_in, nodes_of, records_of
from tests.mount.mounts import Mounted
from tests.workload import formatted, opened

RECORD_BYTES = 128 * KIB
BLOCK_BYTES = 4096


def filled(copies: int) -> MemoryDevice:
    """Return a small image with files of every form: in the tree, in blocks, with large attributes, of several records."""
    device = formatted(MemoryDevice(3 * MIB), metadata_copies=copies)
    chance = random.Random(77)
    with opened(device) as volume:
        folder = namespace.mkdir(volume, ROOT_INODE, b"folder", 0o755, 0, 0)
        for number in range(12):
            parent = folder if number % 2 else ROOT_INODE
            ino = namespace.create(volume, parent, b"file %d" % number, 0o644, 0, 0)
            files.write(volume, ino, 0, (b"text %d " % number) * 200 if number % 3 else chance.randbytes(9000 * number))
            if number % 4 == 1:
                xattrs.set(volume, ino, b"user.large", chance.randbytes(7000))
        ino = namespace.create(volume, folder, b"long", 0o644, 0, 0)
        files.write(volume, ino, 0, chance.randbytes(300_000))
        namespace.symlink(volume, ROOT_INODE, b"link", bytes(chance.choices(range(1, 256), k=3000)), 0, 0)
    return device


Answers = dict[tuple[bytes, str], bytes]


def answers_of(volume: Volume) -> tuple[Answers, set[bytes]]:
    """Ask for everything. Return what was answered by (path, question), and the paths about which a question got an error."""
    answers: Answers = {}
    hurt: set[bytes] = set()
    todo = [(b"/", ROOT_INODE)]
    while todo:
        path, ino = todo.pop()
        try:
            inode = volume.inodes.get(ino)
            answers[path, "attributes"] = inode.encode()
            if inode.is_directory:
                below = [(name, InodeNo(entry.inode)) for _, name, entry in directories.entries(volume, ino)]
                answers[path, "entries"] = b"\0".join(sorted(name for name, _ in below))
                todo += [(path.rstrip(b"/") + b"/" + name, child) for name, child in below]
        except CorruptImage:
            hurt.add(path)
            continue
        for question, answer in questions(volume, ino):
            try:
                answers[path, question] = answer()
            except CorruptImage:
                hurt.add(path)
    return answers, hurt


def questions(volume: Volume, ino: InodeNo) -> list[tuple[str, Callable[[], bytes]]]:
    """Return (question, function that asks it) about a file."""
    inode = volume.inodes.get(ino)
    asked: list[tuple[str, Callable[[], bytes]]] = []
    if inode.is_regular:
        asked += [
            (f"bytes from {start}", partial(files.read, volume, ino, start, RECORD_BYTES))
            for start in range(0, inode.size, RECORD_BYTES)
        ]
    if stat.S_ISLNK(inode.mode):
        asked.append(("target", lambda: namespace.readlink(volume, ino)))
    asked.append(("names of attributes", lambda: b"\0".join(sorted(xattrs.names(volume, ino)))))
    asked.append(("large attribute", lambda: xattrs.get(volume, ino, b"user.large") if xattrs.names(volume, ino) else b""))
    return asked


def damaged_copies(device: Device, blocks: list[int], seed: int) -> Iterator[tuple[int, OverlayDevice]]:
    """Yield (block, a copy of the image with one bit of that block flipped), for each block."""
    chance = random.Random(seed)
    for block in blocks:
        copy = OverlayDevice(device)
        flip_in(copy, block, chance)
        yield block, copy


def used_blocks(volume: Volume) -> list[int]:
    """Return every block that the image's space map has in use."""
    return [block for block in range(volume.store.geometry.block_count) if volume.store.maps.is_used(block)]


def paths_in(report: Report) -> set[bytes]:
    """Return the paths that a report names."""
    return {os.fsencode(finding.path) for finding in report.findings if finding.path is not None}


def blocks_by_meaning(device: Device) -> dict[str, list[int]]:
    """Return the used blocks of an image at rest: data, nodes (first and second copies), and the rest."""
    with opened(device, read_only=True) as volume:
        size = volume.store.geometry.node_blocks
        first, second = zip(*nodes_of(volume), strict=True)
        nodes = {start + number for start in first for number in range(size)}
        mirrors = {start + number for start in second if start for number in range(size)}
        geometry = volume.store.geometry
        fixed = {start + number for start, count in geometry.fixed_extents() for number in range(count)}
        journal = {geometry.journal_start + number for number in range(geometry.journal_blocks)}
        used = set(used_blocks(volume))
    device.read_only = False
    return {
        "data": sorted(used - nodes - mirrors - fixed),
        "nodes": sorted(nodes),
        "mirrors": sorted(mirrors),
        "fixed": sorted(fixed - journal),
        "journal": sorted(journal),
    }


def test_a_flipped_bit_in_any_block_of_data_is_an_error_for_its_file_only_and_the_check_names_it() -> None:
    device = filled(copies=2)
    with opened(OverlayDevice(device)) as volume:
        right, hurt = answers_of(volume)
    assert hurt == set()
    blocks = blocks_by_meaning(device)["data"]
    assert len(blocks) > 100
    seen: set[bytes] = set()
    for block, copy in damaged_copies(device, blocks, seed=1):
        report = check_quietly(copy)
        with opened(copy) as volume:
            answers, hurt = answers_of(volume)
        assert answers.items() <= right.items(), f"block {block}: something else was read than had been written"
        assert len(hurt) == 1, f"block {block}: {hurt}"
        assert len(answers) == len(right) - 1, f"block {block}: more than one piece was lost"
        assert paths_in(report) == hurt, f"block {block}"
        assert report.exit_code == 4
        seen |= hurt
    assert b"/folder/long" in seen
    assert b"/link" in seen
    assert b"/folder/file 1" in seen, "its large attribute was hurt"


@pytest.mark.parametrize("which", ["nodes", "mirrors"])
def test_a_flipped_bit_in_one_of_two_copies_of_the_metadata_hurts_nobody_and_is_told(which: str) -> None:
    device = filled(copies=2)
    with opened(OverlayDevice(device)) as volume:
        right, _ = answers_of(volume)
    for block, copy in damaged_copies(device, blocks_by_meaning(device)[which], seed=2):
        report = check_quietly(copy)
        assert report.exit_code == 4, f"block {block}"
        with opened(copy) as volume:
            answers, hurt = answers_of(volume)
            assert (answers, hurt) == (right, set()), f"block {block}"
        if which == "nodes":  # the copies that are read, and healed then
            assert check_quietly(copy).findings == (), f"block {block}"


def test_a_flipped_bit_in_the_only_copy_of_the_metadata_is_an_error_or_tells_the_truth() -> None:
    device = filled(copies=1)
    with opened(OverlayDevice(device)) as volume:
        right, _ = answers_of(volume)
    for block, copy in damaged_copies(device, blocks_by_meaning(device)["nodes"], seed=3):
        report = check_quietly(copy)
        assert report.exit_code & (4 | 8), f"block {block}"
        try:
            volume = opened(copy)
        except CorruptImage:
            continue
        answers, hurt = answers_of(volume)
        assert answers.items() <= right.items(), f"block {block}"
        assert hurt or answers == right, f"block {block}: something is missing and nobody was told"


def test_a_flipped_bit_in_a_superblock_or_space_map_costs_no_file() -> None:
    device = filled(copies=2)
    with opened(OverlayDevice(device)) as volume:
        right, _ = answers_of(volume)
    for block, copy in damaged_copies(device, blocks_by_meaning(device)["fixed"], seed=4):
        report = check_quietly(copy)
        assert report.exit_code & (4 | 8), f"block {block}"
        for device_again in (copy, OverlayDevice(copy)):
            with opened(device_again, read_only=True) as volume:
                assert answers_of(volume) == (right, set()), f"block {block}"


def test_a_flipped_bit_in_the_journal_is_an_error_unless_it_hurts_nothing_or_only_the_last_commit() -> None:
    device = formatted(MemoryDevice(3 * MIB))
    volume = opened(device)
    states, ends = [], []
    for number in range(8):
        ino = namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
        files.write(volume, ino, 0, b"%d " % number * 2000)
        volume.commit()  # and no checkpoint: the journal holds it alone
        states.append(answers_of(volume)[0])
        ends.append(volume.store.journal.used_bytes)
    journal, geometry = volume.store.journal, volume.store.geometry
    chance = random.Random(5)
    errors = 0
    for _ in range(300):
        copy = OverlayDevice(device)
        in_use = chance.randrange(ends[-1])
        at = geometry.journal_start * BLOCK_BYTES + (journal.tail + in_use) % journal.ring_bytes
        copy.write(at, bytes([copy.read(at, 1)[0] ^ 1 << chance.randrange(8)]))
        report = check_quietly(copy)
        is_last = in_use >= ends[-2]  # whether the last commit was torn or hurt later, nobody can know
        assert is_last or report.exit_code == 4, f"byte {in_use} of the journal"
        try:
            again = opened(copy)
        except CorruptImage:
            errors += 1
            continue
        answers, hurt = answers_of(again)
        assert hurt == set()
        assert answers == states[-1] or (is_last and answers == states[-2]), f"byte {in_use} of the journal"
    assert errors > 30


def test_random_bytes_in_place_of_an_image_are_never_taken_for_one() -> None:
    chance = random.Random(6)
    for size in (0, 1, 4095, 4096, 8192, MIB, 2 * MIB):
        device = MemoryDevice(size)
        device.write(0, chance.randbytes(size))
        with pytest.raises(NotAnImage):
            opened(device)
        assert check_quietly(device).exit_code == 8


@pytest.mark.parametrize("length", [0, 4096, 8192, 100_000, 1 * MIB, 3 * MIB - 4096, 3 * MIB - 1])
def test_what_is_left_of_a_truncated_image_is_not_opened_and_not_called_clean(length: int) -> None:
    device = filled(copies=2)
    left = MemoryDevice(length)
    left.write(0, device.read(0, length))
    with pytest.raises(RazorError):
        opened(left)
    report = check_quietly(left)
    assert not report.clean
    assert report.exit_code & (4 | 8)


def test_through_the_mount_each_hurt_file_is_an_io_error_and_every_other_is_whole(fuse: None, tmp_path: Path) -> None:
    hurt = Mounted(tmp_path)
    chance = random.Random(8)
    contents = {f"file {number:02}": chance.randbytes(20_000 + 9000 * number) for number in range(40)}
    try:
        hurt.mount()
        for name, data in contents.items():
            (hurt.path / name).write_bytes(data)
        hurt.umount()
        damaged = damage_some(hurt.image, chance)
        hurt.mount()
        wrong = [name for name, record_no in damaged.items() if not answers_well(hurt.path / name, contents[name], record_no)]
        assert wrong == []
        assert {name for name in contents if name not in damaged and (hurt.path / name).read_bytes() != contents[name]} == set()
    finally:
        hurt.take_away()
    told = "\n".join(hurt.complaints)
    assert [name for name in damaged if name not in told] == [], "the log does not name each hurt file"
    assert "Traceback" not in told
    with open_image(hurt.image, writable=False) as device:
        assert paths_in(check_quietly(device)) == {b"/" + os.fsencode(name) for name in damaged}


def damage_some(image: Path, chance: random.Random) -> dict[str, int]:
    """Flip a bit in one record of every second file; return which record, by name."""
    with opened(open_image(image, writable=False), read_only=True) as volume:
        records = {name: records_of(volume, b"/" + name) for _, name, _ in directories.entries(volume, ROOT_INODE)}
    damaged = {}
    with open_image(image, writable=True) as device:
        for name in sorted(records)[::2]:
            record_no, record = chance.choice(sorted(records[name].items()))
            first, count = record.runs(BLOCK_BYTES)[0]
            flip_in(device, first + chance.randrange(count), chance)
            damaged[os.fsdecode(name)] = record_no
    return damaged


def answers_well(path: Path, data: bytes, damaged_record: int) -> bool:
    """Tell whether each record of a file reads right, but for the damaged one, which is an I/O error."""
    with open(path, "rb", buffering=0) as file:
        for record_no, start in enumerate(range(0, len(data), RECORD_BYTES)):
            wanted = data[start : start + RECORD_BYTES]
            try:
                found = os.pread(file.fileno(), RECORD_BYTES, start)
            except OSError as refused:
                if refused.errno != errno.EIO or record_no != damaged_record:
                    return False
            else:
                if record_no == damaged_record or found != wanted:
                    return False
    return True
