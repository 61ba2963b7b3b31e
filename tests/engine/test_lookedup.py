"""Names that were looked up are remembered until they change, even among names whose hashes are equal or next to each other."""

import random

import pytest

from razortools.engine import directories, lookedup, namespace, orphans
from razortools.engine.names import NO_ID
from razortools.engine.volume import Volume
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import HASH_MIN
from razortools.units import InodeNo
from tests.engine.tree_rules import check_rules
from tests.engine.volumes import new_volume

NAMES = [b"%d" % number for number in range(12)]


def crowded(monkeypatch: pytest.MonkeyPatch) -> Volume:
    """Return a volume in which the hashes of NAMES lie in three neighbouring places."""
    volume = new_volume()
    monkeypatch.setattr(volume.names, "known", lambda name: (HASH_MIN + int(name) % 3, NO_ID))
    return volume


@pytest.mark.parametrize("seed", range(5))
def test_a_remembered_answer_is_the_one_that_a_search_would_give(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    monkeypatch.setattr(lookedup, "KEPT_MAX", 5)
    volume = crowded(monkeypatch)
    truth: dict[bytes, InodeNo] = {}
    for _ in range(800):
        name, other = chance.sample(NAMES, 2)
        for asked in chance.sample(NAMES, 3):
            assert directories.find_inode(volume, ROOT_INODE, asked) == truth.get(asked)
        step = chance.randrange(5)
        if step < 2 and name not in truth:
            truth[name] = namespace.create(volume, ROOT_INODE, name, 0o644, 0, 0)
        elif step == 2 and name in truth:
            namespace.unlink(volume, ROOT_INODE, name)
            del truth[name]
        elif step == 3 and name in truth:
            namespace.rename(volume, ROOT_INODE, name, ROOT_INODE, other)
            truth[other] = truth.pop(name)
        elif name in truth and other in truth:
            namespace.rename(volume, ROOT_INODE, name, ROOT_INODE, other, namespace.RENAME_EXCHANGE)
            truth[name], truth[other] = truth[other], truth[name]
    check_rules(volume)
    assert {name: ino for name in NAMES if (ino := directories.find_inode(volume, ROOT_INODE, name))} == truth


def test_what_an_operation_made_is_forgotten_when_it_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = new_volume()
    ino = namespace.create(volume, ROOT_INODE, b"a", 0o644, 0, 0)
    assert namespace.lookup(volume, ROOT_INODE, b"a") == ino

    def failing(*_: object) -> None:
        assert directories.find(volume, ROOT_INODE, b"a") is None  # asked in the middle, when its entry is gone
        raise RuntimeError

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(orphans, "drop_link", failing)
        namespace.unlink(volume, ROOT_INODE, b"a")
    assert namespace.lookup(volume, ROOT_INODE, b"a") == ino


def test_an_abort_forgets_all_of_it() -> None:
    volume = new_volume()
    namespace.create(volume, ROOT_INODE, b"a", 0o644, 0, 0)
    namespace.lookup(volume, ROOT_INODE, b"a")
    volume.abort()
    assert directories.find(volume, ROOT_INODE, b"a") is None
