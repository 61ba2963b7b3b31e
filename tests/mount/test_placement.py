"""Where threads are placed: on trees as the kernel shows them, of machines that are not here."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from razortools.service import placement
from razortools.service.placement import FOLLOW_S, Placement, Topology, current_processor, parse_list, read_topology

TWO_NODES = Topology({0: frozenset({0, 1}), 1: frozenset({2, 3})})


def tree(root: Path, online: str, processors: dict[int, str]) -> Path:
    """Make what /sys/devices/system/node is like."""
    root.mkdir()
    (root / "online").write_text(f"{online}\n")
    for node, cpulist in processors.items():
        (root / f"node{node}").mkdir()
        (root / f"node{node}" / "cpulist").write_text(f"{cpulist}\n")
    return root


@pytest.mark.parametrize(("text", "numbers"), [("0", [0]), ("0-3,8,10-11\n", [0, 1, 2, 3, 8, 10, 11]), ("\n", []), ("", [])])
def test_the_kernels_lists_are_understood(text: str, numbers: list[int]) -> None:
    assert list(parse_list(text)) == numbers


@pytest.mark.parametrize(
    ("online", "processors", "allowed", "expected"),
    [
        ("0", {0: "0-7"}, range(8), {0: set(range(8))}),
        ("0-1", {0: "0-3,8-11", 1: "4-7,12-15"}, range(16), {0: {0, 1, 2, 3, 8, 9, 10, 11}, 1: {4, 5, 6, 7, 12, 13, 14, 15}}),
        ("0,2,5,7", {0: "0-1", 2: "2-3", 5: "6", 7: "9"}, range(10), {0: {0, 1}, 2: {2, 3}, 5: {6}, 7: {9}}),
        ("0-2", {0: "0-1", 1: "", 2: "2-3"}, range(4), {0: {0, 1}, 2: {2, 3}}),  # a node of memory alone
        ("0-1", {0: "0-1", 1: ""}, range(2), {0: {0, 1}}),
        ("0-1", {0: "0-3", 1: "4-7"}, {1, 4, 6}, {0: {1}, 1: {4, 6}}),  # the others are offline
        ("0-1", {0: "0-3", 1: "4-7"}, {4, 5}, {1: {4, 5}}),  # taskset, or a cpuset of one node
    ],
    ids=["one node", "two", "four with holes", "one without processors", "two, but one without", "offline", "one allowed"],
)
def test_nodes_with_processors_of_ours_are_found(
    tmp_path: Path, online: str, processors: dict[int, str], allowed: set[int], expected: dict[int, set[int]]
) -> None:
    found = read_topology(tree(tmp_path / "node", online, processors), frozenset(allowed))
    assert found.processors == expected
    assert found.has_several_nodes == (len(expected) > 1)
    for node, members in expected.items():
        assert {found.node_of(processor) for processor in members} == {node}
    assert found.node_of(99) is None


@pytest.mark.parametrize("damage", ["no sys", "no online", "no cpulist", "nonsense"])
def test_what_cannot_be_read_counts_as_one_node(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "node"
    if damage != "no sys":
        tree(root, "0-1" if damage != "nonsense" else "all of them", {0: "0-1", 1: "2-3"})
    if damage == "no online":
        (root / "online").unlink()
    if damage == "no cpulist":
        (root / "node1" / "cpulist").unlink()
    assert not read_topology(root, {0, 1, 2, 3}).has_several_nodes


def test_this_machine_is_understood() -> None:
    assert current_processor() in os.sched_getaffinity(0)
    found = read_topology()
    assert set().union(*found.processors.values()) <= os.sched_getaffinity(0)


class Machine:
    """What Placement sees of a machine, and what it does with it."""

    def __init__(self, topology: Topology, *, refuses: bool = False) -> None:
        self.processor = 0
        self.now_s = 100.0
        self.looks = 0
        self.moves: list[frozenset[int]] = []
        self.refuses = refuses
        self.placement = Placement(topology, processor=self.look, move=self.move, clock=lambda: self.now_s)

    def look(self) -> int:
        self.looks += 1
        return self.processor

    def move(self, thread: int, processors: frozenset[int]) -> None:
        assert thread == 0  # the one that calls
        self.moves.append(processors)
        if self.refuses:
            raise OSError(22, "Invalid argument")

    def work(self, count: int = 1) -> None:
        """Run something in a thread *count* times."""

        async def run() -> None:
            for number in range(count):
                assert await self.placement.run_sync(lambda value: value + 1, number) == number + 1

        trio.run(run)


def test_threads_work_on_the_node_of_the_serving_thread() -> None:
    machine = Machine(TWO_NODES)
    machine.processor = 3
    machine.work(50)
    assert machine.moves == [frozenset({2, 3})]  # one thread, once: it stays there
    assert machine.looks == 1


def test_they_follow_when_it_moves_and_that_is_looked_for_rarely() -> None:
    machine = Machine(TWO_NODES)
    machine.work(5)
    machine.processor = 2
    machine.work(5)
    assert (machine.moves, machine.looks) == ([frozenset({0, 1})], 1)
    machine.now_s += FOLLOW_S
    machine.work(5)
    assert (machine.moves, machine.looks) == ([frozenset({0, 1}), frozenset({2, 3})], 2)
    machine.processor = 3  # another processor, the same node
    machine.now_s += FOLLOW_S
    machine.work(5)
    assert (len(machine.moves), machine.looks) == (2, 3)


@pytest.mark.parametrize("topology", [Topology({}), Topology({0: frozenset({0, 1})})])
def test_nothing_at_all_happens_on_one_node(topology: Topology) -> None:
    machine = Machine(topology)
    machine.work(5)
    assert (machine.moves, machine.looks) == ([], 0)


def test_a_processor_that_is_not_ours_moves_nothing() -> None:
    machine = Machine(TWO_NODES)
    machine.processor = 99
    machine.work(2)
    assert machine.moves == []


def test_a_machine_that_refuses_is_left_alone() -> None:
    """A cpuset that was made smaller since: the kernel has moved all threads by itself."""
    machine = Machine(TWO_NODES, refuses=True)
    machine.work(5)
    assert len(machine.moves) == 1


def test_what_the_function_raises_comes_through() -> None:
    def fail() -> None:
        raise ValueError("mine")

    for topology in (TWO_NODES, Topology({})):
        with pytest.raises(ValueError, match="mine"):
            trio.run(Machine(topology).placement.run_sync, fail)


REALLY = """
import os, sys, trio
from razortools.service.placement import Placement, Topology
ours = sorted(os.sched_getaffinity(0))
topology = Topology({number: frozenset({processor}) for number, processor in enumerate(ours)})
here = ours[0]
now = 0.0
placement = Placement(topology, processor=lambda: here, clock=lambda: now)
async def run():
    global here, now
    for here in ours:
        now += 10
        assert await placement.run_sync(os.sched_getaffinity, 0) == {here}
    assert os.sched_getaffinity(0) == set(ours)  # who serves goes where the kernel likes
trio.run(run)
"""


def test_threads_are_really_moved_and_the_serving_thread_is_not() -> None:
    subprocess.run([sys.executable, "-c", REALLY], check=True)


def test_the_mounts_own_placement_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(*_: object) -> None:
        raise AssertionError("moved on a machine of one node")

    original: Callable[..., Topology] = read_topology
    root = tree(tmp_path / "node", "0", {0: "0-1023"})
    monkeypatch.setattr(placement, "read_topology", lambda: original(root))
    monkeypatch.setattr(os, "sched_setaffinity", never)
    monkeypatch.setattr(placement, "_placement", None)
    placement.start()
    assert trio.run(placement.run_sync, len, "four") == 4
