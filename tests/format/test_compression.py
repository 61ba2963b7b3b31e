"""Compression: what goes in comes out, and nothing broken comes out as data."""

import random
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from razortools.errors import CorruptImage, UsageError
from razortools.format.compression import LEVELS, Algorithm, Policy, pack, pack_all, parse_policy, unpack
from razortools.format.data import RECORD_BYTES_MAX

STORED_AS = [Algorithm.NONE, Algorithm.ZSTD, Algorithm.LZ4, Algorithm.ZLIB]
REAL = STORED_AS[1:]
TEXT = b"the quick brown fox jumps over the lazy dog\n" * 3000
NOISE = random.Random(1).randbytes(12_000)


@given(raw=st.binary(max_size=5000), times=st.integers(1, 20), algorithm=st.sampled_from(STORED_AS))
def test_what_is_packed_comes_out_again(raw: bytes, times: int, algorithm: Algorithm) -> None:
    raw *= times
    assert unpack(pack(raw, algorithm), algorithm, len(raw)) == raw


@given(cuts=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 9000), st.booleans()), max_size=6), data=st.data())
def test_what_is_packed_together_is_what_each_would_be_alone(cuts: list[tuple[int, int, bool]], data: st.DataObject) -> None:
    """The same bytes must come out, whatever else is flushed at the time; what does not shrink is given back as it is."""
    algorithm = data.draw(st.sampled_from(STORED_AS))
    level = data.draw(st.sampled_from([0, *LEVELS.get(algorithm, ())]))
    raws = [(NOISE if is_noise else TEXT)[at : at + size] for at, size, is_noise in cuts]
    for raw, stored in zip(raws, pack_all(raws, algorithm, level), strict=True):
        alone = pack(raw, algorithm, level)
        assert stored == alone or (stored is raw and len(alone) >= len(raw))


@pytest.mark.parametrize(("algorithm", "level"), [(algorithm, level) for algorithm in LEVELS for level in LEVELS[algorithm]])
def test_every_level_works(algorithm: Algorithm, level: int) -> None:
    stored = pack(TEXT, algorithm, level)
    assert len(stored) < len(TEXT) // 10
    assert unpack(stored, algorithm, len(TEXT)) == TEXT


@given(cut=st.integers(0, 1 << 16), flip=st.integers(0, 1 << 20), algorithm=st.sampled_from(REAL))
def test_broken_bytes_are_refused_or_have_the_right_length(cut: int, flip: int, algorithm: Algorithm) -> None:
    """The checksum of a record is judged before; here only no crash and no wrong length may come out."""
    stored = bytearray(pack(TEXT, algorithm))
    stored[flip % len(stored)] ^= 1 << flip % 8
    del stored[len(stored) - cut % len(stored) :]
    try:
        assert len(unpack(bytes(stored), algorithm, len(TEXT))) == len(TEXT)
    except CorruptImage:
        pass


@pytest.mark.parametrize("algorithm", STORED_AS)
@pytest.mark.parametrize("raw_bytes", [0, 1, len(TEXT) - 1, len(TEXT) + 1, 1 << 20])
def test_a_wrong_length_is_refused(algorithm: Algorithm, raw_bytes: int) -> None:
    with pytest.raises(CorruptImage):
        unpack(pack(TEXT, algorithm), algorithm, raw_bytes)


@given(garbage=st.binary(max_size=2000), algorithm=st.integers(0, 254), raw_bytes=st.integers(0, 1 << 32))
def test_garbage_never_raises_anything_but_corrupt_image(garbage: bytes, algorithm: int, raw_bytes: int) -> None:
    try:
        assert len(unpack(garbage, algorithm, raw_bytes)) == raw_bytes <= RECORD_BYTES_MAX
    except CorruptImage:
        pass


@pytest.mark.parametrize("algorithm", STORED_AS)
@pytest.mark.parametrize("raw_bytes", [RECORD_BYTES_MAX + 1, 1 << 30, 1 << 31, (1 << 32) - 1])
def test_regression_no_memory_is_taken_on_the_word_of_an_item(algorithm: Algorithm, raw_bytes: int) -> None:
    """LZ4 was handed the claim: 1 GiB was taken, and 2^31 raised an OverflowError, which nobody expects."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptImage, match="possible"):
            unpack(pack(b"hello", algorithm), algorithm, raw_bytes)
        assert tracemalloc.get_traced_memory()[1] < RECORD_BYTES_MAX
    finally:
        tracemalloc.stop()


def test_threads_pack_and_unpack_side_by_side() -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(50):
            raw = chance.randbytes(chance.randrange(1000)) * chance.randrange(1, 50)
            algorithm = chance.choice(STORED_AS)
            if unpack(pack(raw, algorithm), algorithm, len(raw)) != raw:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@given(
    algorithm=st.sampled_from([*STORED_AS, Algorithm.AUTO]),
    choice=st.integers(0, 100),
)
def test_a_policy_is_parsed_as_it_prints(algorithm: Algorithm, choice: int) -> None:
    levels = [0, *LEVELS.get(algorithm, ())]
    policy = Policy(algorithm, levels[choice % len(levels)])
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize("wrong", ["", "brotli", "zstd:x", "zstd:20", "zlib:0x1", "zlib:10", "lz4:1", "none:3", "auto:1"])
def test_an_unknown_policy_is_refused_with_the_choices(wrong: str) -> None:
    with pytest.raises(UsageError, match=f"'{wrong}'"):
        parse_policy(wrong)
