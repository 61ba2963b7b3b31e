"""Operations: what one does is in the volume as a whole, or not at all.

Invariant: if an operation fails, counters, inodes, names and records are what they were, as is the tree; if even that fails, or
finishing does, nothing may be built upon what memory holds (store.break_off).
"""

from typing import TYPE_CHECKING

from razortools.engine.store.store import Store
from razortools.engine.store.transaction import PART_KEYS
from razortools.format.journal import Operation
from razortools.format.volume import Counters
from razortools.units import InodeNo

if TYPE_CHECKING:
    from razortools.engine.volume import Volume

_flatten = Counters._FLATTEN


class OperationContext:
    """The one context that all operations of a volume use in turn; operations never nest."""

    __slots__ = ("_saved", "_started_ns", "_volume")

    def __init__(self, volume: "Volume") -> None:
        self._volume = volume
        self._saved: tuple[int, ...] = ()
        self._started_ns = 0

    def begin(self, operation: Operation, inode: InodeNo) -> None:
        """Start the operation."""
        volume = self._volume
        volume.store.start(operation, inode)
        self._saved = _flatten(volume.counters)
        self._started_ns = volume.now_ns()

    def __enter__(self) -> int:
        return self._started_ns

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        store = self._volume.store
        try:
            if kind is None:
                self._finish(store)
            else:
                self._take_back()
        except BaseException as failure:
            store.break_off(failure)
            raise

    def _finish(self, store: Store) -> None:
        """The operation is complete."""
        inodes = self._volume.inodes
        if len(store.transaction.redo) + len(store.running.steps) >= PART_KEYS:  # a part of the journal may end with it
            inodes.put_fresh()
        store.finish()
        inodes.keep_changes()

    def _take_back(self) -> None:
        """The operation has failed: all that it changed is as it was."""
        volume = self._volume
        volume.looked_up.clear()
        volume.inodes.take_back()
        for key in volume.store.rollback():
            volume.names.forget_key(key)
            volume.records.forget_key(key)
        volume.counters = Counters(*self._saved)
