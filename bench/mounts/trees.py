"""Rows about a tree of sources, done by the programs that people use for it: tar, find, grep, rm."""

import os
from collections.abc import Iterator

from bench.mounts.contents import lines_with, tree
from bench.mounts.place import NAMES, PAGES, START, Place, content, expect, run

PATTERN = b"import os"


def untar(place: Place) -> Iterator[int]:
    """Unpack a tree of sources with tar."""
    target = place.empty("tree")
    os.mkdir(target)
    run(b"tar", b"-tf", place.tarball)  # so that nobody waits for the disk that the tarball is on
    place.settle()
    yield START
    run(b"tar", b"-xf", place.tarball, b"-C", target)
    wanted = tree(place.sizes.tree_files)
    yield len(wanted)
    for path, data in wanted:
        expect(content(os.path.join(target, path.encode()), len(data) + 1), data, f"contents of {path}")


def find_cold(place: Place) -> Iterator[int]:
    """Find the tree's files with find, after the kernel has forgotten names and inodes."""
    path = place.unpacked()
    place.cold(NAMES)
    yield from _find(place, path)


def find_warm(place: Place) -> Iterator[int]:
    """The same right after it was done once."""
    path = place.unpacked()
    run(b"find", path, b"-type", b"f")
    place.settle()
    yield from _find(place, path)


def _find(place: Place, path: bytes) -> Iterator[int]:
    yield START
    found = run(b"find", path, b"-type", b"f").count(b"\n")
    yield found
    expect(found, place.sizes.tree_files, "files found")


def grep_cold(place: Place) -> Iterator[int]:
    """Search the whole tree with grep -r, after the kernel has forgotten everything."""
    path = place.unpacked()
    place.cold(PAGES)
    yield from _grep(place, path)


def grep_warm(place: Place) -> Iterator[int]:
    """The same right after it was done once."""
    path = place.unpacked()
    run(b"grep", b"-rahcF", PATTERN, path)
    place.settle()
    yield from _grep(place, path)


def _grep(place: Place, path: bytes) -> Iterator[int]:
    yield START
    counts = run(b"grep", b"-rahcF", PATTERN, path).split()
    yield len(counts)
    wanted = place.sizes.tree_files, lines_with(PATTERN, place.sizes.tree_files)
    expect((len(counts), sum(map(int, counts))), wanted, "files searched and lines found")


def remove_tree(place: Place) -> Iterator[int]:
    """Remove the tree with rm -r."""
    path = place.unpacked()
    place.settle()
    yield START
    run(b"rm", b"-r", path)
    yield place.sizes.tree_files
    expect(os.path.lexists(path), False, "the tree is there")
