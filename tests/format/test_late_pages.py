"""Late pages, as laws: whatever is written behind a record, in whatever steps, it holds what it should, and its sums agree."""

import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.format.compression import Algorithm, pack
from razortools.format.data import DataRecord, Run, blocks_crc32, changed_runs, late_part, make_record, with_late_pages
from razortools.format.late_pages import LATE_PAGE_BYTES
from razortools.format.unpacking import unpack_record
from razortools.units import BlockNo

STEPS = st.lists(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255)), min_size=1, max_size=3), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    steps=STEPS, algorithm=st.sampled_from([Algorithm.NONE, Algorithm.ZSTD, Algorithm.LZ4, Algorithm.ZLIB]),
    block_bytes=st.sampled_from([1024, 2048, 4096]), twice=st.booleans(), tail=st.integers(0, 5000),
)  # fmt: skip
def test_a_record_holds_its_late_pages_over_what_it_held(
    steps: list[list[tuple[int, int]]], algorithm: Algorithm, block_bytes: int, twice: bool, tail: int
) -> None:
    raw = bytearray((b"what it held before; " * 3000)[: 8 * LATE_PAGE_BYTES + tail])
    stored = pack(bytes(raw), algorithm)
    runs: list[Run] = [(BlockNo(100), -(-len(stored) // block_bytes))]
    record, blocks = make_record(runs, stored, len(raw), algorithm, 7, block_bytes, twice=twice)
    places: list[int] = []
    for number, step in enumerate(steps):
        pages = [(place * LATE_PAGE_BYTES, bytes([filling]) * LATE_PAGE_BYTES) for place, filling in step]
        count = len(pages) * LATE_PAGE_BYTES // block_bytes
        more: list[Run] = [(BlockNo(1000 * (number + 1)), 1), (BlockNo(1000 * (number + 1) + 500), count - 1)][: min(count, 2)]
        before = record
        record, written = with_late_pages(before, more, pages, 8 + number, block_bytes)
        blocks += written
        places += [place for place, _ in step]
        for at, page in pages:
            raw[at : at + LATE_PAGE_BYTES] = page
        assert record.birth == 8 + number
        assert changed_runs(before, record, block_bytes) == ([], more)
        assert changed_runs(record, before, block_bytes) == (more, [])
        assert late_part(before, record, block_bytes) == (more, before.crc32c)
        assert late_part(record, before, block_bytes) is late_part(None, record, block_bytes) is None
        elsewhere = record.moved_to(BlockNo(5))
        assert late_part(before, elsewhere, block_bytes) is late_part(elsewhere, record, block_bytes) is None
        record = DataRecord.decode(record.encode())
        late = record.late_pages
        assert late is not None and list(late.places) == places and late.base_bytes == len(stored)
        assert unpack_record(record, blocks) == raw
        assert record.crc32c == crc32c.crc32c(blocks) and record.second_checksum == (blocks_crc32(blocks) if twice else None)
        assert sum(count for _, count in record.runs(block_bytes)) * block_bytes == len(blocks)
        moved = record.moved_to(BlockNo(5))
        assert moved.runs(block_bytes) == [(5, len(blocks) // block_bytes)] and moved.late_pages == late
        assert moved.placed(record.runs(block_bytes)) == record
        assert record.checked_by(None).checked_by(record.second_checksum) == record
