"""Contents that stand in the tree, of which the algorithm or the length has a wrong bit: they tell both themselves."""

import pytest

from razortools.check.bitflip import turned as with_bit_turned
from razortools.check.runner import check_quietly
from razortools.check.stored_file import parts_of
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import Device
from razortools.format.data import InlineData
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import inline_key, inode_key
from tests.check.editing import edit_inode, editing, find_inode, indexed
from tests.check.samples import Copy, healthy, opened
from tests.check.test_mended_attribute import turned
from tests.check.test_misfiled import items, repaired

POLICIES = ("none", "zstd:3", "lz4", "zlib:6")
TEXT = b"what stands in the tree; " * 12


def with_small_files() -> Device:
    """Return an image with a small file of each algorithm."""
    device = healthy()
    with opened(device) as volume:
        for policy in POLICIES:
            ino = namespace.create(volume, ROOT_INODE, policy.encode(), 0o644, 1, 2)
            xattrs.set(volume, ino, b"user.razorfs.compression", policy.encode())
            files.write(volume, ino, 0, TEXT)
    return device


@pytest.mark.parametrize("policy", POLICIES)
def test_regression_one_wrong_bit_of_a_small_file_costs_nothing(policy: str) -> None:
    """It was cut out where its length was wrong by a bit and possible."""
    device = with_small_files()
    expected, number = items(device), find_inode(device, f"/{policy}")
    inode = Inode.decode(expected[inode_key(number)])
    for bit in range(8 * InlineData.FIXED_BYTES):
        hurt = turned(device, inline_key(number), bit)
        salvaged = list(parts_of(indexed(hurt), number, inode))
        assert [(part.first, part.data) for part in salvaged] == [(0, TEXT)], f"bit {bit}"
        assert items(repaired(hurt).overlay) == expected, f"bit {bit}"


def test_what_decompresses_in_no_way_is_cut_out_and_not_guessed() -> None:
    device = with_small_files()
    number = find_inode(device, "/zstd:3")
    with editing(device) as store:
        stored = InlineData.decode(store.tree.get(inline_key(number)) or b"")
        store.tree.put(inline_key(number), InlineData(stored.algorithm, stored.raw_bytes, stored.stored[:-9]).encode())
    done = repaired(Copy(device))
    assert done.loss is not None and [one.path for one in done.loss.truncated] == ["/zstd:3"]


@pytest.mark.parametrize(("policy", "missing"), [("none", 1), ("none", 12), ("lz4", 0)])
def test_a_length_that_the_size_confirms_is_not_bent_to_wrong_bytes(policy: str, missing: int) -> None:
    """Most damage of what lz4 made decompresses to some other length."""
    device = with_small_files()
    number = find_inode(device, f"/{policy}")
    inode = Inode.decode(items(device)[inode_key(number)])
    stored = InlineData.decode(items(device)[inline_key(number)])
    bits = range(8 * InlineData.FIXED_BYTES, 8 * (InlineData.FIXED_BYTES + len(stored.stored))) if not missing else (0,)
    noticed = 0
    for bit in bits:
        wrong = stored.encode()[:-missing] if missing else with_bit_turned(stored.encode(), bit)
        hurt = Copy(device)
        with editing(hurt) as store:
            store.tree.put(inline_key(number), wrong)
        if check_quietly(hurt).clean:
            continue  # it decompresses to the length that is told: only the checksums above could tell
        noticed += 1
        assert [part.data for part in parts_of(indexed(hurt), number, inode)] == [None], bit
        loss = repaired(hurt).loss
        assert loss is not None and [one.ranges for one in loss.truncated] == [((0, len(TEXT)),)], bit
    assert noticed


def test_a_small_file_whose_inode_tells_too_small_a_record_size_keeps_its_contents() -> None:
    """And a wrong size, so that nothing but the contents themselves tells that they are right."""
    text = b"much the same " * 570
    for policy in POLICIES[1:]:
        device = healthy()
        with opened(device) as volume:
            ino = namespace.create(volume, ROOT_INODE, b"file", 0o644, 1, 2)
            xattrs.set(volume, ino, b"user.razorfs.compression", policy.encode())
            files.write(volume, ino, 0, text)
        edit_inode(device, ino, record_log2=12, size=len(text) ^ 1)
        with opened(repaired(device).overlay) as volume:
            assert files.read(volume, ino, 0, len(text)) == text
