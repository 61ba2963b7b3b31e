"""Memory of verdicts: two states of which the same was read get the same verdict, whatever else they hold.

Judging a state is deterministic: what is read next follows from what was read before. So all judgements form a tree, each of its
nodes a place that is read, each of its branches what was found there. A state that follows known branches to their end has been
judged before. This is what makes a million states cheap: most of them differ in what nothing ever reads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from razortools.debug.crashtest.disks import Base, CrashedDisk, State, Step, different

Verdict = TypeVar("Verdict")
Found = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Node(Generic[Verdict]):
    """A place that is read next."""

    sectors: range
    branches: "dict[Found, _Node[Verdict] | Verdict]" = field(default_factory=dict)


class Memory(Generic[Verdict]):
    """All verdicts on states of one base."""

    def __init__(self) -> None:
        self._root: _Node[Verdict] | Verdict | None = None
        self.verdict_count = 0

    def recall(self, state: State) -> Verdict | None:
        """Return the verdict that *state* must get, None if it is not known."""
        node = self._root
        while isinstance(node, _Node):
            node = node.branches.get(different(state, node.sectors))
        return node

    def verdict_on(self, base: Base, state: State, judge: Callable[[CrashedDisk], Verdict]) -> Verdict:
        """Return the verdict on *state* of *base*: remembered, or else what *judge* finds. Raises what *judge* raises."""
        verdict = self.recall(state)
        if verdict is None:
            disk = CrashedDisk(base, state)
            verdict = judge(disk)
            self.learn(disk.steps, verdict)
        return verdict

    def learn(self, steps: list[Step], verdict: Verdict) -> None:
        """Keep the verdict on a state of which *steps* were read, in this order."""
        self.verdict_count += 1
        if self._root is None:
            self._root = _Node(steps[0][0])
        node = self._root
        for at, (sectors, found) in enumerate(steps):
            assert isinstance(node, _Node) and node.sectors == sectors, "judging is not deterministic"
            if at == len(steps) - 1:
                node.branches[found] = verdict
            else:
                node = node.branches.setdefault(found, _Node(steps[at + 1][0]))
