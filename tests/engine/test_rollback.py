"""Whatever fails while an operation changes the tree: nothing of it stays, in the tree or in memory, and trying again works."""

from collections.abc import Callable

import pytest

from razortools.engine import namespace, xattrs
from razortools.engine.namespace import RENAME_EXCHANGE, AttributeChange
from razortools.engine.volume import Volume
from razortools.errors import DeviceFailed
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB
from tests.engine.tree_rules import check_rules
from tests.engine.volumes import items, new_volume

R = ROOT_INODE
D, E, F, G = 2, 3, 4, 5  # /d, /e, /f, /d/g: the inodes of the tree below

OPERATIONS: dict[str, Callable[[Volume], object]] = {
    "create": lambda volume: namespace.create(volume, D, b"new", 0o644, 1, 2),
    "mkdir": lambda volume: namespace.mkdir(volume, D, b"new", 0o755, 1, 2),
    "symlink": lambda volume: namespace.symlink(volume, D, b"new", b"t" * 10, 1, 2),
    "symlink in blocks": lambda volume: namespace.symlink(volume, D, b"new", b"t" * 4000, 1, 2),
    "link": lambda volume: namespace.link(volume, F, D, b"new"),
    "unlink": lambda volume: namespace.unlink(volume, R, b"f"),
    "unlink held": lambda volume: namespace.unlink(volume, D, b"g"),
    "rmdir": lambda volume: namespace.rmdir(volume, R, b"e"),
    "rename": lambda volume: namespace.rename(volume, R, b"f", D, b"new"),
    "rename over": lambda volume: namespace.rename(volume, R, b"f", D, b"g"),
    "rename a directory": lambda volume: namespace.rename(volume, R, b"e", D, b"new"),
    "exchange": lambda volume: namespace.rename(volume, R, b"e", D, b"g", RENAME_EXCHANGE),
    "setattr": lambda volume: namespace.setattr(volume, F, AttributeChange(mode=0o600, uid=5)),
    "setxattr": lambda volume: xattrs.set(volume, F, b"user.new", b"value"),
    "setxattr in blocks": lambda volume: xattrs.set(volume, F, b"user.new", bytes(range(256)) * 256),
    "setxattr in place of blocks": lambda volume: xattrs.set(volume, F, b"user.large", bytes(range(255)) * 200),
    "removexattr": lambda volume: xattrs.remove(volume, F, b"user.large"),
}


def a_volume() -> Volume:
    volume = new_volume(8 * MIB)  # small nodes: long targets go into blocks
    assert namespace.mkdir(volume, R, b"d", 0o755, 0, 0) == D
    assert namespace.mkdir(volume, R, b"e", 0o755, 0, 0) == E
    assert namespace.create(volume, R, b"f", 0o6755, 0, 0) == F
    assert namespace.create(volume, D, b"g", 0o644, 0, 0) == G
    namespace.hold(volume, G)
    xattrs.set(volume, F, b"user.large", bytes(range(256)) * 100)
    xattrs.set(volume, D, xattrs.COMPRESSION, b"lz4")
    volume.checkpoint()
    return volume


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_that_fails_anywhere_leaves_no_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = OPERATIONS[name]
    volume = a_volume()
    before, counters = items(volume), volume.counters.encode()
    true_put, true_delete, true_write = volume.store.put, volume.store.delete, volume.store.write_blocks
    failures = 0
    while True:
        left = failures

        def failing(step: Callable[..., None]) -> Callable[..., None]:
            def wrapped(*arguments: object) -> None:
                nonlocal left
                if left == 0:
                    raise DeviceFailed("the disk is gone")
                left -= 1
                step(*arguments)

            return wrapped

        monkeypatch.setattr(volume.store, "put", failing(true_put))
        monkeypatch.setattr(volume.store, "delete", failing(true_delete))
        monkeypatch.setattr(volume.store, "write_blocks", failing(true_write))
        try:
            operation(volume)
        except DeviceFailed:
            failures += 1
        else:
            break
        finally:
            monkeypatch.undo()
        assert items(volume) == before
        assert volume.counters.encode() == counters
        assert not volume.store.maps.unclaimed, "blocks that nothing names were not given back"
        check_rules(volume)
    assert 1 <= failures <= 13, "the store makes room for 13 changed keys an operation"
    assert items(volume) != before
    check_rules(volume)
