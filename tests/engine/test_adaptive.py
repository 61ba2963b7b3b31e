"""What is compressed, and how hard."""

import base64
import io
import lzma
import random
import struct
import zipfile
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.engine import adaptive, files, filetypes
from razortools.engine.adaptive import Verdict
from razortools.format import compression
from razortools.format.compression import Algorithm, Policy, unpack
from razortools.format.compression import pack as compress
from razortools.units import KIB, divide_up
from tests.engine.data_volumes import data_records, new_file, new_volume

BLOCK = 4096
COMPRESSED_TYPES = {*filetypes.COMPRESSED_STARTS.values(), *filetypes.COMPRESSED_INSIDE.values()}
NOISE = random.Random(5).randbytes(128 * KIB)
TEXT = b"".join(b"%d bottles of beer on the wall\n" % number for number in range(5000))[: 128 * KIB]
ZEROS = bytes(128 * KIB)
POLICIES = [Policy(algorithm) for algorithm in Algorithm] + [Policy(Algorithm.ZSTD, 15), Policy(Algorithm.ZLIB, 9)]


def pack(raw: bytes, policy: Policy = Policy(), *, is_first: bool = True, inline_bytes_max: int = 0) -> adaptive.Packing:  # noqa: B008
    return adaptive.pack(raw, policy, is_first=is_first, inline_bytes_max=inline_bytes_max, block_bytes=BLOCK)


@given(
    asked=st.lists(
        st.tuples(st.sampled_from([TEXT, NOISE, ZEROS]), st.integers(1, 9000), st.sampled_from(POLICIES), st.booleans()),
        max_size=5,
    )
)
def test_records_that_are_packed_together_are_stored_as_each_would_be_alone(
    asked: list[tuple[bytes, int, Policy, bool]],
) -> None:
    records = [adaptive.Unpacked(raw[:size], policy, first, 2048 * first, BLOCK) for raw, size, policy, first in asked]
    alone = [pack(one.raw, one.policy, is_first=one.is_first, inline_bytes_max=one.inline_bytes_max) for one in records]
    assert list(adaptive.pack_all(records)) == alone


@given(
    raw=st.one_of(
        st.binary(min_size=1, max_size=6000),
        st.builds(lambda at, size: NOISE[at : at + size], st.integers(0, 1000), st.integers(1, 50_000)),
        st.builds(lambda piece, times: (piece * times)[: 128 * KIB], st.binary(min_size=1, max_size=50), st.integers(1, 5000)),
    ),
    policy=st.sampled_from(POLICIES),
    inline_bytes_max=st.sampled_from([0, 500, 2048]),
)
def test_what_is_packed_unpacks_and_never_takes_more_blocks(raw: bytes, policy: Policy, inline_bytes_max: int) -> None:
    packing = pack(raw, policy, inline_bytes_max=inline_bytes_max)
    if packing.verdict is Verdict.HOLE:
        assert raw.count(0) == len(raw)
        assert packing.stored == b""
        return
    assert unpack(packing.stored, packing.algorithm, len(raw)) == raw
    assert packing.is_inline == (len(packing.stored) <= inline_bytes_max)
    if packing.algorithm is Algorithm.NONE:
        assert packing.stored is raw
    elif not packing.is_inline:
        assert divide_up(len(packing.stored), BLOCK) < divide_up(len(raw), BLOCK)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_text_is_compressed_unless_the_policy_says_none(policy: Policy) -> None:
    packing = pack(TEXT, policy)
    assert (packing.algorithm is Algorithm.NONE) == (policy.algorithm is Algorithm.NONE)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_noise_is_stored_as_it_is(policy: Policy) -> None:
    assert pack(NOISE, policy).stored is NOISE


def zip_of(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        made.writestr("a", data)
    return out.getvalue()[: 128 * KIB]


@pytest.mark.parametrize("magic", [*filetypes.COMPRESSED_STARTS, b"\0\0\0\x20ftypisom", b"RIFF\0\0\0\0WEBPVP8 "])
def test_a_compressed_format_is_not_compressed_again(magic: bytes) -> None:
    raw = (magic + NOISE)[: 128 * KIB]
    assert pack(raw).verdict is Verdict.KNOWN_FORMAT
    assert pack(raw, is_first=False).verdict is Verdict.PROBED, "only the start of a file tells its format"


def test_real_compressed_files_are_recognised() -> None:
    varied = random.Random(1).choices(range(32, 120), k=400_000)
    for made in (lzma.compress(bytes(varied)), zlib.compress(bytes(varied), wbits=31), zip_of(NOISE)):
        assert pack(made[: 128 * KIB]).verdict is Verdict.KNOWN_FORMAT


def test_what_only_starts_like_a_compressed_format_is_compressed() -> None:
    assert pack(zip_of(TEXT)).algorithm is Algorithm.ZSTD
    assert pack(b"ID3" + TEXT[3:]).algorithm is Algorithm.ZSTD


def test_a_probe_keeps_slow_algorithms_from_trying_in_vain() -> None:
    assert pack(NOISE, Policy(Algorithm.ZLIB)).verdict is Verdict.PROBED
    assert pack(NOISE, Policy(Algorithm.ZSTD, 15)).verdict is Verdict.PROBED
    assert pack(NOISE, Policy(Algorithm.ZSTD, 3)).verdict is Verdict.NO_GAIN


@pytest.mark.parametrize("length", [1, 1023, 4095, 4096, 4097, 5000, 100_001])
def test_the_probe_takes_data_of_every_length(length: int) -> None:
    of_text, of_noise, of_text_again = adaptive.probe([TEXT[:length], NOISE[:length], TEXT[:length]])
    assert of_text == of_text_again and (of_text > 1 / 16 or length < 100)
    assert of_noise == 0


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_only_zeros_are_zeros(length: int, place: int) -> None:
    assert adaptive.is_zeros(bytes(length))
    if place < length:
        assert not adaptive.is_zeros(bytes(place) + b"x" + bytes(length - place - 1))


def near_a_block(blocks: int) -> bytes:
    """Return text of which zstd at level 1 makes a few bytes more than so many blocks."""
    syllables = [b"int main", b"return ", b"while (", b"{\n    ", b"}\n", b"razor", b"blocks", b" = "]
    words = random.Random(blocks).choices(syllables, k=99_999)
    low, high = 0, len(words)
    while low < high:
        middle = (low + high) // 2
        if len(compress(b"".join(words[:middle]), Algorithm.ZSTD)) > blocks * BLOCK:
            high = middle
        else:
            low = middle + 1
    return b"".join(words[:low])


def test_records_of_large_files_are_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that shrinks to a few blocks was compressed twice, and writing it took three times as long."""
    levels: list[int] = []
    honest = compression.pack_all

    def pack_all(raws: Sequence[bytes], algorithm: Algorithm, level: int = 0) -> list[bytes]:
        levels.append(level)
        return honest(raws, algorithm, level)

    monkeypatch.setattr(compression, "pack_all", pack_all)
    text = near_a_block(8)
    for size in range(adaptive.NEAR_RAW_MAX + 1, len(text), 100):
        pack(text[:size])
    assert set(levels) == {0}
    pack(near_a_block(2))
    assert set(levels) == {0, adaptive.NEAR_LEVEL}


def test_noise_is_seen_at_a_glance_and_not_compressed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    honest = compression.pack_all
    monkeypatch.setattr(compression, "pack_all", lambda raws, *how: asked.extend(map(len, raws)) or honest(raws, *how))
    assert pack(NOISE).verdict is Verdict.PROBED and pack(NOISE).stored is NOISE
    assert asked == [adaptive.PROBE_BYTES] * 2, "two samples, and nothing else"
    small = NOISE[: adaptive.PROBE_FROM_BYTES - 1]
    assert pack(small).verdict is Verdict.NO_GAIN and len(small) in asked, "what is small is tried in the same time"


@given(seed=st.integers(0, 1 << 32), kind=st.sampled_from(["text", "hexadecimal", "base64", "numbers", "zeros", "skewed"]))
def test_only_noise_looks_like_it(seed: int, kind: str) -> None:
    chance = random.Random(seed)
    noise = chance.randbytes(64 * KIB)
    raw = {
        "text": lambda: TEXT[chance.randrange(1000) :][: 64 * KIB],
        "hexadecimal": lambda: noise.hex().encode(),
        "base64": lambda: base64.b64encode(noise),
        "numbers": lambda: struct.pack("<16384L", *(chance.randrange(1 << 16) for _ in range(16384))),
        "zeros": lambda: bytes(64 * KIB),
        "skewed": lambda: bytes(byte & chance.choice((15, 63, 127)) for byte in noise),
    }[kind]()
    assert not adaptive.looks_random(raw)
    assert adaptive.looks_random(noise)


@pytest.mark.parametrize("kind", ["<16384d", "<65536h"], ids=["floating point", "samples of sound"])
def test_numbers_that_are_nearly_noise_are_compressed_where_that_saves_a_block(kind: str) -> None:
    """A sample of 4 KiB of them saves less than a whole record does."""
    chance = random.Random(4)
    if kind.endswith("d"):
        raw = struct.pack(kind, *(chance.gauss(0, 1) for _ in range(16384)))
    else:
        raw = struct.pack(kind, *(int(chance.gauss(0, 4000)) for _ in range(65536)))
    assert len(compress(raw, Algorithm.ZSTD)) <= len(raw) - BLOCK
    assert pack(raw).verdict is Verdict.ZSTD


def test_what_looks_like_noise_and_shrinks_is_compressed() -> None:
    """Noise at the two places that are glanced at, text between them."""
    raw, third = bytearray(TEXT[: 128 * KIB]), 128 * KIB // 3
    for at in (third, 2 * third):
        raw[at : at + adaptive.GLANCE_BYTES] = NOISE[: adaptive.GLANCE_BYTES]
    assert adaptive.looks_random(bytes(raw))
    assert pack(bytes(raw)).verdict is Verdict.ZSTD


@pytest.mark.parametrize("blocks", [1, 2])
def test_where_a_few_bytes_less_save_a_block_it_is_tried_harder(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = near_a_block(blocks)
    assert divide_up(len(pack(raw, Policy(Algorithm.ZSTD)).stored), BLOCK) == blocks + 1, "who asks for a level gets that"
    packing = pack(raw)
    assert divide_up(len(packing.stored), BLOCK) == blocks and unpack(packing.stored, packing.algorithm, len(raw)) == raw
    monkeypatch.setattr(adaptive, "NEAR_BLOCKS_MAX", blocks)
    assert pack(raw).stored == pack(raw, Policy(Algorithm.ZSTD)).stored, "of many blocks one less is no matter"


def test_what_is_nearly_small_enough_for_the_tree_is_tried_harder() -> None:
    raw = near_a_block(1)
    usual, best = (len(compress(raw, Algorithm.ZSTD, level)) for level in (0, adaptive.NEAR_LEVEL))
    assert best < usual
    assert pack(raw, inline_bytes_max=best).is_inline
    assert not pack(raw, inline_bytes_max=best - 1).is_inline


@given(sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=6), inline_bytes_max=st.sampled_from([0, 700, 2048]))
def test_trying_harder_never_takes_more(sizes: list[int], inline_bytes_max: int) -> None:
    text = near_a_block(2)
    records = [adaptive.Unpacked(text[-size:], Policy(), True, inline_bytes_max, BLOCK) for size in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive, "NEAR_BLOCKS_MAX", 0)
        plain = adaptive.pack_all(records)
    for one, other in zip(adaptive.pack_all(records), plain, strict=True):
        assert one.is_inline >= other.is_inline
        assert one.is_inline or divide_up(len(one.stored), BLOCK) <= divide_up(len(other.stored), BLOCK)
        assert one == other or one.is_inline > other.is_inline or len(one.stored) < len(other.stored)


def test_the_volume_counts_what_became_of_its_records() -> None:
    volume = new_volume()
    for data in (TEXT, NOISE, NOISE[:9000], b"\x89PNG\r\n\x1a\n" + NOISE[8:], bytes(5000)):
        files.write(volume, new_file(volume), 0, data)
    files.write(volume, new_file(volume, policy=Policy(Algorithm.LZ4)), 0, TEXT)
    files.write(volume, new_file(volume, policy=Policy(Algorithm.NONE)), 0, TEXT)
    volume.commit()
    tallies = volume.records.tallies.by_verdict
    assert {verdict: tally.record_count for verdict, tally in tallies.items()} == {
        Verdict.ZSTD: 1, Verdict.PROBED: 1, Verdict.NO_GAIN: 1, Verdict.KNOWN_FORMAT: 1, Verdict.HOLE: 1, Verdict.LZ4: 1,
        Verdict.NOT_ASKED: 1,
    }  # fmt: skip
    assert tallies[Verdict.ZSTD].raw_bytes == 128 * KIB > 3 * tallies[Verdict.ZSTD].stored_bytes
    assert tallies[Verdict.NO_GAIN].raw_bytes == tallies[Verdict.NO_GAIN].stored_bytes


def test_the_volume_counts_records_by_the_type_of_their_file() -> None:
    volume = new_volume()
    text, picture = new_file(volume), new_file(volume)
    files.write(volume, text, 0, TEXT * 3)
    files.write(volume, picture, 0, b"\x89PNG\r\n\x1a\n" + NOISE[8:] + NOISE)
    files.write(volume, new_file(volume), 0, b"\xff\xd8\xff")
    files.write(volume, new_file(volume), 0, bytes(300_000) + b"text")  # of which the first record is a hole
    volume.commit()
    by_type = volume.records.tallies.by_type
    assert {kind: (tally.record_count, tally.raw_bytes) for kind, tally in by_type.items()} == {
        "text": (3, 3 * len(TEXT)), "png": (2, 2 * len(NOISE)), "jpeg": (1, 3), "unknown": (1, by_type["unknown"].raw_bytes),
    }  # fmt: skip
    assert by_type["text"].stored_bytes * 3 < by_type["text"].raw_bytes
    files.write(volume, picture, 2 * len(NOISE), NOISE)
    volume.commit()
    assert volume.records.tallies.by_type["png"].record_count == 3


@given(start=st.binary(max_size=300))
def test_any_first_bytes_have_a_type_and_cut_text_is_text(start: bytes) -> None:
    assert filetypes.type_of(start) in filetypes.TYPES - {filetypes.UNKNOWN}
    assert filetypes.is_compressed_format(start) == (filetypes.type_of(start) in COMPRESSED_TYPES)
    for cut in range(1, 5):
        assert filetypes.type_of(("a" * 250 + "\N{SNOWMAN}" * 10).encode()[:-cut]) == filetypes.TEXT


@pytest.mark.parametrize(("magic", "kind"), [*filetypes.COMPRESSED_STARTS.items(), *filetypes.OTHER_STARTS.items()])
def test_a_type_is_told_by_its_magic(magic: bytes, kind: str) -> None:
    assert filetypes.type_of(magic + NOISE) == kind


def test_a_file_with_an_unknown_policy_is_stored_all_the_same() -> None:
    volume = new_volume()
    ino = new_file(volume)
    inode = volume.inodes.get(ino)
    inode.compression = 99
    files.write(volume, ino, 0, TEXT)
    volume.commit()
    assert data_records(volume, ino)[0].algorithm == Algorithm.ZSTD
