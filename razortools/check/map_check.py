"""The space map compared with what the tree claims. A part of the data pass."""

from collections.abc import Iterator

from razortools.check import problems
from razortools.check.claims import Claims, bit_runs
from razortools.check.findings import Event, Finding, Progress
from razortools.check.image import Image
from razortools.check.map_rules import FreeCount, counted_free, fixed_claims, map_pages, stray_entries
from razortools.format.superblock import Superblock

PROGRESS_STEP = 256  # pages


def judge_map(image: Image, claims: Claims) -> Iterator[Event]:
    """Yield where the map that tells the truth is damaged or says something else than *claims*."""
    superblock, shape = image.superblock, image.geometry.spacemap
    fixed = fixed_claims(image)
    free, damaged = FreeCount(image, fixed), False
    for number, page in enumerate(map_pages(image, superblock.spacemap_active & 1, superblock.spacemap_top)):
        if number % PROGRESS_STEP == 0:
            yield Progress(1, 1)
        if page.raw is None:
            yield problems.MAP_PAGE_DAMAGED.found(block=page.block, reason=page.reason)
            damaged = True
            continue
        counted = counted_free(image, page)
        if counted != page.told:
            yield problems.MAP_COUNT.found(block=page.block, value=page.told, counted=counted)
        if page.level:
            if stray_entries(image, page):
                yield problems.MAP_PAGE_DAMAGED.found(block=page.block, reason="entries for pages that do not exist")
            continue
        free.add(page.index, counted)
        yield from _compare(page.index * shape.group_blocks, page.raw, claims.page(page.index))
    if damaged:
        return
    for group in sorted(claims.groups.keys() - free.groups):
        yield from _compare(group * shape.group_blocks, fixed.page(group), claims.page(group))
    if free.total != superblock.free_blocks:
        yield problems.FREE_BLOCKS_WRONG.found(where="space map", value=superblock.free_blocks, counted=free.total)


def judge_spare_map(image: Image, other: Superblock) -> Iterator[Event]:
    """Yield the damaged pages of the map that the older superblock names; its contents are out of date by design."""
    truth = image.superblock
    if other.spacemap_active == truth.spacemap_active or other.block_count != truth.block_count:
        return  # the same map, or one from before a resizing, which lies elsewhere
    for number, page in enumerate(map_pages(image, other.spacemap_active & 1, other.spacemap_top)):
        if number % PROGRESS_STEP == 0:
            yield Progress(1, 1)
        if page.raw is None:
            yield problems.SPARE_MAP_DAMAGED.found(block=page.block, reason=page.reason)


def _compare(base: int, marked: bytes, claimed: bytes) -> Iterator[Finding]:
    """Yield the differences of one page, run by run; *base* is its first block."""
    if marked == claimed:
        return
    used, named = int.from_bytes(marked, "little"), int.from_bytes(claimed, "little")
    for problem, bits in ((problems.ORPHANED_BLOCKS, used & ~named), (problems.CLAIMED_BUT_FREE, named & ~used)):
        for first, last in bit_runs(bits):
            yield problem.found(block=base + first, first=base + first, last=base + last, count=last - first + 1)
