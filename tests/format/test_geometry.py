"""Geometry: the fixed parts of an image lie apart from one another and inside it, whatever its size."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.errors import UsageError
from razortools.format.geometry import JOURNAL_BYTES_MAX, Geometry, default_journal_bytes, plan_geometry
from razortools.format.layout import layout_fault
from razortools.format.spacemap import spacemap_shape
from razortools.format.superblock import BLOCK_BYTES_CHOICES, SLOT_COUNT
from razortools.units import GIB, KIB, MIB, TIB
from tests.check.editing import image_of
from tests.check.samples import new_device

sizes = st.one_of(st.integers(1 * MIB, 64 * MIB), st.integers(1 * MIB, 17 * TIB), st.integers(0, 24).map(lambda n: MIB << n))
block_sizes = st.sampled_from(BLOCK_BYTES_CHOICES)


def planned(image_bytes: int, block_bytes: int) -> Geometry | None:
    """Return the geometry, or None where this size cannot work with blocks of this size."""
    try:
        return plan_geometry(image_bytes, block_bytes)
    except UsageError:
        return None


@given(sizes, block_sizes)
def test_the_fixed_parts_do_not_overlap_and_lie_inside_the_image(image_bytes: int, block_bytes: int) -> None:
    geometry = planned(image_bytes, block_bytes)
    if geometry is None:
        return
    extents = geometry.fixed_extents()
    assert all(count > 0 for _, count in extents)
    for (first, count), (following, _) in itertools.pairwise(extents):
        assert first + count <= following
    last, count = extents[-1]
    assert last + count <= geometry.block_count
    assert geometry.block_count * block_bytes <= image_bytes


@given(sizes)
def test_every_size_from_one_mebibyte_on_works_with_blocks_of_4096(image_bytes: int) -> None:
    geometry = plan_geometry(image_bytes, 4096)
    used = sum(count for _, count in geometry.fixed_extents())
    assert used < geometry.block_count // 2
    assert geometry.journal_bytes == default_journal_bytes(image_bytes)
    assert geometry.node_bytes % geometry.block_bytes == 0


@given(sizes, block_sizes)
def test_the_image_ends_with_a_backup_and_starts_with_the_slots(image_bytes: int, block_bytes: int) -> None:
    geometry = planned(image_bytes, block_bytes)
    if geometry is None:
        return
    assert geometry.backups[-1] == geometry.block_count - 1
    assert geometry.fixed_extents()[0] == (0, SLOT_COUNT)


@given(sizes, block_sizes)
def test_the_pages_of_a_space_map_lie_in_a_row_without_gaps(image_bytes: int, block_bytes: int) -> None:
    shape = spacemap_shape(image_bytes // block_bytes, block_bytes)
    assert shape.level_pages[-1] == 1
    assert shape.level_pages[0] * shape.group_blocks >= shape.block_count
    tops = [shape.page_place(level, 0) for level in range(len(shape.level_pages))]
    ends = [shape.page_place(level, pages - 1) + 1 for level, pages in enumerate(shape.level_pages)]
    assert tops[-1] == 0
    assert ends[0] == shape.page_count
    assert all(ends[level + 1] == tops[level] for level in range(len(tops) - 1))


@pytest.mark.parametrize("image_bytes", [0, 4096, 1 * MIB - 1])
def test_an_image_below_one_mebibyte_is_refused(image_bytes: int) -> None:
    with pytest.raises(UsageError, match="too small"):
        plan_geometry(image_bytes, 4096)


@pytest.mark.parametrize("journal_bytes", [0, 4096, 64 * KIB - 1, 2 * MIB, 1 << 40])
def test_a_journal_that_does_not_fit_is_refused(journal_bytes: int) -> None:
    with pytest.raises(UsageError, match="journal"):
        plan_geometry(4 * MIB, 4096, journal_bytes)


@pytest.mark.parametrize("block_bytes", BLOCK_BYTES_CHOICES)
def test_a_journal_is_no_longer_than_mkfs_makes_one(block_bytes: int) -> None:
    superblock = image_of(new_device(8 * GIB, block_bytes=block_bytes, record_bytes=64 * KIB)).superblock
    start = superblock.block_count // 2 + 1  # where there is room up to the last backup
    longest = replace(superblock, journal_start=start, journal_blocks=JOURNAL_BYTES_MAX // block_bytes)
    assert layout_fault(longest) == ""
    longer = replace(longest, journal_blocks=longest.journal_blocks + 1)
    assert layout_fault(longer) == f"a journal of {longer.journal_blocks} blocks is not possible"
