"""Remade nodes: a lost node put together from what was found below it, as a proof that this is what it named.

Whoever names a node tells its checksum, its place and its generation. All else that stood in it are the nodes below. Where the
newest of these give a node of that checksum, they are the last ones of their keys, even if the space map cannot tell.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from razortools.check.image import Image
from razortools.check.repair.coverage import Open
from razortools.check.scan import FoundNode
from razortools.check.tree import Place
from razortools.format.node import CHILD_BYTES, NODE_HEADER_BYTES, NodeHeader, encode_node


def proven_below(image: Image, lost: Sequence[Place], found: Iterable[FoundNode]) -> Iterator[FoundNode]:
    """Yield those of the *found* nodes that make one of the *lost* ones what its checksum says."""
    levels: dict[int, list[FoundNode]] = defaultdict(list)
    for node in sorted(found, key=lambda node: node.low):
        levels[node.level].append(node)
    lows = {level: [node.low for node in nodes] for level, nodes in levels.items()}
    ranges = Counter((place.level, place.low, place.high) for place in lost)
    for place in lost:
        below = place.level - 1
        if below in levels and ranges[place.level, place.low, place.high] == 1:  # else nobody knows which part of it is whose
            first, behind = (bisect_left(lows[below], key) for key in (place.low, place.high))
            yield from _proven(image, place, levels[below][first:behind])


def _proven(image: Image, place: Place, nodes: list[FoundNode]) -> list[FoundNode]:
    """Return the newest of *nodes*, in the order of their keys, if they are what stood in the node at *place*; else none."""
    uncovered = Open([place.low], [place.high])
    chosen = []
    for node in sorted(nodes, key=lambda node: -node.pointer.generation):
        won = uncovered.take(node.low, node.high)
        if won and won != [(node.low, node.high)]:
            return []
        if won:
            chosen.append(node)
    if not uncovered.is_empty or NODE_HEADER_BYTES + len(chosen) * CHILD_BYTES > image.geometry.node_bytes:
        return []
    chosen.sort(key=lambda node: node.low)
    return chosen if _checksum(image, place, chosen) == place.pointer.crc32c else []


def _checksum(image: Image, place: Place, children: list[FoundNode]) -> int:
    """Return the checksum that the node at *place* has if it names *children*."""
    keys, values = [node.low for node in children], [node.pointer.encode() for node in children]
    pointer, used = place.pointer, sum(map(len, values))
    header = NodeHeader(
        image.tag, pointer.address, pointer.mirror, pointer.generation, len(keys), place.level, 0, used, place.low, place.high
    )
    return encode_node(header, keys, values, image.geometry.node_bytes)[1]
