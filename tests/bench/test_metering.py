"""What counting costs: the pump that does not count is the other one in everything else."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from bench.metering import BarePump, Rig, requests, without_counting
from razortools.engine import files, namespace
from razortools.engine.create import create, plan_create
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from razortools.service.pump import Pump
from razortools.service.wire import HEAD, Opcode
from razortools.units import KIB, MIB, InodeNo


@dataclass
class Begun:
    """Stands for a nursery."""

    tasks: list[Callable[..., object]] = field(default_factory=list)

    def start_soon(self, task: Callable[..., object], *_: object) -> None:
        self.tasks.append(task)


@pytest.fixture
def volume() -> Volume:
    device = MemoryDevice(64 * MIB)
    create(device, plan_create(64 * MIB))
    return open_volume(device)


@pytest.fixture
def ino(volume: Volume) -> InodeNo:
    number = namespace.create(volume, ROOT_INODE, b"file", 0o644, 0, 0)
    files.write(volume, number, 0, b"x" * 64 * KIB)
    return number


def ask(rig: Rig, pump: Pump, request: tuple[int, int, bytes], begun: Begun) -> None:
    opcode, node, body = request
    rig.kernel.send(HEAD.pack(HEAD.size + len(body), opcode, 1, node, 0, 0, 1, 0, 0) + body)
    pump._answer(rig.channel.receive(), 0, cast(Any, begun))


def test_one_pump_counts_and_the_other_does_not_and_both_answer_the_same(volume: Volume, ino: InodeNo) -> None:
    rig, begun = Rig(volume), Begun()
    for request in requests(ino).values():
        replies = []
        for pump in rig.pumps.values():
            ask(rig, pump, request, begun)
            replies.append(rig.kernel.recv(64 * KIB))
        assert replies[0] == replies[1]
        counted = {name: len(pump.tally.lately[request[0]]) for name, pump in rig.pumps.items()}
        assert counted == {"without": 0, "with": 1}
    assert begun.tasks == []


@pytest.mark.parametrize("which", ["without", "with"])
def test_either_holds_back_what_changes_the_tree_when_too_much_is_dirty(volume: Volume, which: str) -> None:
    rig, begun = Rig(volume), Begun()
    pump = rig.pumps[which]
    pump._served.holds_back = True
    ask(rig, pump, (Opcode.UNLINK, ROOT_INODE, b"absent\0"), begun)
    assert len(begun.tasks) == 1
    pump._served.holds_back = False
    ask(rig, pump, (Opcode.UNLINK, ROOT_INODE, b"absent\0"), begun)
    assert len(begun.tasks) == 1


def test_nothing_but_counting_is_left_out() -> None:
    whole, bare = Pump._answer.__code__, BarePump._answer.__code__
    assert set(whole.co_names) - set(bare.co_names) == {"_note", "_slow_ns", "_complain", "_end"}
    assert set(bare.co_names) <= set(whole.co_names)
    assert set(whole.co_varnames) - set(bare.co_varnames) == {"took_ns"}


class Example:
    """A method that counts as the pump's does."""

    def answer(self, now: int, took_ns: int) -> int:
        if now:
            took_ns = now - 1
            self._note[now](took_ns)  # type: ignore[attr-defined]
            if took_ns >= self._slow_ns:  # type: ignore[attr-defined]
                self._complain()  # type: ignore[attr-defined]
            return now
        return took_ns


def test_what_is_made_is_the_text_that_is_there_without_its_counting() -> None:
    assert without_counting(Example.answer)(None, 3, 7) == 3
    assert without_counting(Example.answer)(None, 0, 7) == 7
