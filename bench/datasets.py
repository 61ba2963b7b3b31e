"""What people keep in a filesystem, by kind: source code, logs, a database dump, programs, and a mixture with JPEG and ZIP.

Everything but the programs follows from a fixed seed and from Python's own library, so it is the same wherever that is. Programs
are the host's own shared libraries. There are no pictures on every machine: in their place stand bytes that begin as a JPEG does
and cannot be compressed, which is what the compressor sees of one.
"""

import random
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from itertools import count
from pathlib import Path

from bench.material import sources
from razortools.units import KIB, MIB

SEED = 7
LOG_FILES = 8
FILE_BYTES = 4 * MIB  # of a log
DUMP_BYTES = 32 * MIB
PROGRAM_BYTES = 32 * MIB
PICTURES, PICTURE_BYTES = 32, 256 * KIB
JPEG_HEAD = bytes.fromhex("ffd8ffe000104a46494600010100000100010000")
PATHS = ("/", "/index.html", "/api/v1/orders", "/api/v1/customers", "/static/app.js", "/static/app.css", "/login", "/search")
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "curl/8.5.0",
)
SYLLABLES = ("ka", "lo", "mi", "ren", "sto", "va", "dor", "el", "ni", "tha", "bru", "se")

Files = Iterator[tuple[str, bytes]]


def source_code() -> Files:
    """Yield Python's library: thousands of small files."""
    yield from sources()


def logs() -> Files:
    """Yield the access logs of a web server."""
    source = random.Random(SEED)
    second = count(1_700_000_000)
    for number in range(LOG_FILES):
        yield f"access.log.{number}", _filled(FILE_BYTES, lambda: _log_line(source, next(second)))


def _log_line(source: random.Random, second: int) -> str:
    """Return a line as a web server writes it."""
    address = ".".join(str(source.randrange(1, 255)) for _ in range(4))
    path = f"{source.choice(PATHS)}?id={source.randrange(100_000)}" if source.random() < 0.5 else source.choice(PATHS)
    status = source.choice((200, 200, 200, 200, 304, 404, 500))
    agent = source.choice(AGENTS)
    return f'{address} - - [{second}] "GET {path} HTTP/1.1" {status} {source.randrange(90_000)} "-" "{agent}"\n'


def database_dump() -> Files:
    """Yield a dump of a table of customers in SQL."""
    source = random.Random(SEED)
    row = count(1)
    yield "customers.sql", _filled(DUMP_BYTES, lambda: _sql_line(source, next(row)))


def _sql_line(source: random.Random, row: int) -> str:
    """Return one row of the table."""
    first, last = ("".join(source.choices(SYLLABLES, k=2)).capitalize() for _ in range(2))
    day = f"20{source.randrange(10, 26)}-{source.randrange(1, 13):02}-{source.randrange(1, 29):02}"
    balance = source.randrange(10_000_000) / 100
    mail = f"{first}.{last}{source.randrange(1000)}@example.org".lower()
    return f"INSERT INTO customers VALUES ({row},'{first}','{last}','{mail}','{day}',{balance:.2f});\n"


def programs() -> Files:
    """Yield shared libraries of this machine, 32 MiB at most."""
    total = 0
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    for path in sorted({*folder.rglob("*.so*"), *Path("/usr/lib").glob("*/*.so*")}):
        if path.is_symlink() or not path.is_file() or total >= PROGRAM_BYTES:
            continue
        data = path.read_bytes()[: PROGRAM_BYTES - total]
        total += len(data)
        yield path.name, data


def mixture() -> Files:
    """Yield source code, zip archives of it, and pictures: what a home directory holds."""
    source = random.Random(SEED)
    library = sources()
    half = library[: len(library) // 2]
    yield from ((f"sources/{path}", data) for path, data in half)
    for number in range(4):
        yield f"archives/{number}.zip", _zipped(half[number::4])
    for number in range(PICTURES):
        yield f"pictures/{number}.jpg", JPEG_HEAD + source.randbytes(PICTURE_BYTES)


def _zipped(files: tuple[tuple[str, bytes], ...]) -> bytes:
    """Return a zip archive."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files:
            archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _filled(size_bytes: int, line: Callable[[], str]) -> bytes:
    """Return so many bytes of lines."""
    parts: list[bytes] = []
    total = 0
    while total < size_bytes:
        parts.append(line().encode())
        total += len(parts[-1])
    return b"".join(parts)[:size_bytes]


DATASETS: dict[str, Callable[[], Files]] = {
    "source code": source_code,
    "logs": logs,
    "a database dump": database_dump,
    "programs": programs,
    "a mixture with JPEG and ZIP": mixture,
}


@cache
def dataset(name: str) -> tuple[tuple[str, bytes], ...]:
    """Return the files of a data set by path."""
    return tuple(DATASETS[name]())
