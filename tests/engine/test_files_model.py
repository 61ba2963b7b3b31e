"""The data path against a model: every file is a bytearray, a commit is a copy of all of them."""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from razortools.engine import files, loose, recompress
from razortools.engine.adaptive import RESTED, pack
from razortools.engine.limits import Limits
from razortools.engine.store.simulated import SimulatedDevice
from razortools.engine.stored import unpack_item
from razortools.engine.volume import Volume
from razortools.errors import CorruptImage, OutOfSpace
from razortools.format.compression import Algorithm, Policy
from razortools.format.data import CHECKED_TWICE
from razortools.format.journal import Operation
from razortools.format.keys import inode_key
from razortools.units import KIB, MIB, InodeNo, RecordNo
from tests.engine.data_volumes import (
    SMALL,
    assert_memory_adds_up,
    assert_space_adds_up,
    assert_tree_adds_up,
    formatted,
    new_file,
    open_again,
)

FILE_COUNT_MAX = 6
POLICIES = [
    Policy(),
    Policy(Algorithm.NONE),
    Policy(Algorithm.LZ4),
    Policy(Algorithm.ZLIB),
    Policy(Algorithm.ZSTD, 3),
]
Model = dict[InodeNo, bytes]


@st.composite
def places(draw: st.DrawFn) -> int:
    """An offset of a file with records of 4 KiB, mostly near the borders of records."""
    near = draw(st.integers(0, 12)) * 4 * KIB
    return max(0, near + draw(st.sampled_from([0, 0, 1, -1, 7, 511, 2048, -100])))


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Data of all kinds of compressibility, cut near the borders of records too."""
    length = max(1, draw(places()) if draw(st.booleans()) else draw(st.integers(1, 3000)))
    kind = draw(st.sampled_from(["zeros", "random", "text", "sparse"]))
    seed = draw(st.integers(0, 1 << 16))
    if kind == "zeros":
        return bytes(length)
    if kind == "random":
        return random.Random(seed).randbytes(length)
    if kind == "text":
        return (f"line {seed} of a text that shrinks\n" * (length // 20 + 1)).encode()[:length]
    return bytes(length // 2) + random.Random(seed).randbytes(length - length // 2)


class DataPath(RuleBasedStateMachine):
    """Files of different record sizes on one small image, with a flush that may be under way at any time."""

    record_log2s = (12, 12, 13, 14)
    scale = 1  # multiplies offsets and lengths
    image_bytes = 4 * MIB
    limits: Limits = SMALL

    def __init__(self) -> None:
        super().__init__()
        self.device = formatted(SimulatedDevice(self.image_bytes))
        self.volume: Volume = open_again(self.device, self.limits)
        self.model: dict[InodeNo, bytearray] = {}
        self.history: list[Model] = [{}]  # what a crash may leave: states since the last known commit
        self.plan: files.FlushPlan | None = None
        self.packed: files.Packed | None = None
        self.placed: files.Placed | None = None
        self.bases: list[loose.Base] | None = None  # what a round has read that did not merge it yet
        self.late: files.Placed | None = None
        self.rested: list[recompress.Gain] | None = None
        self.rested_count = 0
        self.loose_count = self.unread_count = self.late_count = 0

    def note(self) -> None:
        """The model has changed by one operation."""
        self.history.append(self.snapshot())

    def snapshot(self) -> Model:
        return {ino: bytes(data) for ino, data in self.model.items()}

    def pick(self, number: int) -> InodeNo:
        return sorted(self.model)[number % len(self.model)]

    @initialize()
    def two_files(self) -> None:
        self.create(0, POLICIES[0])
        self.create(1, POLICIES[1])

    @precondition(lambda self: len(self.model) < FILE_COUNT_MAX)
    @rule(size=st.integers(0, 3), policy=st.sampled_from(POLICIES))
    def create(self, size: int, policy: Policy) -> None:
        try:
            ino = new_file(self.volume, self.record_log2s[size], policy)
        except OutOfSpace:
            return
        self.model[ino] = bytearray()
        self.note()

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 5), offset=places(), data=payloads())
    def write(self, number: int, offset: int, data: bytes) -> None:
        ino = self.pick(number)
        offset *= self.scale
        data *= self.scale
        try:
            assert files.write(self.volume, ino, offset, data) == len(data)
        except OutOfSpace:
            return
        contents = self.model[ino]
        if len(contents) < offset:
            contents.extend(bytes(offset - len(contents)))
        contents[offset : offset + len(data)] = data
        self.note()

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 5), data=payloads())
    def append(self, number: int, data: bytes) -> None:
        self.write(number, len(self.model[self.pick(number)]) // self.scale, data)

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 5), page=st.integers(0, 30), count=st.integers(1, 4), seed=st.integers(0, 255))
    def overwrite(self, number: int, page: int, count: int, seed: int) -> None:
        """Whole pages inside of a file, as databases write them."""
        count *= 4 * KIB
        offset = page * 4 * KIB * self.scale
        if offset + count <= len(self.model[self.pick(number)]):
            ino = self.pick(number)
            data = random.Random(seed).randbytes(count // 2) + bytes([seed]) * (count // 2)
            try:
                assert files.write(self.volume, ino, offset, data) == count
            except OutOfSpace:
                return
            self.model[ino][offset : offset + count] = data
            record_no = RecordNo(offset >> self.volume.inodes.get(ino).record_log2)
            self.loose_count += self.volume.records.loose.find(ino, record_no) is not None
            self.note()

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 5), size=places())
    def truncate(self, number: int, size: int) -> None:
        ino = self.pick(number)
        size *= self.scale
        contents = self.model[ino]
        try:
            files.truncate(self.volume, ino, size)
        except OutOfSpace:
            assert size > len(contents), "making a file smaller works on a full image too"
            return
        del contents[size:]
        contents.extend(bytes(size - len(contents)))
        self.note()

    @precondition(lambda self: self.model)
    @rule(number=st.integers(0, 5), offset=places(), size=places())
    def read(self, number: int, offset: int, size: int) -> None:
        ino = self.pick(number)
        offset, size = offset * self.scale, size * self.scale
        assert files.read(self.volume, ino, offset, size) == self.model[ino][offset : offset + size]

    @precondition(lambda self: len(self.model) > 1)
    @rule(number=st.integers(0, 5))
    def delete(self, number: int) -> None:
        ino = self.pick(number)
        files.truncate(self.volume, ino, 0)
        with self.volume.operation(Operation.UNLINK, ino, deleting=True):
            self.volume.records.discard(ino)
            self.volume.inodes.remove(ino)
        self.model[ino].clear()
        self.note()
        del self.model[ino]
        self.note()

    @rule()
    def flush(self) -> None:
        files.flush_all(self.volume)
        assert self.volume.records.dirty_bytes == 0

    @precondition(lambda self: self.plan is None)
    @rule()
    def start_flush(self) -> None:
        self.plan = files.plan_flush(self.volume)
        self.packed = files.pack(self.plan)

    @precondition(lambda self: self.plan is not None and self.placed is None)
    @rule()
    def continue_flush(self) -> None:
        assert self.plan is not None and self.packed is not None
        self.placed = files.place(self.volume, self.plan, self.packed)

    @precondition(lambda self: self.placed is not None)
    @rule(succeeds=st.booleans())
    def end_flush(self, succeeds: bool) -> None:
        assert self.placed is not None
        if succeeds:
            files.write_out(self.volume, self.placed)
            files.apply_flush(self.volume, self.placed)
        else:
            files.give_back(self.volume, self.placed)
        self.plan = self.packed = self.placed = None

    @precondition(lambda self: self.late is None and len(self.volume.records.loose) > 0)
    @rule(kib=st.integers(1, 100))
    def start_late(self, kib: int) -> None:
        """Place loose pages behind their records, as a round does before a thread writes them."""
        items = loose.items_of(self.volume, self.volume.records.loose.oldest(kib * KIB))
        self.late, _ = files.place_late(self.volume, items)
        self.late_count += len(self.late.pages) if self.late is not None else 0

    @precondition(lambda self: self.late is not None)
    @rule(succeeds=st.booleans())
    def end_late(self, succeeds: bool) -> None:
        assert self.late is not None
        if succeeds:
            files.write_out(self.volume, self.late)
            files.apply_flush(self.volume, self.late)
        else:
            files.give_back(self.volume, self.late)
        self.late = None

    @precondition(lambda self: self.bases is None and len(self.volume.records.loose) > 0)
    @rule(kib=st.integers(1, 100), failing=st.integers(0, 15))
    def start_merge(self, kib: int, failing: int) -> None:
        """Read what loose pages lie over, as a round does in a thread. Some records cannot be read, for now."""
        places = self.volume.records.loose.oldest(kib * KIB)
        bases = loose.read_bases(self.volume, loose.items_of(self.volume, places))
        failed = CorruptImage("a read that failed")
        self.bases = [replace(base, found=failed) if failing >> n % 4 & 1 else base for n, base in enumerate(bases)]

    @precondition(lambda self: self.bases is not None)
    @rule()
    def end_merge(self) -> None:
        assert self.bases is not None
        loose.merge(self.volume, self.bases)
        self.bases = None
        self.unread_count += len(self.volume.records.unreadable)

    @precondition(lambda self: self.rested is None)
    @rule(kib=st.integers(1, 100))
    def look_at_rested(self, kib: int) -> None:
        """Read what is stored, as a thread does that compresses it harder. Whether that saves anything or not, it shall be."""
        several = recompress.due(self.volume, 1 << 62, kib * KIB) or [
            one
            for ino in self.model
            for one in recompress._records(self.volume, ino, RecordNo(0))
            if recompress._is_stored(self.volume, one) and not one.item.flags & ~CHECKED_TWICE
        ]
        self.rested = []
        for one in several:
            raw = unpack_item(self.volume.store, one.item, one.item.raw_bytes)
            limit = one.inline_bytes_max
            packing = pack(raw, RESTED, is_first=one.record_no == 0, inline_bytes_max=limit, block_bytes=self.volume.block_bytes)
            self.rested.append(recompress.Gain(one, raw, packing, saved_blocks=0))

    @precondition(lambda self: self.rested is not None)
    @rule()
    def store_rested(self) -> None:
        assert self.rested is not None
        self.rested_count += len(recompress.take(self.volume, self.rested))
        self.rested = None

    def drop_flush(self) -> None:
        if self.late is not None:
            files.give_back(self.volume, self.late)
            self.late = None
        if self.placed is not None:
            files.give_back(self.volume, self.placed)
        self.plan = self.packed = self.placed = None

    @rule()
    def commit(self) -> None:
        self.volume.commit()
        assert_tree_adds_up(self.volume)
        self.history = [self.snapshot()]

    @rule()
    def checkpoint(self) -> None:
        self.drop_flush()
        self.volume.checkpoint()
        assert_tree_adds_up(self.volume)
        assert_space_adds_up(self.volume)
        self.history = [self.snapshot()]

    @rule()
    def abort(self) -> None:
        self.drop_flush()
        self.volume.abort()
        self.find_in_history()

    @rule()
    def reopen(self) -> None:
        self.drop_flush()
        self.bases = self.rested = None
        self.volume.close()
        self.volume = open_again(self.device, self.limits)
        self.history = [self.snapshot()]
        self.compare_all()

    @rule(seed=st.integers(0, 1 << 16))
    def crash(self, seed: int) -> None:
        disk = self.device.crash(seed)
        self.plan = self.packed = self.placed = self.bases = self.late = self.rested = None
        self.device = SimulatedDevice(self.image_bytes)
        for at in range(0, self.image_bytes, MIB):
            self.device.write(at, disk.read(at, MIB))
        self.device.flush()
        self.volume = open_again(self.device, self.limits)
        self.find_in_history()
        self.history = [self.snapshot()]

    def find_in_history(self) -> None:
        """The volume must hold one of the states since the last commit; the model follows."""
        known = {ino for state in self.history for ino in state}
        found = {ino: self.whole(ino) for ino in known if self.exists(ino)}
        assert found in self.history
        self.model = {ino: bytearray(data) for ino, data in found.items()}
        while self.history[-1] != found:
            self.history.pop()

    def exists(self, ino: InodeNo) -> bool:
        return ino < self.volume.counters.next_inode and files_has(self.volume, ino)

    def whole(self, ino: InodeNo) -> bytes:
        return files.read(self.volume, ino, 0, self.volume.inodes.get(ino).size)

    def compare_all(self) -> None:
        for ino, contents in self.model.items():
            assert self.volume.inodes.get(ino).size == len(contents)
            assert self.whole(ino) == contents

    @invariant()
    def memory_adds_up(self) -> None:
        assert_memory_adds_up(self.volume)

    def teardown(self) -> None:
        self.drop_flush()
        self.compare_all()
        self.volume.checkpoint()
        assert_tree_adds_up(self.volume)
        assert_space_adds_up(self.volume)
        for ino in list(self.model):
            files.truncate(self.volume, ino, 0)
        self.volume.checkpoint()
        assert (self.volume.counters.data_blocks, self.volume.counters.raw_bytes) == (0, 0)
        assert_space_adds_up(self.volume)


def files_has(volume: Volume, ino: InodeNo) -> bool:
    return volume.store.get(inode_key(ino)) is not None


class LargeRecords(DataPath):
    """The same with records from 64 KiB to 1 MiB, on an image with nodes of 16 KiB."""

    record_log2s = (16, 17, 18, 20)
    scale = 16
    image_bytes = 24 * MIB
    limits = Limits(dirty_bytes=2 * MIB, record_cache_bytes=MIB)


def fill(machine: DataPath, room_bytes: int) -> InodeNo:
    """Fill a machine's image up to *room_bytes* with a file that the model does not know."""
    ballast = new_file(machine.volume, 12, Policy(Algorithm.NONE))
    size = 0
    with pytest.raises(OutOfSpace):
        while True:
            size += files.write(machine.volume, ballast, size, random.Random(size).randbytes(4096))
    files.truncate(machine.volume, ballast, size - room_bytes)
    machine.volume.checkpoint()
    return ballast


class LoosePages(DataPath):
    """The same where nothing is kept that was read: pages that are overwritten wait as such."""

    record_log2s = (13, 14, 15, 17)
    image_bytes = 6 * MIB
    limits = Limits(dirty_bytes=256 * KIB, record_cache_bytes=0, loose_from=0, late_share=2)


class FullLoosePages(LoosePages):
    """The same where the image is full most of the time."""

    image_bytes = 4 * MIB

    def __init__(self) -> None:
        super().__init__()
        self.ballast = fill(self, room_bytes=1200 * KIB)

    def teardown(self) -> None:
        files.truncate(self.volume, self.ballast, 0)
        super().teardown()


class FullImage(DataPath):
    """The same where the image is full most of the time."""

    image_bytes = MIB
    limits = Limits(dirty_bytes=256 * KIB, record_cache_bytes=0)
    room_bytes = 100 * KIB

    def __init__(self) -> None:
        super().__init__()
        self.ballast = fill(self, self.room_bytes)

    def teardown(self) -> None:
        files.truncate(self.volume, self.ballast, 0)
        super().teardown()


def live(machine: DataPath, seed: int, step_count: int) -> None:
    """Drive a machine at random with far more writing than hypothesis does."""
    chance = random.Random(seed)

    def place() -> int:
        return max(0, chance.randrange(13) * 4 * KIB + chance.choice([0, 0, 1, -1, 7, 511, 2048, -100]))

    def payload() -> bytes:
        length = max(1, place() if chance.random() < 0.5 else chance.randrange(3000))
        kind = chance.randrange(3)
        return chance.randbytes(length) if kind == 0 else bytes([65 * (kind - 1)]) * length

    def flush_step() -> None:
        if machine.plan is None:
            machine.start_flush()
        elif machine.placed is None:
            machine.continue_flush()
        else:
            machine.end_flush(chance.random() < 0.8)

    def late_step() -> None:
        if machine.late is None and len(machine.volume.records.loose):
            machine.start_late(chance.randint(1, 100))
        if machine.late is not None and chance.random() < 0.5:
            machine.end_late(chance.random() < 0.8)

    def merge_step() -> None:
        if machine.bases is None and len(machine.volume.records.loose):
            machine.start_merge(chance.randint(1, 100), chance.randrange(16))
        if machine.bases is not None and chance.random() < 0.5:
            machine.end_merge()

    def rested_step() -> None:
        if machine.rested is None:
            machine.look_at_rested(chance.randint(1, 100))
        elif chance.random() < 0.5:
            machine.store_rested()

    machine.two_files()
    steps = {
        machine.write: (25, lambda: (chance.randrange(6), place(), payload())),
        machine.overwrite: (20, lambda: (chance.randrange(6), chance.randrange(13), chance.randint(1, 3), chance.randrange(256))),
        machine.append: (15, lambda: (chance.randrange(6), payload())),
        machine.truncate: (10, lambda: (chance.randrange(6), place())),
        machine.read: (10, lambda: (chance.randrange(6), place(), place())),
        flush_step: (15, tuple),
        merge_step: (15, tuple),
        late_step: (20, tuple),
        rested_step: (10, tuple),
        machine.flush: (2, tuple),
        machine.commit: (3, tuple),
        machine.checkpoint: (1, tuple),
        machine.abort: (1, tuple),
        machine.reopen: (1, tuple),
        machine.crash: (1, lambda: (chance.randrange(1 << 16),)),
    }
    for _ in range(step_count):
        if len(machine.model) < 2 or (len(machine.model) < FILE_COUNT_MAX and chance.random() < 0.02):
            machine.create(chance.randrange(4), chance.choice(POLICIES))
        elif len(machine.model) > 2 and chance.random() < 0.01:
            machine.delete(chance.randrange(6))
        (step,) = chance.choices(list(steps), [weight for weight, _ in steps.values()])
        step(*steps[step][1]())
        machine.memory_adds_up()
    machine.teardown()


@pytest.mark.parametrize(
    ("kind", "step_count"), [(DataPath, 1500), (FullImage, 1500), (LargeRecords, 200), (LoosePages, 1500), (FullLoosePages, 1300)]
)
@pytest.mark.parametrize("seed", range(2))
def test_files_keep_their_contents_through_a_long_life(kind: type[DataPath], step_count: int, seed: int) -> None:
    machine = kind()
    live(machine, seed, step_count)
    assert machine.rested_count or kind is LargeRecords
    assert (machine.loose_count > 10) == (machine.unread_count > 1) == (machine.late_count > 5) == issubclass(kind, LoosePages)


EFFORT = settings(max_examples=40, stateful_step_count=50, suppress_health_check=list(HealthCheck), deadline=None)
TestDataPath = DataPath.TestCase
TestDataPath.settings = EFFORT
TestLargeRecords = LargeRecords.TestCase
TestLargeRecords.settings = settings(EFFORT, max_examples=12)
TestFullImage = FullImage.TestCase
TestFullImage.settings = EFFORT
TestLoosePages = LoosePages.TestCase
TestLoosePages.settings = settings(EFFORT, max_examples=20)
