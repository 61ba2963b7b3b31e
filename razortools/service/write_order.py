"""The order of writes: one that has to wait is not overtaken by a later one of the same bytes.

The kernel may have two of the same page under way: of a write(2), and of what a mapping stored meanwhile. What came last must
last. Invariant: a write waits only for those that came before it, so they cannot wait for one another.
"""

from dataclasses import dataclass, field

import trio

from razortools.service.wire import WRITE
from razortools.units import InodeNo


@dataclass(eq=False, frozen=True, slots=True)
class Writing:
    """A write that waits: of the bytes of a file from *offset* to *end*."""

    node: InodeNo
    offset: int
    end: int
    done: trio.Event = field(default_factory=trio.Event)


class WriteOrder:
    """The writes that wait."""

    def __init__(self) -> None:
        """None does."""
        self.of: dict[InodeNo, list[Writing]] = {}  # of each file that has some, in the order in which they came

    def before(self, node: InodeNo, body: memoryview) -> list[Writing]:
        """Return those that write any of the bytes that the one in *body* does."""
        offset, size, _, _ = WRITE.unpack_from(body)
        return [each for each in self.of.get(node, ()) if each.offset < offset + size and offset < each.end]

    def begin(self, node: InodeNo, body: memoryview) -> Writing:
        """From now on the write in *body* waits."""
        offset, size, _, _ = WRITE.unpack_from(body)
        writing = Writing(node, offset, offset + size)
        self.of.setdefault(node, []).append(writing)
        return writing

    def end(self, writing: Writing) -> None:
        """It has been answered: let those go on that wait for it."""
        writing.done.set()
        left = self.of[writing.node]
        left.remove(writing)
        if not left:
            del self.of[writing.node]
