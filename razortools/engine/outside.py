"""Values in blocks of their own: large extended attributes and long targets of symbolic links.

The blocks are allocated and written while the operation runs, and given back if it fails: the way is

    with Outside(volume) as outside, volume.operation(...):
        record = outside.store(...)

in this order, because an operation that is taken back leaves its blocks to whoever allocated them.
"""

from typing import TYPE_CHECKING

from razortools.format.compression import Algorithm
from razortools.format.data import DataRecord, Run, make_record
from razortools.units import divide_up

if TYPE_CHECKING:
    from razortools.engine.volume import Volume


class Outside:
    """The blocks that one operation allocates; given back if an exception leaves the context."""

    __slots__ = ("_runs", "_volume")

    def __init__(self, volume: "Volume") -> None:
        self._volume = volume
        self._runs: list[Run] = []

    def __enter__(self) -> "Outside":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._runs:
            self._volume.store.unplace(self._runs)

    def store(self, stored: bytes, raw_bytes: int, algorithm: Algorithm) -> DataRecord:
        """Write *stored* into new blocks and return the record that some item must name before the operation ends.

        Raises OutOfSpace, DeviceFailed.
        """
        store, block_bytes = self._volume.store, self._volume.block_bytes
        runs = store.place(divide_up(len(stored), block_bytes))
        self._runs += runs
        record, padded = make_record(runs, stored, raw_bytes, algorithm, store.generation, block_bytes, twice=store.checks_twice)
        store.write_blocks(runs, padded)
        return record
