"""A damaged image in a file, and what stands in for a repair of it: enough of one to write it out and take it back."""

from dataclasses import replace
from pathlib import Path

from razortools.check.repair.write_out import Written, write_out
from razortools.engine.store.device import Device, open_image
from razortools.engine.store.pages import OverlayDevice
from razortools.engine.store.recovery import open_store
from razortools.format.inode import Inode
from razortools.format.keys import inode_key
from razortools.format.superblock import State
from tests.check.editing import edit_inode, find_inode
from tests.check.samples import healthy


def damaged() -> Device:
    """Return the sample with a wrong link count."""
    device = healthy()
    edit_inode(device, find_inode(device, "/docs/one"), link_count=7)
    return device


def damaged_file(path: Path) -> bytes:
    """Put the damaged sample into a file; return its bytes."""
    device = damaged()
    raw = device.read(0, device.size_bytes)
    path.write_bytes(raw)
    return raw


def mend(overlay: OverlayDevice) -> None:
    """Replay the journal, set the link count right, end with one checkpoint."""
    store, _ = open_store(overlay)
    key = inode_key(find_inode(overlay, "/docs/one"))
    value = store.tree.get(key)
    assert value is not None
    store.tree.put(key, replace(Inode.decode(value), link_count=1).encode())
    assert store.room.holds_tree()
    store.checkpoint(store.superblock.written_at_ns, state=State.CLEAN, error_count=0)


def repair_file(path: Path, undo_path: Path | None = None) -> tuple[Written, bytes]:
    """Repair the image in a file; return what was done, and what the file must hold now."""
    with open_image(path, writable=True) as image:
        overlay = OverlayDevice(image)
        mend(overlay)
        wanted = overlay.read(0, overlay.size_bytes)
        return write_out(overlay, image, str(undo_path or default_undo(path))), wanted


def default_undo(path: Path) -> Path:
    """Return where the undo file usually lies."""
    return path.with_name(path.name + ".undo")
