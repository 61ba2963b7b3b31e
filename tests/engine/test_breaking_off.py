"""Something fails where nothing can: no memory, a bug. What was acknowledged stays, and nothing is built upon half a change."""

from collections.abc import Callable

import pytest

from razortools.engine import namespace
from razortools.engine.store import checkpoint
from razortools.engine.store import commit as commits
from razortools.engine.store.journal import Journal
from razortools.engine.store.pages import MemoryDevice
from razortools.engine.store.store import Store
from razortools.engine.store.tree import Tree
from razortools.engine.volume import Volume
from razortools.errors import ReadOnly
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB
from tests.engine.data_volumes import formatted, open_again
from tests.workload import everything

FILES = 300


class NoMemory(MemoryError):
    """Raised once, where a test says."""


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Let *name* of *owner* raise the next time it is called, and work again after that."""
    real = getattr(owner, name)

    def failing(*arguments: object) -> object:
        monkeypatch.setattr(owner, name, real)
        raise NoMemory("no memory")

    monkeypatch.setattr(owner, name, failing)


def acknowledged() -> tuple[MemoryDevice, Volume, dict[bytes, object]]:
    """A volume with files that were synced, and what it holds."""
    device = formatted(MemoryDevice(32 * MIB))
    volume = open_again(device)
    for number in range(FILES):
        namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 0, 0)
    volume.commit()
    return device, volume, everything(volume)


def assert_it_ends_well(device: MemoryDevice, volume: Volume, expected: dict[bytes, object]) -> None:
    """It is read-only and says why, can be closed, and everything that was acknowledged is there, also after a power cut."""
    assert volume.read_only and "no memory" in volume.store.failure
    with pytest.raises(ReadOnly, match="no memory"):
        namespace.mkdir(volume, ROOT_INODE, b"more", 0o755, 0, 0)
    with pytest.raises(ReadOnly):
        volume.commit()
    assert everything(open_again(device.copy())) == expected
    volume.close()
    assert everything(open_again(device)) == expected


def test_a_leaf_that_cannot_be_encoded_for_the_operation_that_changes_it_is_in_the_checkpoint_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The operation was refused, and the checkpoint went on without the leaf: its superblock named what was never written."""
    device, volume, expected = acknowledged()
    flight = volume.begin_checkpoint()
    assert flight is not None
    fail_once(monkeypatch, checkpoint, "encode_node")
    with pytest.raises(NoMemory):
        namespace.unlink(volume, ROOT_INODE, b"file 7")
    flight.prepare()
    flight.run()
    volume.settle()
    assert_it_ends_well(device, volume, expected)


def test_a_commit_that_stops_before_it_is_written_leaves_no_hole_for_others_to_stand_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It had taken its place in the journal. What was synced afterwards was acknowledged, and lost by a power cut."""
    device, volume, expected = acknowledged()
    namespace.create(volume, ROOT_INODE, b"two", 0o644, 0, 0)
    fail_once(monkeypatch, commits, "FrozenCommit")
    with pytest.raises(NoMemory):
        volume.commit()
    assert_it_ends_well(device, volume, expected)


def many(volume: Volume) -> None:
    for number in range(FILES):
        namespace.create(volume, ROOT_INODE, b"another %d" % number, 0o644, 0, 0)




def away(volume: Volume) -> None:
    for number in range(FILES):
        namespace.unlink(volume, ROOT_INODE, b"file %d" % number)


@pytest.mark.parametrize(
    ("owner", "name", "do"),
    [(Journal, "encode_part", many), (Store, "finish", many), (Tree, "put", many), (Tree, "delete", away), (Tree, "cut", away)],
    ids=["a part of the journal", "the end of an operation", "an item", "one less", "several less"],
)
def test_an_operation_that_cannot_be_finished_is_the_last_one(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, do: Callable[[Volume], None]
) -> None:
    """It was under way for ever: every later one, each commit and the unmount failed by it, and nothing told why."""
    device, volume, expected = acknowledged()
    fail_once(monkeypatch, owner, name)
    with pytest.raises(NoMemory):
        do(volume)
    assert_it_ends_well(device, volume, expected)


def test_an_operation_that_cannot_be_taken_back_is_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    device, volume, expected = acknowledged()
    fail_once(monkeypatch, Store, "rollback")
    with pytest.raises(NoMemory), volume.operation(3, ROOT_INODE):  # type: ignore[arg-type]
        raise ZeroDivisionError
    assert_it_ends_well(device, volume, expected)


def test_what_fails_behind_a_stable_checkpoint_is_told_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what follows had been done. The volume took changes all the same, and who asked again heard that it was well."""
    device, volume, expected = acknowledged()
    fail_once(monkeypatch, checkpoint, "finish")
    flight = volume.begin_checkpoint()
    assert flight is not None
    with pytest.raises(NoMemory):
        volume.settle()
    with pytest.raises(NoMemory):
        flight.settle()
    assert_it_ends_well(device, volume, expected)
