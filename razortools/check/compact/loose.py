"""Loose leaves: which neighbouring leaves are to be packed into fewer. Pure: sizes in, sections out.

A section is a run of leaves in which what can be saved adds up to the most: each leaf counts by how empty it is, less what it
costs to write it anew. So a full leaf between two empty ones is packed with them, and one at the end of them is not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from razortools.format.node import ITEM_OVERHEAD_BYTES

Item = tuple[bytes, bytes]
Sizes = Callable[[int], Iterable[int]]  # number of a leaf -> bytes of each of its items

# Full nodes would be split by the next change; a sixteenth is room for some, and costs little.
FILL_PARTS, FILL_OF = 15, 16
# Writing a node anew must free an eighth of one. Else the last percent would cost as much as all the rest.
COST = 1 / 8


@dataclass(frozen=True, slots=True)
class Section:
    """Leaves *first* to before *behind*, packed anew into nodes with these bytes of items each."""

    first: int
    behind: int
    packed: tuple[int, ...]

    @property
    def saved(self) -> int:
        """Nodes that this saves."""
        return self.behind - self.first - len(self.packed)


def fill_limit(capacity: int) -> int:
    """Return how many bytes of items a packed leaf gets."""
    return capacity * FILL_PARTS // FILL_OF


def grouped(items: Iterable[Item], limit: int) -> Iterator[list[Item]]:
    """Yield the items of one new leaf after the other; at least one, which may be empty."""
    group: list[Item] = []
    used = 0
    for item in items:
        size = len(item[1]) + ITEM_OVERHEAD_BYTES
        if used + size > limit and group:
            yield group
            group, used = [], 0
        group.append(item)
        used += size
    yield group


def find_sections(used: Sequence[int], sizes: Sizes, capacity: int) -> list[Section]:
    """Return the sections to pack, in order. *used*: the bytes of items of each leaf."""
    limit = fill_limit(capacity)
    found = (
        Section(first, behind, _packed(first, behind, sizes, limit))
        for first, behind in _segments([1 - COST - size / limit for size in used])
    )
    return [section for section in found if section.saved > 0]


def first_part(section: Section, sizes: Sizes, capacity: int, nodes_max: int) -> Section | None:
    """Return the longest section that begins as *section* does, takes *nodes_max* nodes at the most, and saves one; or None."""
    limit = fill_limit(capacity)
    node_count, used = 1, 0
    best = None
    for leaf in range(section.first, section.behind):
        for size in sizes(leaf):
            if used + size > limit and used:
                node_count, used = node_count + 1, 0
            used += size
        if node_count > nodes_max:
            break
        if leaf + 1 - section.first > node_count:
            best = leaf + 1
    return Section(section.first, best, _packed(section.first, best, sizes, limit)) if best is not None else None


def _packed(first: int, behind: int, sizes: Sizes, limit: int) -> tuple[int, ...]:
    """Return the bytes of each leaf into which those from *first* on are packed. As grouped(), which needs the items."""
    packed: list[int] = []
    group = 0
    for leaf in range(first, behind):
        for size in sizes(leaf):
            if group + size > limit and group:
                packed.append(group)
                group = 0
            group += size
    return (*packed, group)


def _segments(scores: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the (first, behind) of runs of two and more in which the scores add up to the most, one after the other."""
    start = 0
    while start < len(scores):
        total = best = 0.0
        behind = start
        for place in range(start, len(scores)):
            total += scores[place]
            if total <= 0:
                break
            if total > best:
                best, behind = total, place + 1
        if behind - start > 1:
            yield start, behind
        start = max(behind, start + 1)
