"""Coverage: which leaf tells the truth about which keys, when the nodes above it are lost.

A node is never changed in place; a newer one takes its keys over. So for each key the newest node of a level that covers it
held the truth when it was written, and it names its children: of the nodes below, only those that it names or that are younger
than it count. What it names and nobody finds is known to have existed and is handed on as *lost*: no older node is the truth in
its place, or files that were deleted would come back. Level by level, from the highest that was found down to the leaves, that
settles who answers for what. A checkpoint that a crash cut short leaves nodes that nothing ever named; where those above are
there, they count for nothing. The caller leaves out nodes whose blocks the space map calls free: where there is a map, it knows
best.

Invariants: tiles follow one another in the order of keys and do not overlap; together they cover every key.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from razortools.check.scan import FoundNode
from razortools.format.keys import HIGHEST_KEY, LOWEST_KEY
from razortools.format.node import ChildPointer

Range = tuple[bytes, bytes]  # first key, first key behind
Child = tuple[bytes, bytes, ChildPointer]
Identity = tuple[int, int, int]
NOBODY = -1  # generation of who answers where nobody does


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf that can be read, or that is known to have been there. *block* 0: it is lost."""

    low: bytes
    high: bytes
    pointer: ChildPointer
    block: int
    is_sound: bool  # it may stay where it is: both copies verify, and so does its header
    is_certain: bool = True  # it is the last one of its keys: a proven node names it, or the space map calls it used


@dataclass(frozen=True, slots=True)
class Tile:
    """A range of keys and the leaf that holds them. *leaf* None: it is lost, and *older* ones, newest first, are all there is."""

    low: bytes
    high: bytes
    leaf: Leaf | None
    generation: int = 0  # of the lost leaf, as far as it is known
    older: tuple[Leaf, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the leaf holds exactly these keys, so that it may stay as it is."""
        return self.leaf is not None and self.leaf.is_sound and (self.leaf.low, self.leaf.high) == (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Offer:
    """A node that may answer for some ranges of keys. *node* None: it is named, but nobody finds it."""

    pointer: ChildPointer
    node: FoundNode | None
    ranges: tuple[Range, ...]


@dataclass(slots=True)
class Open:
    """Ranges of keys that nothing has covered yet, in order."""

    lows: list[bytes] = field(default_factory=lambda: [LOWEST_KEY])
    highs: list[bytes] = field(default_factory=lambda: [HIGHEST_KEY])

    def take(self, low: bytes, high: bytes) -> list[Range]:
        """Cover the range; return the parts of it that were open."""
        first = bisect_right(self.highs, low)
        behind = bisect_left(self.lows, high)
        if first >= behind or low >= high:
            return []
        taken = [(max(low, a), min(high, b)) for a, b in zip(self.lows[first:behind], self.highs[first:behind], strict=True)]
        rest = [(self.lows[first], low), (high, self.highs[behind - 1])]
        rest = [(a, b) for a, b in rest if a < b]
        self.lows[first:behind] = [a for a, _ in rest]
        self.highs[first:behind] = [b for _, b in rest]
        return taken

    def touches(self, low: bytes, high: bytes) -> bool:
        """Return whether any key of the range is open."""
        return low < high and bisect_right(self.highs, low) < bisect_left(self.lows, high)

    def ranges(self) -> list[Range]:
        """Return what is still open."""
        return list(zip(self.lows, self.highs, strict=True))

    @property
    def is_empty(self) -> bool:
        """Whether all keys are covered."""
        return not self.lows


class _Answers:
    """Who answers for which keys on one level: ranges with the generation of a node, and the children that were named."""

    def __init__(self, segments: list[tuple[bytes, bytes, int]], named: dict[Identity, list[tuple[Range, ChildPointer]]]) -> None:
        segments.sort()
        self._lows = [low for low, _, _ in segments]
        self._segments = segments
        self.named = named

    def ranges_for(self, node: FoundNode) -> tuple[Range, ...]:
        """Return where *node* of the level below counts: where it is named, and where those who answer are older than it."""
        ranges = [(max(low, node.low), min(high, node.high)) for (low, high), _ in self.named.get(identity(node.pointer), ())]
        for number in range(max(bisect_right(self._lows, node.low) - 1, 0), bisect_left(self._lows, node.high)):
            low, high, generation = self._segments[number]
            if generation < node.pointer.generation:
                ranges.append((max(low, node.low), min(high, node.high)))
        return tuple((low, high) for low, high in ranges if low < high)


def identity(pointer: ChildPointer) -> Identity:
    """Return what tells a version of a node from every other one."""
    return pointer.address, pointer.generation, pointer.crc32c


def offers(
    found: Sequence[FoundNode], proven: Iterable[Leaf], children_of: Callable[[FoundNode], Iterable[Child]]
) -> list[Offer]:
    """Return the leaves that may answer, newest first, as the nodes above them that were *found* tell.

    *proven* leaves answer for their own ranges already; whoever names them for another range is wrong.
    """
    levels: dict[int, list[FoundNode]] = defaultdict(list)
    ranges = {identity(leaf.pointer): (leaf.low, leaf.high) for leaf in proven if leaf.block}
    ranges |= {identity(node.pointer): (node.low, node.high) for node in found}
    for node in found:
        levels[node.level].append(node)
    answers = _Answers([(LOWEST_KEY, HIGHEST_KEY, NOBODY)], {})
    for level in range(max(levels, default=0), 0, -1):
        answers = _settle(_offered(levels[level], answers), ranges, children_of)
    return _offered(levels[0], answers)


def _offered(nodes: list[FoundNode], above: _Answers) -> list[Offer]:
    offered = [Offer(node.pointer, node, above.ranges_for(node)) for node in nodes]
    present = {identity(node.pointer) for node in nodes}
    for known, places in above.named.items():
        if known not in present:
            offered.append(Offer(places[0][1], None, tuple(place for place, _ in places)))
    offered = [offer for offer in offered if offer.ranges]
    offered.sort(key=lambda offer: (offer.pointer.generation, offer.node is not None), reverse=True)
    return offered


def _settle(offered: list[Offer], ranges: dict[Identity, Range], children_of: Callable[[FoundNode], Iterable[Child]]) -> _Answers:
    """Let the newest answer for each key. *ranges* tells those of the nodes of the level below."""
    uncovered = Open()
    segments: list[tuple[bytes, bytes, int]] = []
    named: dict[Identity, list[tuple[Range, ChildPointer]]] = defaultdict(list)
    for offer in offered:
        won = [part for low, high in offer.ranges for part in uncovered.take(low, high)]
        if offer.node is None or not won:
            segments += [(low, high, NOBODY) for low, high in won]
            continue
        for child_low, child_high, pointer in children_of(offer.node):
            # A pointer that leads to the node of another range is damage: what it says of its range is worth nothing.
            is_right = ranges.get(identity(pointer), (child_low, child_high)) == (child_low, child_high)
            for low, high in won:
                part = max(low, child_low), min(high, child_high)
                if part[0] < part[1]:
                    segments.append((*part, offer.pointer.generation if is_right else NOBODY))
                    if is_right:
                        named[identity(pointer)].append((part, pointer))
    segments += [(low, high, NOBODY) for low, high in uncovered.ranges()]
    return _Answers(segments, named)


def tile(
    proven: Iterable[Leaf], offered: Iterable[Offer], found: Iterable[FoundNode], leaf_of: Callable[[FoundNode], Leaf]
) -> list[Tile]:
    """Return the tiles: *proven* leaves, lost ones among them, come first; then those that were *offered*, newest first."""
    uncovered = Open()
    tiles: list[Tile] = []
    lost: list[tuple[bytes, bytes, int]] = []
    for leaf in proven:
        for low, high in uncovered.take(leaf.low, leaf.high):
            if leaf.block:
                tiles.append(Tile(low, high, leaf))
            else:
                lost.append((low, high, leaf.pointer.generation))
    for offer in offered:
        won = [part for low, high in offer.ranges for part in uncovered.take(low, high)]
        if offer.node is None:
            lost += [(low, high, offer.pointer.generation) for low, high in won]
        elif won:
            made = leaf_of(offer.node)
            tiles += [Tile(low, high, made) for low, high in won]
    lost += [(low, high, 0) for low, high in uncovered.ranges()]
    if lost:
        lost = _joined(lost)
        old = sorted((node for node in found if node.level == 0), key=lambda node: -node.pointer.generation)
        for low, high, generation in lost:
            older = tuple(leaf_of(node) for node in old if node.low < high and low < node.high)
            tiles.append(Tile(low, high, None, generation, older))
    tiles.sort(key=lambda tile: tile.low)
    return tiles


def _joined(lost: list[tuple[bytes, bytes, int]]) -> list[tuple[bytes, bytes, int]]:
    """Return the ranges with those that touch each other made one."""
    lost.sort()
    joined = lost[:1]
    for low, high, generation in lost[1:]:
        first, behind, before = joined[-1]
        if low == behind:
            joined[-1] = first, high, max(before, generation)
        else:
            joined.append((low, high, generation))
    return joined
