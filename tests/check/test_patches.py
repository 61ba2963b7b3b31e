"""Patches in a repair: bytes that were synced and lie over a record until it is stored anew. They go only if nothing helps."""

import pytest

from razortools.check.comparison import loss
from razortools.check.inventory import take_inventory
from razortools.check.loss import Truncated
from razortools.check.pieces import pieces
from razortools.check.repair.repair import Repaired, Wishes, repair
from razortools.check.runner import Options
from razortools.check.steps import finished
from razortools.engine import files, namespace
from razortools.engine.store.device import Device
from razortools.engine.volume import open_volume
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import inode_key, patch_key
from razortools.units import InodeNo
from tests.check.editing import edit_item, editing, find_inode
from tests.check.samples import Clock, Copy, healthy, opened

OLD, NEW = b"OLD " * 4096, b"NEW"


def patched(size: int = len(OLD), place: int = 100) -> tuple[Device, InodeNo]:
    """Return the sample as a recovery leaves it after /db, of *size* bytes, was changed at *place* and synced; and its inode."""
    device = healthy()
    with opened(device) as volume:
        ino = namespace.create(volume, ROOT_INODE, b"db", 0o644, 1, 2)
        files.write(volume, ino, 0, OLD[:size])
    volume = opened(device)
    files.write(volume, ino, place, NEW)
    volume.commit()
    crashed = Copy(device)
    with editing(crashed):
        pass
    return crashed, ino


def contents(device: Device, ino: InodeNo) -> bytes:
    with open_volume(Copy(device), clock=Clock()) as volume:
        return bytes(files.read(volume, ino, 0, 1 << 20))


def repaired(device: Device) -> Repaired:
    done: Repaired = finished(repair(device, Wishes(check=Options(threads=1))))
    assert done.refused == "" and done.after.clean
    return done


def test_a_patch_with_a_wrong_reserved_byte_stays() -> None:
    device, ino = patched()
    edit_item(device, patch_key(ino, 0), reserved=1)
    done = repaired(device)
    assert contents(done.overlay, ino)[100:103] == NEW
    assert done.loss is not None and done.loss.is_none


@pytest.mark.parametrize("shape", ["missing", "malformed"])
@pytest.mark.parametrize(("size", "place"), [(len(OLD), 100), (10_000, 10_000)], ids=["within", "at the end"])
def test_patches_stay_with_a_file_whose_inode_is_made_anew(shape: str, size: int, place: int) -> None:
    device, ino = patched(size, place)
    before = contents(device, ino)
    with editing(device) as store:
        value = store.tree.get(inode_key(ino))
        store.tree.delete(inode_key(ino))
        if shape == "malformed":
            store.tree.put(inode_key(ino), (value or b"")[:-1])
    done = repaired(device)
    assert contents(done.overlay, ino) == before


def test_a_patch_that_is_dropped_is_told_as_lost_bytes() -> None:
    device, ino = patched()
    before = take_inventory(device)
    dropped = Copy(device)
    with editing(dropped) as store:
        store.tree.delete(patch_key(ino, 0))
    found = loss(before, take_inventory(dropped))
    assert found.truncated == [Truncated("/db", ((0, 512),))]  # a patch holds all of its place, also what did not change
    assert found.harmed == ["/db"]


def test_a_patch_that_cannot_be_read_is_told_when_it_goes() -> None:
    device, ino = patched()
    with editing(device) as store:
        store.tree.put(patch_key(ino, 0), b"")
    done = repaired(device)
    assert done.loss is not None and [one.path for one in done.loss.truncated] == ["/db"]


def test_a_patch_of_a_file_that_is_gone_is_told_when_it_goes() -> None:
    device, _ = patched()
    nobody = InodeNo(1_000_000)
    with editing(device) as store:
        value = store.tree.get(patch_key(find_inode(device, "/db"), 0)) or b""
        store.tree.put(patch_key(nobody, 0), value)
    done = repaired(device)
    assert done.loss is not None and done.loss.lost == [f"<inode {nobody}>"]


def test_patches_lie_over_the_pieces_of_a_file() -> None:
    device, ino = patched()
    found = list(pieces(take_inventory(device), ino))
    assert [(piece.first, piece.is_patch) for piece in found] == [(0, True), (512, False), (8192, False), (16384, False)]
    assert found[-1].behind == 1 << 64
