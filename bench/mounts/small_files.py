"""Rows about many small files and directories: one system call after the other, so the time of one request decides."""

import os
from collections.abc import Callable, Iterator

from bench.mounts.contents import PAGE_BYTES, pages
from bench.mounts.place import NAMES, PAGES, START, Place, content, expect, write_file

LOG_COUNT = 10
WARM_PASSES = 5  # what the kernel answers by itself is over in 12 ms, in which a daemon that tidies up makes all the difference


def count_entries(folders: list[bytes]) -> int:
    """Return how many entries *folders* have together."""
    return sum(len(os.listdir(folder)) for folder in folders)


def create(place: Place) -> Iterator[int]:
    """Create files of 4 KiB, in turns in 10 directories."""
    place.empty("files")
    paths, contents = place.spread("files", "file"), place.pages
    place.settle()
    yield START
    for path, data in zip(paths, contents, strict=True):
        write_file(path, data)
    yield len(paths)
    expect(count_entries(place.folders("files")), len(paths), "files created")
    expect({os.stat(path).st_size for path in paths}, {PAGE_BYTES}, "sizes")


def stat_cold(place: Place) -> Iterator[int]:
    """Stat each file by its path, after the kernel has forgotten names and inodes."""
    paths = place.files()
    place.cold(NAMES)
    yield from _stat(paths)


def stat_warm(place: Place) -> Iterator[int]:
    """The same right after it was done once, several times over."""
    paths = place.files()
    for path in paths:
        os.stat(path)
    place.settle()
    yield from _stat(paths * WARM_PASSES)


def _stat(paths: list[bytes]) -> Iterator[int]:
    yield START
    total = 0
    for path in paths:
        total += os.stat(path).st_size
    yield len(paths)
    expect(total, len(paths) * PAGE_BYTES, "sizes together")


def read_cold(place: Place) -> Iterator[int]:
    """Open, read and close each file, after the kernel has forgotten everything."""
    paths = place.files()
    place.cold(PAGES)
    yield from _read(paths, place.pages)


def read_warm(place: Place) -> Iterator[int]:
    """The same right after it was done once."""
    paths = place.files()
    for path in paths:
        content(path, PAGE_BYTES)
    place.settle()
    yield from _read(paths, place.pages)


def _read(paths: list[bytes], wanted: list[bytes]) -> Iterator[int]:
    yield START
    found = [content(path, PAGE_BYTES) for path in paths]
    yield len(paths)
    for path, here, there in zip(paths, found, wanted, strict=True):
        expect(here, there, f"contents of {os.fsdecode(path)}")


def list_long_cold(place: Place) -> Iterator[int]:
    """List each directory and stat what is in it, as ls -l does, after the kernel has forgotten names and inodes."""
    place.files()
    place.cold(NAMES)
    yield from _list_long(place)


def list_long_warm(place: Place) -> Iterator[int]:
    """The same right after it was done once, several times over."""
    place.files()
    for _ in _list_long(place):
        pass
    place.settle()
    yield from _list_long(place, WARM_PASSES)


def _list_long(place: Place, passes: int = 1) -> Iterator[int]:
    homes = place.folders("files") * passes
    yield START
    sizes = []
    for home in homes:
        with os.scandir(home) as entries:
            sizes += [entry.stat(follow_symlinks=False).st_size for entry in entries]
    yield len(sizes)
    expect(sizes, [PAGE_BYTES] * place.sizes.files * passes, "sizes listed")


def rename(place: Place) -> Iterator[int]:
    """Give each file another name in its directory."""
    pairs = list(zip(place.files(), place.spread("files", "moved"), strict=True))
    place.settle()
    yield START
    for old, new in pairs:
        os.rename(old, new)
    yield len(pairs)
    expect(count_entries(place.folders("files")), len(pairs), "files after renaming")
    expect([old for old, _ in pairs if os.path.lexists(old)], [], "old names left")
    expect(content(pairs[-1][1], PAGE_BYTES), place.pages[-1], "contents after renaming")


def unlink(place: Place) -> Iterator[int]:
    """Remove each file."""
    if not os.path.exists(place.spread("files", "moved")[0]):
        place.files()
    paths = [os.path.join(home, name) for home in place.folders("files") for name in os.listdir(home)]
    place.settle()
    yield START
    for path in paths:
        os.unlink(path)
    yield len(paths)
    expect(len(paths), place.sizes.files, "files removed")
    expect(count_entries(place.folders("files")), 0, "files left")


def mkdir(place: Place) -> Iterator[int]:
    """Make as many directories, in turns in 10 others."""
    place.empty("directories")
    paths = place.spread("directories", "directory")
    place.settle()
    yield START
    for path in paths:
        os.mkdir(path)
    yield len(paths)
    expect([path for path in paths if not os.path.isdir(path)], [], "directories not made")


def rmdir(place: Place) -> Iterator[int]:
    """Remove them again."""
    paths = place.directories()
    place.settle()
    yield START
    for path in paths:
        os.rmdir(path)
    yield len(paths)
    expect(count_entries(place.folders("directories")), 0, "directories left")


def create_together(place: Place) -> Iterator[int]:
    """Create as many files from 4 processes at once, each in a directory of its own."""
    place.empty("clients")
    each = place.sizes.files // place.sizes.clients
    contents = pages(each)
    homes = [place.path(f"clients/{number}") for number in range(place.sizes.clients)]
    for home in homes:
        os.makedirs(home)

    def client(home: bytes) -> None:
        for number, data in enumerate(contents):
            write_file(b"%s/file%05d" % (home, number), data)

    yield from together(place, homes, client, each * len(homes))
    for home in homes:
        expect(count_entries([home]), each, "files created by one client")
        expect(content(b"%s/file%05d" % (home, each - 1), PAGE_BYTES), contents[-1], "contents")


def together(place: Place, homes: list[bytes], client: Callable[[bytes], None], count: int) -> Iterator[int]:
    """Let a process for each of *homes* do client(home), all at once; they do *count* things together. A row's two yields."""
    go_reader, go_writer = os.pipe()
    done_reader, done_writer = os.pipe()

    def waiting(home: bytes) -> None:
        os.close(go_writer)
        os.read(go_reader, 1)  # returns when the parent closes its end
        client(home)

    children = [_fork(waiting, home) for home in homes]
    place.settle()
    os.close(go_reader)
    os.close(done_writer)
    yield START
    os.close(go_writer)
    os.read(done_reader, 1)  # returns when the last client has ended
    yield count
    os.close(done_reader)
    expect([os.waitpid(child, 0)[1] for child in children], [0] * len(homes), "exit codes of the clients")


def _fork(work: Callable[[bytes], None], argument: bytes) -> int:
    """Run work(argument) in a child and return its pid; the child exits with 1 if it fails."""
    child = os.fork()
    if child == 0:
        try:
            work(argument)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def sync_writes(place: Place) -> Iterator[int]:
    """Append 4 KiB to one of 10 files and fsync it."""
    place.empty("logs")
    os.mkdir(place.path("logs"))
    contents = pages(place.sizes.syncs)
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    logs = [os.open(place.path(f"logs/{number}"), flags, 0o644) for number in range(LOG_COUNT)]
    place.settle()
    yield START
    for number, data in enumerate(contents):
        os.write(logs[number % LOG_COUNT], data)
        os.fsync(logs[number % LOG_COUNT])
    yield len(contents)
    for number, log in enumerate(logs):
        os.close(log)
        wanted = b"".join(contents[number::LOG_COUNT])
        expect(content(place.path(f"logs/{number}"), len(wanted) + 1), wanted, "contents of a log")
