"""Rows about one big file, read and written in pieces as cp and cat do."""

import os
import random
from collections.abc import Iterator

from bench.mounts.contents import PAGE_BYTES, PIECE_BYTES, SEED, WRITE_BYTES, big, pages
from bench.mounts.place import PAGES, START, Place, Row, WrongResult, expect


def write_big(kind: str) -> Row:
    """Return the row that writes a big file from start to end and syncs it."""

    def row(place: Place) -> Iterator[int]:
        data, path = big(kind, place.sizes.big_bytes), place.empty(kind)
        view = memoryview(data)
        pieces = [view[offset : offset + WRITE_BYTES] for offset in range(0, len(data), WRITE_BYTES)]
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


def read_warm(place: Place) -> Iterator[int]:
    """Read the big file of text right after it was read once."""
    path, data = place.big_file("text")
    found = bytearray(len(data))
    views = [memoryview(found)[offset : offset + PIECE_BYTES] for offset in range(0, len(data), PIECE_BYTES)]
    descriptor = os.open(path, os.O_RDONLY)
    for view in views:
        os.readv(descriptor, [view])
    found[:] = bytes(len(data))
    os.lseek(descriptor, 0, os.SEEK_SET)
    place.settle()
    yield START
    for view in views:
        os.readv(descriptor, [view])
    yield len(data)
    os.close(descriptor)
    if found != data:
        raise WrongResult("contents of the big file of text differ")


def random_places(place: Place) -> list[int]:
    """Return so many places of pages in a big file, in bytes."""
    source = random.Random(SEED)
    return [source.randrange(place.sizes.big_bytes // PAGE_BYTES) * PAGE_BYTES for _ in range(place.sizes.random_reads)]


def read_random_cold(place: Place) -> Iterator[int]:
    """Read 4 KiB at random places of the big file of text, after the kernel has forgotten everything."""
    place.big_file("text")
    place.cold(PAGES)
    yield from _read_random(place)


def read_random_hot(place: Place) -> Iterator[int]:
    """The same right after the whole file was read."""
    path, _ = place.big_file("text")
    with open(path, "rb") as file:
        while file.read(PIECE_BYTES):
            pass
    place.settle()
    yield from _read_random(place)


def _read_random(place: Place) -> Iterator[int]:
    path, data = place.big_file("text")
    places = random_places(place)
    yield START
    descriptor = os.open(path, os.O_RDONLY)
    found = [os.pread(descriptor, PAGE_BYTES, offset) for offset in places]
    os.close(descriptor)
    yield len(found)
    for offset, here in zip(places, found, strict=True):
        expect(here, data[offset : offset + PAGE_BYTES], f"4 KiB at {offset}")


def write_random(place: Place) -> Iterator[int]:
    """Write 4 KiB at random places of a big file of text, and sync it once at the end."""
    old = big("text", place.sizes.big_bytes)
    path = place.empty("overwritten")
    with open(path, "wb") as file:
        file.write(old)
    places = random_places(place)
    contents = pages(len(places))
    place.settle()
    yield START
    descriptor = os.open(path, os.O_WRONLY)
    for offset, data in zip(places, contents, strict=True):
        os.pwrite(descriptor, data, offset)
    os.fsync(descriptor)
    os.close(descriptor)
    yield len(places)
    wanted = bytearray(old)
    for offset, data in zip(places, contents, strict=True):
        wanted[offset : offset + PAGE_BYTES] = data
    with open(path, "rb") as file:
        if file.read() != wanted:
            raise WrongResult("contents of the overwritten file differ")
    os.unlink(path)
