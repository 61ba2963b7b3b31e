"""Rows about one big file, read and written in pieces as cp and cat do."""

import os
import random
from collections.abc import Iterator

from bench.mounts.contents import PAGE_BYTES, PIECE_BYTES, SEED, big
from bench.mounts.place import PAGES, START, Place, Row, WrongResult, expect


def write_big(kind: str) -> Row:
    """Return the row that writes a big file from start to end and syncs it."""

    def row(place: Place) -> Iterator[int]:
        data, path = big(kind, place.sizes.big_bytes), place.empty(kind)
        view = memoryview(data)
        pieces = [view[offset : offset + PIECE_BYTES] for offset in range(0, len(data), PIECE_BYTES)]
        place.settle()
        yield START
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
        for piece in pieces:
            if os.write(descriptor, piece) != len(piece):
                raise WrongResult("a short write")
        os.fsync(descriptor)
        os.close(descriptor)
        yield len(data)
        expect(os.stat(path).st_size, len(data), "size")

    return row


def read_big(kind: str) -> Row:
    """Return the row that reads it, after the kernel has forgotten everything."""

    def row(place: Place) -> Iterator[int]:
        path, data = place.big_file(kind)
        found = bytearray(b"\1") * len(data)  # every page of memory is there before the clock starts
        views = [memoryview(found)[offset : offset + PIECE_BYTES] for offset in range(0, len(data), PIECE_BYTES)]
        place.cold(PAGES)
        yield START
        descriptor = os.open(path, os.O_RDONLY)
        for view in views:
            os.readv(descriptor, [view])
        os.close(descriptor)
        yield len(data)
        if found != data:
            raise WrongResult(f"contents of the big file of {kind} differ")

    return row


def read_random(place: Place) -> Iterator[int]:
    """Read 4 KiB at random places of the big file of text, after the kernel has forgotten everything."""
    path, data = place.big_file("text")
    source = random.Random(SEED)
    places = [source.randrange(len(data) // PAGE_BYTES) * PAGE_BYTES for _ in range(place.sizes.random_reads)]
    place.cold(PAGES)
    yield START
    descriptor = os.open(path, os.O_RDONLY)
    found = [os.pread(descriptor, PAGE_BYTES, offset) for offset in places]
    os.close(descriptor)
    yield len(found)
    for offset, here in zip(places, found, strict=True):
        expect(here, data[offset : offset + PAGE_BYTES], f"4 KiB at {offset}")
