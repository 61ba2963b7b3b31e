"""The measurements behind the design: what the building blocks cost on this machine.

Run it as `python -m bench.decisions`. It prints one row a question; docs/ARCHITECTURE.md quotes a run. Each figure is the best
of five rounds, because these are costs of code, not of a machine's mood.
"""

import hashlib
import lzma
import math
import os
import random
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import crc32c
import trio
import zstandard

from bench.datasets import dataset
from razortools.engine import adaptive, attributes, files, namespace
from razortools.engine.attributes import AttributeChange
from razortools.engine.create import ALL_FEATURES, Features, create, plan_create
from razortools.engine.limits import Limits
from razortools.engine.store.device import create_image, open_image
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.errors import CorruptImage
from razortools.format.compression import USUAL_LEVEL, Algorithm, Policy, pack, unpack
from razortools.format.data import blocks_crc32
from razortools.format.inode import ROOT_INODE, Inode
from razortools.format.keys import inode_key
from razortools.format.node import NodeHeader, decode_items, encode_node
from razortools.format.superblock import Incompat
from razortools.units import GIB, KIB, MIB, divide_up

ROUNDS = 5
INLINE_BYTES_MAX = 2000
DICTIONARY_BYTES = 64 * KIB
CHANGED_FILES, CHANGED_LEAVES = 60_000, 1000  # in these is one file changed each before a checkpoint
RESTING_RECORDS = 600  # of each data set: 75 MiB at the most
DICTIONARY_SAMPLE_BYTES = 64 * KIB  # of each record


def best_us(work: Callable[[], object], times: int) -> float:
    """Return microseconds for one call of *work*, best of ROUNDS rounds of *times* calls."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(times):
            work()
        rounds.append(time.perf_counter() - started)
    return min(rounds) / times * 1e6


def codecs() -> Iterator[tuple[str, str]]:
    """Yield what decoding a record costs, by construct and by the derived codec."""
    inode = Inode(*range(18))
    raw = inode.encode()
    yield "parse an inode with construct", f"{best_us(lambda: Inode.LAYOUT.parse(raw), 2000):.1f} us"
    yield "decode an inode with the derived codec", f"{best_us(lambda: Inode.decode(raw), 20000):.2f} us"
    yield "encode an inode with the derived codec", f"{best_us(inode.encode, 20000):.2f} us"


def nodes() -> Iterator[tuple[str, str]]:
    """Yield what packing and unpacking a full leaf costs."""
    keys = [inode_key(number) for number in range(130)]  # type: ignore[arg-type]
    values = [bytes(88)] * len(keys)
    header = NodeHeader(1, 2, 3, 4, len(keys), 0, 0, 88 * len(keys), keys[0], keys[-1])
    raw, _ = encode_node(header, keys, values, 16 * KIB)
    yield "CRC32C of a node of 16 KiB", f"{best_us(lambda: crc32c.crc32c(raw), 5000):.2f} us"
    yield "encode a leaf of 130 inodes", f"{best_us(lambda: encode_node(header, keys, values, 16 * KIB), 2000):.1f} us"
    yield "unpack a leaf of 130 inodes", f"{best_us(lambda: decode_items(raw, header), 2000):.1f} us"
    hashed = best_us(lambda: hashlib.blake2b(b"hello.py", digest_size=8, key=raw[:16]).digest(), 20000)
    yield "keyed hash of a name (BLAKE2b)", f"{hashed:.2f} us"


def volume() -> Volume:
    """Return a fresh volume in memory."""
    device = MemoryDevice(1 * GIB)
    create(device, plan_create(device.size_bytes))
    return open_volume(device)


def operations() -> Iterator[tuple[str, str]]:
    """Yield the engine's share of the usual requests, without any transport."""
    count = 5000
    opened = volume()
    names = [b"file%d" % number for number in range(count)]

    def timed(work: Callable[[bytes], object]) -> str:
        started = time.perf_counter()
        for name in names:
            work(name)
        return f"{(time.perf_counter() - started) / count * 1e6:.1f} us"

    yield "create", timed(lambda name: namespace.create(opened, ROOT_INODE, name, 0o644, 0, 0))
    data = os.urandom(4 * KIB)
    inodes = {name: namespace.lookup(opened, ROOT_INODE, name) for name in names}
    yield "write 4 KiB", timed(lambda name: files.write(opened, inodes[name], 0, data))
    opened.checkpoint()
    yield "lookup", timed(lambda name: namespace.lookup(opened, ROOT_INODE, name))
    yield "getattr", timed(lambda name: opened.inodes.get(inodes[name]))
    yield "read 4 KiB, cached", timed(lambda name: files.read(opened, inodes[name], 0, 4 * KIB))
    yield "rename", timed(lambda name: namespace.rename(opened, ROOT_INODE, name, ROOT_INODE, b"new" + name))
    yield "unlink", timed(lambda name: namespace.unlink(opened, ROOT_INODE, b"new" + name))


def checkpoints() -> Iterator[tuple[str, str]]:
    """Yield what a checkpoint takes after changes all over a tree: what waits for it, and what is done between requests."""
    opened = volume()
    folder = namespace.mkdir(opened, ROOT_INODE, b"folder", 0o755, 0, 0)
    inodes = [namespace.create(opened, folder, b"file%d" % number, 0o644, 0, 0) for number in range(CHANGED_FILES)]
    best_ms, count = dict.fromkeys(("begin it", "encode them, between requests"), math.inf), 0
    for number in range(ROUNDS):
        opened.checkpoint()
        for ino in inodes[:: len(inodes) // CHANGED_LEAVES]:
            attributes.setattr(opened, ino, AttributeChange(mode=0o600 + number))
        opened.commit()
        count = opened.store.tree.dirty_count
        started = time.thread_time()
        flight = opened.begin_checkpoint()
        begun = time.thread_time()
        assert flight is not None
        flight.prepare()
        for what, took_s in zip(best_ms, (begun - started, time.thread_time() - begun), strict=True):
            best_ms[what] = min(best_ms[what], 1000 * took_s)
        opened.settle()
    for what, ms in best_ms.items():
        yield f"a checkpoint of {count:,} nodes: {what}", f"{ms:.1f} ms"


def sources() -> bytes:
    """Return a few MiB of Python sources: the text that the ratio is measured on."""
    library = Path(sysconfig.get_paths()["stdlib"])
    return b"".join(path.read_bytes() for path in sorted(library.glob("*.py")))[: 8 * MIB]


def compression() -> Iterator[tuple[str, str]]:
    """Yield ratio and speed of the algorithms, in records and in blocks."""
    text = sources()
    for algorithm, level in ((Algorithm.ZSTD, 1), (Algorithm.ZSTD, 3), (Algorithm.LZ4, 0), (Algorithm.ZLIB, 6)):
        for size in (128 * KIB, 4 * KIB):
            pieces = [text[at : at + size] for at in range(0, len(text), size)]
            started = time.perf_counter()
            stored = [pack(piece, algorithm, level) for piece in pieces]
            packed_s = time.perf_counter() - started
            started = time.perf_counter()
            for piece, small in zip(pieces, stored, strict=True):
                unpack(small, algorithm, len(piece))
            unpacked_s = time.perf_counter() - started
            blocks = sum(-(-min(len(small), len(piece)) // 4096) * 4096 for small, piece in zip(stored, pieces, strict=True))
            yield (
                f"{algorithm.name.lower()}:{level} on sources, {size // KIB} KiB at a time",
                f"{len(text) / blocks:.2f}:1 in blocks of 4 KiB, {len(text) / packed_s / MIB:.0f} MiB/s in, "
                f"{len(text) / unpacked_s / MIB:.0f} MiB/s out",
            )
    best = len(text) / len(lzma.compress(text, preset=6))
    yield "xz of the whole, for comparison", f"{best:.2f}:1"


def small_files() -> Iterator[tuple[str, str]]:
    """Yield what trying harder where a block is near saves and costs, for sources of Python as they are."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [text for path in sorted(library.rglob("*.py"))[:1700] if (text := path.read_bytes())]
    records = list(_records(texts))
    raw_bytes, usual = sum(map(len, texts)), (adaptive.NEAR_BLOCKS_MAX, USUAL_LEVEL[Algorithm.ZSTD])
    for what, blocks_max, level in (("zstd 1", 0, 1), ("zstd 1, and 6 where a block is near", usual[0], 1), ("zstd 6", 0, 6)):
        adaptive.NEAR_BLOCKS_MAX, USUAL_LEVEL[Algorithm.ZSTD] = blocks_max, level
        took_us = best_us(partial(adaptive.pack_all, records), 1) / len(texts)
        packed = adaptive.pack_all(records)
        stored = sum(_room_bytes(len(one.stored), is_inline=one.is_inline) for one in packed)
        yield f"sources in files: {what}", f"{raw_bytes / stored:.2f}:1 in blocks, {took_us:.0f} us a file"
    adaptive.NEAR_BLOCKS_MAX, USUAL_LEVEL[Algorithm.ZSTD] = usual
    yield from dictionaries([one.raw for one in records], sum(map(len, texts)))
    yield from shared_records(texts)


def _records(texts: Iterable[bytes]) -> Iterator[adaptive.Unpacked]:
    """Yield the records of files with these contents, as a flush meets them."""
    for text in texts:
        limit = INLINE_BYTES_MAX if len(text) <= 128 * KIB else 0
        for at in range(0, len(text), 128 * KIB):
            yield adaptive.Unpacked(text[at : at + 128 * KIB], Policy(), at == 0, limit, 4 * KIB)


def _room_bytes(stored_bytes: int, *, is_inline: bool) -> int:
    """Return what stored bytes take: themselves in the tree, else whole blocks."""
    return stored_bytes if is_inline else divide_up(stored_bytes, 4 * KIB) * 4 * KIB


def dictionaries(records: list[bytes], raw_bytes: int) -> Iterator[tuple[str, str]]:
    """Yield what a dictionary that was trained on some of the *records* saves for all of them."""
    some = random.Random(1).sample(records, len(records) // 3)
    sample: list[bytes | bytearray | memoryview] = [raw[:DICTIONARY_SAMPLE_BYTES] for raw in some]
    trained = zstandard.train_dictionary(DICTIONARY_BYTES, sample)
    for level in (1, 6):
        for what, dictionary in (("no dictionary", None), (f"one of {DICTIONARY_BYTES // KIB} KiB", trained)):
            compress = zstandard.ZstdCompressor(level=level, dict_data=dictionary).compress
            sizes = [len(compress(raw)) for raw in records]
            stored = sum(_room_bytes(size, is_inline=size <= INLINE_BYTES_MAX) for size in sizes)
            ratio = f"{raw_bytes / sum(sizes):.2f}:1 in bytes, {raw_bytes / stored:.2f}:1 in blocks"
            yield f"sources in files: zstd {level}, {what}", ratio


def shared_records(texts: list[bytes]) -> Iterator[tuple[str, str]]:
    """Yield what it would save to store small files together, as many as fit into a record, and what reading one would cost."""
    for limit in (32 * KIB, 64 * KIB, 128 * KIB):
        small = [text for text in texts if len(text) <= limit]
        groups = [b"".join(group) for group in _groups(small, limit)]
        others = list(_records(text for text in texts if len(text) > limit))
        packed = [pack(group, Algorithm.ZSTD) for group in groups]
        stored = sum(_room_bytes(len(data), is_inline=False) for data in packed)
        stored += sum(_room_bytes(len(one.stored), is_inline=one.is_inline) for one in adaptive.pack_all(others))
        took_us = best_us(partial(_unpack_each, packed, list(map(len, groups))), 1) / len(groups)
        ratio = f"{sum(map(len, texts)) / stored:.2f}:1 in blocks, {took_us:.0f} us to read one"
        yield f"sources in files: zstd 1, records of {limit // KIB} KiB for many", ratio


def _unpack_each(packed: list[bytes], sizes: list[int]) -> None:
    for data, size in zip(packed, sizes, strict=True):
        unpack(data, Algorithm.ZSTD, size)


def _groups(texts: Iterable[bytes], limit: int) -> Iterator[list[bytes]]:
    """Yield the texts in their order, as many at a time as have *limit* bytes together."""
    group: list[bytes] = []
    size = 0
    for text in texts:
        if group and size + len(text) > limit:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    yield group


def resting() -> Iterator[tuple[str, str]]:
    """Yield what trying harder saves and costs for data that have rested, of each kind of text."""
    for name in ("source code", "logs", "a database dump"):
        records = list(islice(_records(raw for _, raw in dataset(name)), RESTING_RECORDS))
        total = sum(len(record.raw) for record in records)
        for policy in (Policy(), *(Policy(Algorithm.ZSTD, level) for level in (9, 12, 15, 19))):
            started = time.process_time()
            packed = adaptive.pack_all([replace(record, policy=policy) for record in records])
            each_ms = 1000 * (time.process_time() - started) / total * 128 * KIB
            stored = sum(_room_bytes(len(one.stored), is_inline=one.is_inline) for one in packed)
            yield f"{name} at rest: {policy}", f"{total / stored:.2f}:1 in blocks, {each_ms:.1f} ms for 128 KiB"


def glances() -> Iterator[tuple[str, str]]:
    """Yield what it takes to see noise at a glance, what it saves, and the blocks that it costs."""
    noise, text = os.urandom(128 * KIB), sources()[: 128 * KIB]
    for name, raw in (("sources", text), ("noise", noise)):
        yield f"a glance at 128 KiB of {name}", f"{best_us(partial(adaptive.looks_random, raw), 1000):.1f} us"
    glance = adaptive.looks_random
    for name in ("noise", "programs", "a mixture with JPEG and ZIP"):
        raws = [noise] * 64 if name == "noise" else (raw for _, raw in dataset(name))
        records = list(_records(raws))
        for what, looks_random in (("", glance), (", without glances", _never)):
            adaptive.looks_random = looks_random
            packed = adaptive.pack_all(records)
            took_us = best_us(partial(adaptive.pack_all, records), 1) / len(records)
            blocks = sum(0 if one.is_inline else divide_up(len(one.stored), 4 * KIB) for one in packed)
            yield f"{name}{what}", f"{blocks:,} blocks, {took_us:.0f} us a record"
    adaptive.looks_random = glance


def _never(raw: bytes) -> bool:
    return False


def checksums() -> Iterator[tuple[str, str]]:
    """Yield what the second checksum costs, and what decompressing would prove in its place."""
    raw = os.urandom(128 * KIB)
    ways: dict[str, Callable[[bytes], int]] = {
        "CRC32C": crc32c.crc32c,
        "second checksum": blocks_crc32,
        "CRC-32 by the system's zlib": zlib.crc32,
    }
    for name, checksum in ways.items():
        yield f"{name} of 128 KiB", f"{best_us(partial(checksum, raw), 20):.1f} us"
    with_it, without = writing_us()
    yield "write 128 KiB of random bytes, one checksum", f"{without:.0f} us of processor time"
    yield "write 128 KiB of random bytes, two checksums", f"{with_it:.0f} us ({100 * (with_it / without - 1):+.1f} %)"
    chance, text = random.Random(5), sources()
    for algorithm in (Algorithm.ZSTD, Algorithm.LZ4, Algorithm.ZLIB):
        good = 0
        for number in range(1000):
            start = number % 32 * 128 * KIB
            stored = bytearray(pack(text[start : start + 128 * KIB], algorithm))
            for bit in chance.sample(range(8 * len(stored)), 2):
                stored[bit >> 3] ^= 1 << (bit & 7)
            with suppress(CorruptImage):
                good += bool(unpack(bytes(stored), algorithm, 128 * KIB))
        yield f"{algorithm.name.lower()}: 128 KiB with two wrong bits decompress", f"{good / 10:.0f} %"


def writing_us() -> tuple[float, float]:
    """Return processor time of writing and committing 128 KiB of random bytes, (with, without) a second checksum, in turns."""
    pieces = [os.urandom(128 * KIB) for _ in range(16)]
    best = dict.fromkeys((ALL_FEATURES, ALL_FEATURES & ~Incompat.SECOND_CHECKSUM), float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        volumes = {}
        for features in best:
            with create_image(Path(folder) / f"{features}.img", GIB // 4) as device:
                create(device, plan_create(device.size_bytes, features=Features(features)))
            volumes[features] = open_volume(open_image(Path(folder) / f"{features}.img", writable=True))
        for _ in range(20 * ROUNDS):  # short ones: some of them are not disturbed
            for features, opened in volumes.items():
                ino = namespace.create(opened, ROOT_INODE, b"noise", 0o644, 0, 0)
                started = time.process_time()
                for number in range(64):
                    files.write(opened, ino, number * 128 * KIB, pieces[number % 16])
                opened.commit()
                best[features] = min(best[features], (time.process_time() - started) / 64 * 1e6)
                namespace.unlink(opened, ROOT_INODE, b"noise")
                opened.checkpoint()
        for opened in volumes.values():
            opened.close()
    with_it, without = best.values()
    return with_it, without


def storing_us(features: Incompat) -> float:
    """Return processor time a page of committing 2,000 pages that were overwritten at random places of 128 MiB of text."""
    text = sources()[:MIB]
    pages, rounds = 2000, []
    for number in range(ROUNDS):
        device = MemoryDevice(GIB // 2)
        create(device, plan_create(device.size_bytes, features=Features(features)))
        opened = open_volume(device, limits=Limits(record_cache_bytes=16 * MIB))
        ino = namespace.create(opened, ROOT_INODE, b"text", 0o644, 0, 0)
        for place in range(128):
            files.write(opened, ino, place * MIB, text)
        opened.checkpoint()
        chance = random.Random(number)
        for _ in range(pages):
            page = chance.randrange(len(text) // (4 * KIB)) * 4 * KIB
            files.write(opened, ino, chance.randrange(128 * MIB // (4 * KIB)) * 4 * KIB, text[page : page + 4 * KIB])
        started = time.process_time()
        opened.commit()
        rounds.append(time.process_time() - started)
    return min(rounds) / pages * 1e6


def pages() -> Iterator[tuple[str, str]]:
    """Yield what it costs to store pages that were overwritten at random places."""
    yield "a page at a random place, behind its record", f"{storing_us(ALL_FEATURES):.1f} us"
    yield "the same, its record stored anew", f"{storing_us(ALL_FEATURES & ~Incompat.LATE_PAGES):.1f} us"


def waiting() -> Iterator[tuple[str, str]]:
    """Yield what it costs to leave the thread."""

    async def hops(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            await trio.to_thread.run_sync(int)
        return (time.perf_counter() - started) / times * 1e6

    async def checkpoints(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            await trio.lowlevel.checkpoint()
        return (time.perf_counter() - started) / times * 1e6

    yield "a thread hop with trio", f"{min(trio.run(hops, 500) for _ in range(ROUNDS)):.0f} us"
    yield "a checkpoint of trio", f"{min(trio.run(checkpoints, 5000) for _ in range(ROUNDS)):.1f} us"
    with tempfile.NamedTemporaryFile() as file:

        def flushed() -> None:
            os.pwrite(file.fileno(), bytes(4 * KIB), 0)
            os.fdatasync(file.fileno())

        yield "4 KiB write and fdatasync on the host", f"{best_us(flushed, 20):.0f} us"


def main() -> None:
    """Print all rows."""
    for part in (codecs, nodes, operations, checkpoints, compression, small_files, resting, glances, checksums, pages, waiting):
        for question, answer in part():
            sys.stdout.write(f"{question:<48} {answer}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
