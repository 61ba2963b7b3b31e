"""Who the filesystem is: label, uuid. A change is one write of a superblock slot: before or after, never between."""

import argparse
import uuid

from razortools.debug.answers import Answer, Lines
from razortools.debug.session import Command, Session, Words, change
from razortools.engine.store.nodes import Ref
from razortools.engine.store.store import Store
from razortools.engine.volume import Volume
from razortools.errors import OutOfSpace, UsageError
from razortools.format.admin import Action
from razortools.format.superblock import LABEL_BYTES_MAX


def label_or_relabel(session: Session, options: argparse.Namespace) -> Answer:
    """label: the label, or another one."""
    if options.label is not None:
        return change(session, options, set_label, "label")
    label = session.superblock().label.rstrip(b"\0").decode("utf-8", "replace")
    return Lines([label or "(none)"], {"label": label})


def set_label(session: Session, options: argparse.Namespace) -> Answer:
    """relabel: another label."""
    raw = options.label.encode("utf-8", "surrogateescape")
    if len(raw) > LABEL_BYTES_MAX or b"\0" in raw or "\udc80" <= max(options.label, default="") <= "\udcff":
        raise UsageError(f"a label is UTF-8 of at most {LABEL_BYTES_MAX} bytes")
    volume = session.volume
    volume.checkpoint()
    volume.store.mark(volume.now_ns(), label=raw.ljust(LABEL_BYTES_MAX, b"\0"), **volume.noted(Action.LABEL))
    return Lines([f"label: {options.label or '(none)'}"], {"label": options.label})


def uuid_or_new_uuid(session: Session, options: argparse.Namespace) -> Answer:
    """uuid: the UUID, or another one."""
    if options.uuid is not None:
        return change(session, options, set_uuid, "uuid")
    text = str(uuid.UUID(bytes=session.superblock().uuid))
    return Lines([text], {"uuid": text})


def set_uuid(session: Session, options: argparse.Namespace) -> Answer:
    """newuuid: another UUID. Every node carries a part of it, so the whole tree is written anew, beside the old one."""
    try:
        made = uuid.uuid4() if options.uuid == "random" else uuid.UUID(options.uuid)
    except ValueError:
        raise UsageError(f"{options.uuid} is not a UUID; write one, or random") from None
    volume = session.volume
    volume.checkpoint()
    become(volume, made.bytes)
    return Lines([f"uuid: {made}"], {"uuid": str(made)})


def become(volume: Volume, identity: bytes) -> None:
    """Write the whole tree for another UUID, and the superblock that names it. Raises OutOfSpace; nothing has changed then."""
    store = volume.store
    if not store.pool.reserve(store.tree.node_count):
        raise OutOfSpace(f"{store.device.name}: no room to write the tree anew beside the old one; delete something first")
    _make_dirty(store, store.tree.root, store.tree.root_level)
    store.nodes.tag = int.from_bytes(identity[:8], "little")
    store.journal.begin_anew()
    store.checkpoint(volume.now_ns(), uuid=identity, **volume.noted(Action.UUID))
    store.journal.adopt(identity)
    store.checkpoint(volume.now_ns())  # so that the other slot says the same


def _make_dirty(store: Store, ref: Ref, level: int) -> None:
    """Bring the node of *ref* and all below it into memory, as if they had changed."""
    node = store.nodes.load(ref, level)
    if node.raw is not None:
        store.nodes.unpack(node)
    if not node.dirty:
        node.dirty = True
        store.tree.dirty_count += 1
    for child in node.children:
        _make_dirty(store, child, level - 1)


_LABEL = Words("label")
_LABEL.add_argument("label", nargs="?", metavar="LABEL", help="the new label, with -w; without it the present one is shown")
_RELABEL = Words("relabel")
_RELABEL.add_argument("label", metavar="LABEL")
_UUID = Words("uuid")
_UUID.add_argument("uuid", nargs="?", metavar="UUID", help="the new one, or random, with -w; without it the present one is shown")
_NEWUUID = Words("newuuid")
_NEWUUID.add_argument("uuid", metavar="UUID", help="or random")

COMMANDS = (
    Command("label", "show the label, or change it", _LABEL, label_or_relabel, ("label", "label backup")),
    Command("relabel", "change the label", _RELABEL, set_label, ("relabel backup",), writes=True),
    Command("uuid", "show the UUID, or change it", _UUID, uuid_or_new_uuid, ("uuid", "uuid random")),
    Command(
        "newuuid",
        "change the UUID, of a copy for instance; writes the tree anew",
        _NEWUUID,
        set_uuid,
        ("newuuid random",),
        writes=True,
    ),
)
