"""A row of all kinds of requests in turns, from several programs at once: what an editor, a mail server or a build do to a tree.

Each program saves files as careful programs do (write beside, sync now and then, rename), looks at earlier ones, lists its
directory, and removes what is old. Which file is next follows from the seed, so every peer gets the same requests.
"""

import os
import random
from collections.abc import Iterator

from bench.mounts.contents import PAGE_BYTES, SEED, pages
from bench.mounts.place import Place, content, expect, write_file
from bench.mounts.small_files import together

REQUESTS_EACH = 6  # of one turn: create, write, rename, stat, open, read
SYNC_EVERY, LIST_EVERY, KEPT = 25, 20, 40  # turns; files a program keeps


def work_together(place: Place) -> Iterator[int]:
    """Let 4 programs work at once, each in a directory of its own. Counts the requests of the turns."""
    place.empty("mixed")
    turns = max(1, place.sizes.files // place.sizes.clients // 2)
    contents = pages(turns)
    homes = [place.path(f"mixed/{number}") for number in range(place.sizes.clients)]
    for home in homes:
        os.makedirs(home)
    yield from together(place, homes, lambda home: _program(home, contents), turns * REQUESTS_EACH * len(homes))
    for home in homes:
        names = sorted(os.listdir(home))
        left = range(max(0, turns - KEPT), turns)
        expect(names, [b"saved%05d" % number for number in left], "files left by one program")
        for number in left:
            expect(content(b"%s/saved%05d" % (home, number), PAGE_BYTES), contents[number], "contents of a saved file")


def _program(home: bytes, contents: list[bytes]) -> None:
    """Do the turns of one program. Raises WrongResult, OSError."""
    source, beside = random.Random(SEED), home + b"/.unsaved"
    for number, data in enumerate(contents):
        write_file(beside, data)
        if number % SYNC_EVERY == 0:
            _sync(beside)
        os.rename(beside, b"%s/saved%05d" % (home, number))
        earlier = source.randint(max(0, number - KEPT + 1), number)
        path = b"%s/saved%05d" % (home, earlier)
        expect(os.stat(path).st_size, PAGE_BYTES, "size of a saved file")
        expect(content(path, PAGE_BYTES), contents[earlier], "contents of a saved file")
        if number % LIST_EVERY == 0:
            expect(len(os.listdir(home)), min(number + 1, KEPT + 1), "files listed")
        if number >= KEPT:
            os.unlink(b"%s/saved%05d" % (home, number - KEPT))


def _sync(path: bytes) -> None:
    """Have a file stored."""
    descriptor = os.open(path, os.O_WRONLY)
    os.fsync(descriptor)
    os.close(descriptor)
