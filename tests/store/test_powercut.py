"""What a disk may hold after a power cut: the choices are exactly the subsets, orders and tearings of what was not flushed."""

import random
from dataclasses import dataclass
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.store.powercut import SECTOR_BYTES, Choice, Unflushed, Write, whole_sectors

SECTORS = 4  # of the whole disk
FILLS = b"ab"  # few, so that writes often repeat what is there, or bring back what was
ALL = 10_000


@dataclass(frozen=True)
class History:
    """A stable disk and what was written to it since."""

    stable: bytes
    writes: tuple[Write, ...]

    @property
    def unflushed(self) -> Unflushed:
        return Unflushed(self.writes)

    def after(self, choice: Choice) -> bytes:
        """Return the whole disk with what *choice* lets arrive."""
        disk = bytearray(self.stable)
        for offset, sector in self.unflushed.contents(choice):
            disk[offset : offset + SECTOR_BYTES] = sector
        return bytes(disk)


def sector(fill: int) -> bytes:
    return bytes([fill]) * SECTOR_BYTES


@st.composite
def histories(draw: st.DrawFn, writes_max: int = 3, sectors_max: int = 3) -> History:
    stable = b"".join(sector(draw(st.sampled_from(FILLS + b"z"))) for _ in range(SECTORS))
    disk = bytearray(stable)
    writes = []
    for _ in range(draw(st.integers(0, writes_max))):
        first = draw(st.integers(0, SECTORS - 1))
        count = draw(st.integers(1, min(sectors_max, SECTORS - first)))
        after = b"".join(sector(draw(st.sampled_from(FILLS))) for _ in range(count))
        at = first * SECTOR_BYTES
        writes.append(Write(at, bytes(disk[at : at + len(after)]), after))
        disk[at : at + len(after)] = after
    return History(stable, tuple(writes))


def large_histories() -> st.SearchStrategy[History]:
    """Histories of which a small limit cannot hold all choices."""
    return histories(writes_max=8, sectors_max=4).filter(lambda history: history.unflushed.choice_count > 12)


def pieces(write: Write) -> list[tuple[int, bytes]]:
    return [(write.offset + at, write.after[at : at + SECTOR_BYTES]) for at in range(0, len(write.after), SECTOR_BYTES)]


def brute_force(history: History) -> set[bytes]:
    """Return every disk that any order of the writes leaves, of which any sectors arrived. It knows nothing of versions."""
    left = set()
    for order in permutations(history.writes):
        arriving = [piece for write in order for piece in pieces(write)]
        for arrived in product((False, True), repeat=len(arriving)):
            disk = bytearray(history.stable)
            for (at, data), does in zip(arriving, arrived, strict=True):
                if does:
                    disk[at : at + SECTOR_BYTES] = data
            left.add(bytes(disk))
    return left


def prefixes(history: History) -> list[bytes]:
    """Return the disk at every moment of a disk that writes in order, sector after sector."""
    disk = bytearray(history.stable)
    seen = [bytes(disk)]
    for write in history.writes:
        for at, data in pieces(write):
            disk[at : at + SECTOR_BYTES] = data
            seen.append(bytes(disk))
    return seen


def choices(history: History, limit: int, seed: int = 1) -> list[Choice]:
    return list(history.unflushed.choices(limit, random.Random(seed)))


@settings(max_examples=150)
@given(history=histories())
def test_all_choices_are_all_subsets_orders_and_tearings_of_the_writes(history: History) -> None:
    disks = [history.after(choice) for choice in choices(history, ALL)]
    assert set(disks) == brute_force(history)
    assert len(disks) == len(set(disks)) == history.unflushed.choice_count


@given(history=histories(writes_max=8, sectors_max=4), limit=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_no_state_is_given_twice_and_no_more_than_asked_for(history: History, limit: int, seed: int) -> None:
    disks = [history.after(choice) for choice in choices(history, limit, seed)]
    assert len(disks) == len(set(disks)) <= limit


@given(history=histories(writes_max=8, sectors_max=4), limit=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_of_a_state_that_may_be_all_that_is_given_can_be(history: History, limit: int, seed: int) -> None:
    written = {place: {history.stable[place : place + SECTOR_BYTES]} for place in range(0, len(history.stable), SECTOR_BYTES)}
    for write in history.writes:
        for at, data in pieces(write):
            written[at].add(data)
    for choice in choices(history, limit, seed):
        disk = history.after(choice)
        assert all(disk[at : at + SECTOR_BYTES] in versions for at, versions in written.items())


@given(history=large_histories(), seed=st.integers(0, 2**32))
def test_nothing_and_everything_are_among_the_choices_however_few_are_asked_for(history: History, seed: int) -> None:
    disks = [history.after(choice) for choice in choices(history, 2, seed)]
    assert history.stable in disks
    assert prefixes(history)[-1] in disks


@given(history=histories(writes_max=8, sectors_max=4), seed=st.integers(0, 2**32))
def test_every_moment_of_a_disk_that_writes_in_order_is_among_the_choices(history: History, seed: int) -> None:
    moments = prefixes(history)
    disks = {history.after(choice) for choice in choices(history, len(moments) + 2, seed)}
    assert disks >= set(moments)


@given(history=large_histories(), limit=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_choices_in_the_same_order(history: History, limit: int, seed: int) -> None:
    assert choices(history, limit, seed) == choices(history, limit, seed)


@given(history=histories(writes_max=8, sectors_max=4), seed=st.integers(0, 2**32))
def test_a_sample_is_a_choice(history: History, seed: int) -> None:
    unflushed = history.unflushed
    for choice in [unflushed.sample(random.Random(seed + number)) for number in range(10)]:
        assert all(0 <= number < len(unflushed.versions[place]) for place, number in choice.items())


@settings(max_examples=30)
@given(history=histories(writes_max=4, sectors_max=2))
def test_samples_reach_every_state_in_the_end(history: History) -> None:
    unflushed, chance = history.unflushed, random.Random(7)
    wanted = {history.after(choice) for choice in choices(history, ALL)}
    found: set[bytes] = set()
    for _ in range(60 * len(wanted) * len(wanted) + 200):
        found.add(history.after(unflushed.sample(chance)))
        if found == wanted:
            return
    assert found == wanted


@given(history=histories(writes_max=8, sectors_max=4), seed=st.integers(0, 2**32))
def test_contents_lists_whole_sectors_that_change_the_stable_disk(history: History, seed: int) -> None:
    for choice in choices(history, 30, seed):
        for offset, data in history.unflushed.contents(choice):
            assert offset % SECTOR_BYTES == 0 and len(data) == SECTOR_BYTES
            assert data != history.stable[offset : offset + SECTOR_BYTES], "a choice names what is stable already"


def test_without_writes_there_is_one_state() -> None:
    assert list(Unflushed().choices(10, random.Random(1))) == [{}]


def test_a_write_of_what_is_there_already_is_no_choice() -> None:
    same = Write(0, sector(1), sector(1))
    unflushed = Unflushed([same])
    assert (unflushed.choice_count, unflushed.versions, unflushed.writes) == (1, {}, [])


def test_a_sector_that_was_written_back_to_what_it_held_may_be_old_or_between() -> None:
    unflushed = Unflushed([Write(0, sector(1), sector(2)), Write(0, sector(2), sector(1))])
    assert unflushed.choice_count == 2
    assert unflushed.everything() == {0: 0}


def test_few_writes_are_tried_in_every_subset_even_if_their_sectors_are_too_many() -> None:
    disk = bytes(6 * 16 * SECTOR_BYTES)
    length = 16 * SECTOR_BYTES
    writes = [Write(at * length, disk[:length], random.Random(at).randbytes(length)) for at in range(6)]
    unflushed = Unflushed(writes)
    whole = {frozenset(choice.items()) for choice in unflushed.choices(1000, random.Random(1))}
    for mask in range(1 << len(writes)):
        arrived = Unflushed.arrived(did for at, did in enumerate(unflushed.writes) if mask >> at & 1)
        assert frozenset(arrived.items()) in whole


@pytest.mark.parametrize(
    ("offset", "length", "around"),
    [(0, 512, (0, 512)), (1, 1, (0, 512)), (511, 2, (0, 1024)), (512, 512, (512, 512)), (1000, 100, (512, 1024))],
)
def test_whole_sectors_are_the_least_that_cover_a_range(offset: int, length: int, around: tuple[int, int]) -> None:
    assert whole_sectors(offset, length) == around
