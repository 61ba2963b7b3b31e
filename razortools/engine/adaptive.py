"""What to compress, and how hard: from the policy of the file and a glance at the bytes. Pure, for any thread.

The measurements behind it (one core, records of 128 KiB): zstd level 1 compresses sources 3.2:1 in 250 µs and gives up on
random bytes by itself in 20 µs, level 9 in 80 µs; level 15 takes 6 ms and zlib 3 ms to find that nothing shrinks; a probe
takes 9 µs on such bytes and 25 µs on others. So the probe stands only before what is slow, and, for AUTO (zstd level 1), where
something raises the suspicion: the first bytes of a file (PNG costs 250 µs for nothing), or a glance at two places, which takes
3 to 7 µs. With it, 2 MiB of noise are done with in 0.2 ms instead of 1.5, where zstd makes room for what it then gives up; of
programs and of a mixture with JPEG and ZIP it loses no block (bench/decisions.py). Times that are measured while running are for
the statistics alone: the same input must give the same image, whatever the machine is busy with.

Most of what a small file takes is its last block. So AUTO tries again, harder, where a few bytes less would save a block. 1,700
sources of Python shrink 2.91:1 instead of 2.75:1 in blocks by that, for 19 µs a file more; level 6 for all of them would take
97 µs more, for 3.01:1 (bench/decisions.py).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from razortools.engine.filetypes import is_compressed_format
from razortools.format import compression
from razortools.format.compression import Algorithm, Policy
from razortools.units import divide_up

PROBE_BYTES = 4096
PROBE_FROM_BYTES = 32 * 1024  # smaller data is compressed in the time that the probe takes
PROBE_LEVEL = 1
GLANCE_BYTES = 256
NOISE_FROM = 135  # different bytes among these: noise has 162 +- 5, text 30 to 60, programs up to 110
SLOW_ZSTD_LEVEL = 10  # below, zstd gives up nearly as fast as the probe
NEAR_LEVEL = 6
NEAR_SHARE = 10  # a record is near to taking a block less if a tenth of its stored bytes is too much
NEAR_BLOCKS_MAX = 8  # of more blocks one less is no matter
NEAR_RAW_MAX = 64 * 1024  # a large file is written as fast as the device takes it, and its records do not end with a block

RESTED = Policy(Algorithm.ZSTD, 15)  # what AUTO becomes for data that have rested, while nobody waits


class Verdict(Enum):
    """What became of a record, for the statistics."""

    ZSTD = "zstd"
    LZ4 = "lz4"
    ZLIB = "zlib"
    NOT_ASKED = "stored: compression is off"
    KNOWN_FORMAT = "stored: a compressed format"
    PROBED = "stored: the probe did not shrink"
    NO_GAIN = "stored: compressing saved no block"
    HOLE = "hole"


Choice = tuple[Algorithm, Verdict]  # the algorithm to try, and the verdict if the record ends up as it is

# The share of a sample that must be saved, by the verdict that the record has otherwise. A format's head always shrinks a
# little; of numbers, which are nearly noise, a whole record saves more than a sample does.
_AFTER_A_PROBE = {Verdict.KNOWN_FORMAT: 1 / 16, Verdict.PROBED: 1 / 64}
_COMPRESSED = {Algorithm.ZSTD: Verdict.ZSTD, Algorithm.LZ4: Verdict.LZ4, Algorithm.ZLIB: Verdict.ZLIB}


@dataclass(frozen=True, slots=True)
class Packing:
    """One record, ready to be stored."""

    stored: bytes
    algorithm: Algorithm
    verdict: Verdict
    is_inline: bool = False  # small enough for the tree
    took_s: float = field(default=0.0, compare=False)  # to compress it


@dataclass(frozen=True, slots=True)
class Tally:
    """How many records met one verdict, and their bytes before and after."""

    record_count: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    took_s: float = 0.0  # to compress them, by all threads together


@dataclass(frozen=True, slots=True)
class Unpacked:
    """One record, and how it should be stored.

    *is_first*: it is the start of a file, where formats show themselves. *inline_bytes_max*: 0 if it may not become inline.
    """

    raw: bytes
    policy: Policy
    is_first: bool
    inline_bytes_max: int
    block_bytes: int


def pack(raw: bytes, policy: Policy, *, is_first: bool, inline_bytes_max: int, block_bytes: int) -> Packing:
    """Return *raw* as it should be stored: a hole if it is all zeros, compressed if that saves a block or makes it fit inline."""
    return pack_all([Unpacked(raw, policy, is_first, inline_bytes_max, block_bytes)])[0]


def pack_all(records: Sequence[Unpacked]) -> tuple[Packing, ...]:
    """Return each of *records* as it should be stored. Those that are compressed alike are compressed in one go."""
    choices = _choices(records)
    alike: dict[tuple[Algorithm, int], list[int]] = {}
    for number, choice in enumerate(choices):
        if choice is not None and choice[0] is not Algorithm.NONE:
            alike.setdefault((choice[0], records[number].policy.level), []).append(number)
    stored = [record.raw for record in records]
    took_s = [0.0] * len(records)
    for (algorithm, level), numbers in alike.items():
        raws = [stored[number] for number in numbers]
        started = time.perf_counter()
        packed = compression.pack_all(raws, algorithm, level)
        each_s = (time.perf_counter() - started) / sum(map(len, raws))
        for number, raw, shrunk in zip(numbers, raws, packed, strict=True):
            stored[number], took_s[number] = shrunk, each_s * len(raw)
    _try_harder([number for number, record in enumerate(records) if _is_near(record, stored[number])], records, stored, took_s)
    return tuple(map(_packing, records, choices, stored, took_s))


def _is_near(record: Unpacked, stored: bytes) -> bool:
    """Whether a few bytes less would save a block of a record, the last of them if its contents may become inline."""
    if record.policy.algorithm is not Algorithm.AUTO or not record.inline_bytes_max < len(stored) < len(record.raw):
        return False
    if len(record.raw) > NEAR_RAW_MAX:
        return False
    blocks = divide_up(len(stored), record.block_bytes)
    wanted = (blocks - 1) * record.block_bytes or record.inline_bytes_max
    return wanted > 0 and blocks <= NEAR_BLOCKS_MAX and (len(stored) - wanted) * NEAR_SHARE <= len(stored)


def _try_harder(near: Sequence[int], records: Sequence[Unpacked], stored: list[bytes], took_s: list[float]) -> None:
    """Compress those records again that are *near*, and keep what saves a block."""
    if not near:
        return
    started = time.perf_counter()
    packed = compression.pack_all([records[number].raw for number in near], Algorithm.ZSTD, NEAR_LEVEL)
    each_s = (time.perf_counter() - started) / len(near)
    for number, shrunk in zip(near, packed, strict=True):
        record = records[number]
        took_s[number] += each_s
        fits_inline = len(shrunk) <= record.inline_bytes_max
        if fits_inline or divide_up(len(shrunk), record.block_bytes) < divide_up(len(stored[number]), record.block_bytes):
            stored[number] = shrunk


def _packing(record: Unpacked, choice: Choice | None, stored: bytes, took_s: float) -> Packing:
    """Judge what came out of compressing a record, which took *took_s*."""
    if choice is None:
        return Packing(b"", Algorithm.NONE, Verdict.HOLE)
    algorithm, reason = choice
    raw = record.raw
    if len(stored) >= len(raw):
        stored = raw
    if len(stored) <= record.inline_bytes_max:
        if stored is raw:
            return Packing(raw, Algorithm.NONE, reason, is_inline=True, took_s=took_s)
        return Packing(stored, algorithm, _COMPRESSED[algorithm], is_inline=True, took_s=took_s)
    if algorithm is Algorithm.NONE or divide_up(len(stored), record.block_bytes) >= divide_up(len(raw), record.block_bytes):
        return Packing(raw, Algorithm.NONE, reason, took_s=took_s)
    return Packing(stored, algorithm, _COMPRESSED[algorithm], took_s=took_s)


def _choices(records: Sequence[Unpacked]) -> list[Choice | None]:
    """Return what to try on each of *records*; None: it is all zeros. Those that need a probe are probed in one go."""
    choices = [None if is_zeros(record.raw) else _first_choice(record) for record in records]
    suspects = [number for number, choice in enumerate(choices) if choice is not None and choice[1] in _AFTER_A_PROBE]
    if not suspects:
        return choices
    for number, share in zip(suspects, probe([records[number].raw for number in suspects]), strict=True):
        choice = choices[number]
        assert choice is not None
        choices[number] = (choice[0], Verdict.NO_GAIN) if share >= _AFTER_A_PROBE[choice[1]] else (Algorithm.NONE, choice[1])
    return choices


def _first_choice(record: Unpacked) -> Choice:
    """Return what to try on a record; with a verdict of _AFTER_A_PROBE, if a probe shrinks."""
    raw, algorithm, level = record.raw, record.policy.algorithm, record.policy.level
    if algorithm is Algorithm.NONE:
        return Algorithm.NONE, Verdict.NOT_ASKED
    if algorithm is Algorithm.AUTO:
        # The first bytes only raise the suspicion: a zip may hold plain text, a text may start like an MP3.
        if record.is_first and is_compressed_format(raw):
            return Algorithm.ZSTD, Verdict.KNOWN_FORMAT
        is_suspect = len(raw) >= PROBE_FROM_BYTES and looks_random(raw)
        return Algorithm.ZSTD, Verdict.PROBED if is_suspect else Verdict.NO_GAIN
    is_slow = algorithm is Algorithm.ZLIB or (algorithm is Algorithm.ZSTD and level >= SLOW_ZSTD_LEVEL)
    return algorithm, Verdict.PROBED if is_slow and len(raw) >= PROBE_FROM_BYTES else Verdict.NO_GAIN


def is_zeros(raw: bytes) -> bool:
    """Tell whether all bytes are zero. Looks at both ends first: nearly all data is decided there."""
    return not raw or (raw[0] == 0 and raw[-1] == 0 and raw == bytes(len(raw)))


def looks_random(raw: bytes) -> bool:
    """Tell whether two glances at *raw* meet as many different bytes as only noise has. Nearly all other data fail the first."""
    third = len(raw) // 3
    return all(len(set(raw[at : at + GLANCE_BYTES])) >= NOISE_FROM for at in (third, 2 * third))


def probe(raws: Sequence[bytes]) -> list[float]:
    """Compress a few pieces of each of *raws*, evenly spread over it, and return which share of them that saves."""
    samples = list(map(_sample, raws))
    packed = compression.pack_all(samples, Algorithm.ZSTD, PROBE_LEVEL)
    return [max(0.0, 1 - len(shrunk) / len(sample)) for sample, shrunk in zip(samples, packed, strict=True)]


def _sample(raw: bytes) -> bytes:
    if len(raw) <= PROBE_BYTES:
        return raw
    piece = PROBE_BYTES // 4
    step = (len(raw) - piece) // 3
    return b"".join([raw[at : at + piece] for at in range(0, 3 * step + 1, step)])
