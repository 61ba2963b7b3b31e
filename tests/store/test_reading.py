"""Records are read as they lie: neighbours in one go, and nobody is refused for what happened to another."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.reading import read_record, read_records
from razortools.errors import CorruptImage, DeviceFailed
from razortools.format.compression import Algorithm
from razortools.format.data import CUT_OUT, DataRecord, Run, make_record
from razortools.units import KIB, MIB, BlockNo

BLOCK = 4 * KIB
NOISE = random.Random(1).randbytes(64 * KIB)


class CountingDevice(MemoryDevice):
    """Remembers what was read, and cannot read some places."""

    def __init__(self) -> None:
        super().__init__(4 * MIB)
        self.reads: list[tuple[int, int]] = []
        self.broken = range(0)

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        if any(at in range(offset, offset + length) for at in self.broken):
            raise DeviceFailed("a bad sector")
        return super().read(offset, length)


def stored(
    device: CountingDevice, first: int, length: int, *, algorithm: Algorithm = Algorithm.ZSTD, twice: bool = True, parts: int = 1
) -> tuple[DataRecord, bytes]:
    """Store *length* bytes from block *first* on; of *parts* runs the further ones lie behind a gap each."""
    data = NOISE[first : first + length]
    count = -(-length // BLOCK)
    runs: list[Run] = [(BlockNo(first), count - (parts - 1))]
    runs += [(BlockNo(first + count + 2 * number), 1) for number in range(1, parts)]
    record, padded = make_record(runs, data, length, algorithm, 1, BLOCK, twice=twice)
    for start, blocks in runs:
        device.write(start * BLOCK, padded[: blocks * BLOCK])
        padded = padded[blocks * BLOCK :]
    return record, data


def shown(outcome: object) -> object:
    """Return what can be compared."""
    return (type(outcome), str(outcome)) if isinstance(outcome, Exception) else bytes(outcome)  # type: ignore[call-overload]


def alone(device: CountingDevice, record: DataRecord) -> object:
    try:
        return read_record(device, record, BLOCK)
    except (CorruptImage, DeviceFailed) as failed:
        return failed


FATES = st.sampled_from(["well", "well", "well", "gap", "parts", "flipped", "bad sector", "cut out", "cut off", "plain"])


@settings(deadline=None, max_examples=80)
@given(fates=st.lists(st.tuples(FATES, st.integers(1, 3 * BLOCK), st.booleans()), max_size=9), order=st.randoms())
def test_together_they_are_read_as_each_alone(fates: list[tuple[str, int, bool]], order: random.Random) -> None:
    device, records, at = CountingDevice(), [], 10
    for fate, length, twice in fates:
        at += fate == "gap"
        parts = 2 if fate == "parts" and length > BLOCK else 1
        algorithm = Algorithm.NONE if fate == "plain" else Algorithm.ZSTD
        record, _ = stored(device, at, length, algorithm=algorithm, twice=twice, parts=parts)
        if fate == "flipped":
            device.write(at * BLOCK, bytes([device.read(at * BLOCK, 1)[0] ^ 4]))
        elif fate == "bad sector":
            device.broken = range(at * BLOCK, at * BLOCK + 1)
        elif fate == "cut out":
            record = replace(record, flags=record.flags | CUT_OUT)
        elif fate == "cut off":
            record = replace(record, more=record.more + b"odd")
        records.append(record)
        at += -(-length // BLOCK) + 3 * (parts - 1)
    if order.random() < 0.3:
        order.shuffle(records)
    together = [shown(outcome) for outcome in read_records(device, records, BLOCK)]
    assert together == [shown(alone(device, record)) for record in records]


def test_neighbours_are_read_in_one_go() -> None:
    device = CountingDevice()
    kept = [stored(device, 10, 2 * BLOCK), stored(device, 12, BLOCK - 5), stored(device, 13, 1), stored(device, 15, BLOCK)]
    assert [bytes(outcome) for outcome in read_records(device, [record for record, _ in kept], BLOCK)] == [  # type: ignore[call-overload]
        data for _, data in kept
    ]
    assert device.reads == [(10 * BLOCK, 4 * BLOCK), (15 * BLOCK, BLOCK)]


def test_what_is_not_compressed_is_not_copied_out_of_what_was_read_together() -> None:
    device = CountingDevice()
    records = [stored(device, at, BLOCK, algorithm=Algorithm.NONE)[0] for at in (10, 11)]
    outcomes = read_records(device, records, BLOCK)
    assert [type(outcome) for outcome in outcomes] == [bytes, bytes]
    assert device.reads == [(10 * BLOCK, BLOCK), (11 * BLOCK, BLOCK)]
