"""Late pages: loose pages are written behind their records (format/late_pages.py), which nobody has to read for that.

Instead of each record, decompressed, compressed and written anew, the pages that have changed are written, in one place for many
records. A record takes up to a share of its size in late pages, and few runs; with more it is read, and stored anew without any.

Invariants: what lies in a record's blocks is not read and not changed, its item gets more runs and checksums that go on from
what they were; a record that has become another one while its pages were written does not get them, and they stay loose, or
what has taken their place. The blocks come out of what the loose pages were promised, so there is room to store the record anew
instead at any time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from razortools.engine.loose import has_late_pages
from razortools.errors import CorruptImage, OutOfSpace
from razortools.format.data import RUN_BYTES, DataRecord, Run, with_late_pages
from razortools.format.keys import record_key
from razortools.format.late_pages import LATE_PAGE_BYTES

if TYPE_CHECKING:
    from razortools.engine.loose import LooseRecord
    from razortools.engine.records import Place
    from razortools.engine.volume import Volume

PAGES_MAX = 16  # of one record: its item stays small
FURTHER_RUNS_MAX = 4


@dataclass(frozen=True, slots=True)
class PlacedPages:
    """The loose pages of one record as they are, with the blocks that they will take behind it; *before*: its item's value."""

    place: "Place"
    known: "LooseRecord"
    pages: Sequence[tuple[int, bytes]]
    before: bytes
    record: DataRecord
    runs: list[Run]
    padded: bytes


def place_pages(
    volume: "Volume", items: Iterable[tuple["Place", DataRecord]]
) -> tuple[list[PlacedPages], list[tuple["Place", DataRecord]]]:
    """Return (records whose loose pages have blocks behind them now, the rest of *items*: they must be stored anew)."""
    taking: list[tuple[Place, DataRecord, LooseRecord]] = []
    others: list[tuple[Place, DataRecord]] = []
    for place, item in sorted(items, key=_by_place):
        known = volume.records.loose.find(*place)
        if known is None:
            continue
        if _takes(volume, known, item):
            taking.append((place, item, known))
        else:
            others.append((place, item))
    if not taking:
        return [], others
    try:
        runs = volume.store.place_each([len(known.pages) * LATE_PAGE_BYTES // volume.block_bytes for _, _, known in taking])
    except OutOfSpace:
        return [], [*others, *((place, item) for place, item, _ in taking)]
    placed: list[PlacedPages] = []
    for (place, item, known), of_it in zip(taking, runs, strict=True):
        found = _placed(volume, place, known, item, of_it)
        if found is None:
            others.append((place, item))
        else:
            placed.append(found)
    return placed, others


def give_back(volume: "Volume", placed: Iterable[PlacedPages]) -> None:
    """Free the blocks of pages that will not be entered; those that are still loose are promised them again."""
    for one in placed:
        volume.store.unplace(one.runs)
        if volume.records.loose.find(*one.place) is one.known:
            volume.records.loose.claim(one.known)


def is_current(volume: "Volume", placed: PlacedPages) -> bool:
    """Tell whether the record is still the one that the pages were written for."""
    if volume.records.loose.find(*placed.place) is not placed.known:
        return False
    return volume.store.get(record_key(*placed.place)) == placed.before


def _by_place(item: tuple["Place", DataRecord]) -> "Place":
    return item[0]


def _takes(volume: "Volume", known: "LooseRecord", item: DataRecord) -> bool:
    """Whether a record takes its loose pages behind it."""
    if not has_late_pages(volume):
        return False
    try:
        late = item.late_pages
        further_runs = len(item.further_runs) // RUN_BYTES
    except CorruptImage:
        return False
    count = len(known.pages) + (late.page_count if late is not None else 0)
    if further_runs >= FURTHER_RUNS_MAX:
        return False
    return count <= PAGES_MAX and count * LATE_PAGE_BYTES * volume.limits.late_share <= item.raw_bytes


def _placed(volume: "Volume", place: "Place", known: "LooseRecord", item: DataRecord, runs: list[Run]) -> PlacedPages | None:
    """Return the pages of a record as they are to lie in *runs*; None, with these given back: that is too many pieces."""
    if len(item.further_runs) // RUN_BYTES + len(runs) > FURTHER_RUNS_MAX:
        volume.store.unplace(runs)
        return None
    pages = sorted(known.pages.items())
    record, written = with_late_pages(item, runs, pages, volume.store.generation, volume.block_bytes)
    volume.records.loose.give_up_claim(known, sum(count for _, count in runs))
    return PlacedPages(place, known, pages, item.encode(), record, runs, written)
