"""The node pool: room for tree nodes, taken before an operation starts, so that a checkpoint never runs out of space.

A node takes a run of blocks, and so does its mirror, far away in the other half of the image. Every node that is dirty, and the
most that one more operation can make dirty, has its run in the pool. Invariant: len(pool) never falls below the number of dirty
nodes, on each side.
"""

from itertools import chain

from razortools.engine.store.spacemaps import SpaceMaps
from razortools.format.data import Run, joined
from razortools.format.geometry import Geometry
from razortools.units import BlockNo

BATCH = 32  # runs taken at once, one behind another, so that nodes written together lie together


class NodePool:
    """Free runs for nodes, one list a side: near for the first copies, far for the mirrors."""

    def __init__(self, maps: SpaceMaps, geometry: Geometry, copies: int) -> None:
        """Make an empty pool for *copies* copies of each node."""
        self._maps = maps
        self._node_blocks = geometry.node_blocks
        self._sides: list[list[BlockNo]] = [[] for _ in range(copies)]
        self._cursors = [0, geometry.block_count // 2][:copies]
        self.node_count = 0  # for how many nodes there are runs on every side

    def reserve(self, node_count: int, spare_blocks: int = 0) -> bool:
        """Make sure that there are runs for *node_count* nodes, with *spare_blocks* left free; False if there is no room."""
        if node_count <= self.node_count:
            return True  # the usual case: this runs before every operation
        if self._maps.free_blocks - self._missing_blocks(node_count) < spare_blocks:
            return False
        try:
            for side, runs in enumerate(self._sides):
                while len(runs) < node_count:
                    # What goes beyond that, for locality, must leave the other side its part as well.
                    spared = spare_blocks + self._missing_blocks(node_count)
                    if not self._take(side, node_count - len(runs), spared):
                        return False
        finally:
            self._count()
        return True

    def _missing_blocks(self, node_count: int) -> int:
        return sum(max(node_count - len(runs), 0) for runs in self._sides) * self._node_blocks

    def _count(self) -> None:
        self.node_count = min(map(len, self._sides))

    def _take(self, side: int, wanted: int, spare_blocks: int) -> bool:
        roomy = self._maps.free_blocks - BATCH * self._node_blocks * len(self._sides) > spare_blocks
        count = max(wanted, BATCH) if roomy else wanted
        while count:
            start = self._maps.allocate_run(count * self._node_blocks, self._cursors[side])
            if start is not None:
                self._cursors[side] = start + count * self._node_blocks
                self._sides[side] += [BlockNo(start + number * self._node_blocks) for number in reversed(range(count))]
                return True
            # A batch is only for locality: what is wanted may also lie scattered.
            count = wanted if count > wanted else count // 2
        return False

    def take(self, count: int) -> list[tuple[BlockNo, BlockNo]]:
        """Return (first copy, mirror or 0) for each of *count* nodes that are to be written, side by side where they lie so."""
        taken: list[list[BlockNo]] = []
        for runs in self._sides:
            taken.append(runs[len(runs) - count :][::-1])
            del runs[len(runs) - count :]
        self._count()
        for places in taken:
            for start, length in joined((place, self._node_blocks) for place in places):
                self._maps.mark_stale(start, length)
        mirrors = taken[1] if len(taken) > 1 else [BlockNo(0)] * count
        return list(zip(taken[0], mirrors, strict=True))

    def runs(self) -> list[Run]:
        """Return what is held for nodes that were not written yet, neighbours as one: they may be thousands."""
        places = sorted(chain.from_iterable(self._sides))
        return joined((place, self._node_blocks) for place in places)

    def release(self) -> None:
        """Give everything back; after a checkpoint nothing is dirty."""
        for start, count in self.runs():
            self._maps.free_now(start, count)
        for side in self._sides:
            side.clear()
        self._count()
        # Search from the start again: what was freed there meanwhile keeps the image compact.
        self._cursors = [0, self._maps.geometry.block_count // 2][: len(self._sides)]

    @property
    def block_count(self) -> int:
        """Blocks that the pool holds."""
        return sum(map(len, self._sides)) * self._node_blocks
