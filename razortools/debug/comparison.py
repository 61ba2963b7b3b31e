"""Comparing: diff (with another image), history (with an older checkpoint that is still on the disk).

Two images are compared path by path. Two checkpoints of one image are compared item by item: nodes are written once and never
changed, so only leaves that one of the trees alone has can differ, and an older tree that was overwritten in part tells the rest.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from razortools.debug.answers import Answer, Lines, Several, Table
from razortools.debug.arguments import count
from razortools.debug.opening import look_into
from razortools.debug.rawtree import RawTree
from razortools.debug.session import Command, Session, Words
from razortools.debug.shown import show_time
from razortools.debug.structures import copy_name
from razortools.debug.transactions import scan_journal
from razortools.debug.values import changed_fields, item_data, show_key, shown_item
from razortools.debug.walking import Found, walk
from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import open_image
from razortools.engine.store.superblocks import find_copies
from razortools.errors import CorruptImage, RazorError, UsageError
from razortools.format.directory import BackLink
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import Kind, kind_range, name_key, object_of
from razortools.format.keys import Table as KeyTable
from razortools.format.name import Name
from razortools.format.superblock import Superblock
from razortools.printable import printable_name
from razortools.units import MIB, InodeNo, NameId

PIECE_BYTES = 1 * MIB
DEPTH_MAX = 4096  # directories above a path; an older tree may be a circle where it was overwritten
_COMPARED = ("mode", "uid", "gid", "size", "mtime_ns", "rdev")  # what makes a file another one, but for its contents


def show_diff(session: Session, options: argparse.Namespace) -> Answer:
    """diff: which paths are only here, only in the other image, or differ, and in what."""
    other_device = open_image(options.image, writable=False)
    other = look_into(other_device, writable=False)
    try:
        found = list(_differences(session, other, os.fsdecode(session.absolute(options.path))))
    finally:
        other.close()
    signs = {"removed": "-", "added": "+", "changed": "M"}
    lines = [f"{signs[one['change']]} {printable_name(one['path'])}{_shown_what(one)}" for one in found]
    lines.append(f"{len(found)} differences" if found else "no difference")
    return Lines(lines, {"other": options.image, "differences": found})


def _shown_what(one: dict[str, Any]) -> str:
    return f": {', '.join(one['what'])}" if "what" in one else ""


def _differences(session: Session, other: Session, path: str) -> Iterator[dict[str, Any]]:
    """Yield what differs below *path*; added is what only the other image has. Both sides are walked in the same order."""
    mine, theirs = walk(session, path), walk(other, path)
    one, two = next(mine, None), next(theirs, None)
    while one is not None or two is not None:
        if two is None or (one is not None and _order(one) < _order(two)):
            assert one is not None
            yield {"change": "removed", "path": one.path}
            one = next(mine, None)
        elif one is None or _order(two) < _order(one):
            yield {"change": "added", "path": two.path}
            two = next(theirs, None)
        else:
            what = _what_differs(session, one, other, two)
            if what:
                yield {"change": "changed", "path": one.path, "what": what}
            one, two = next(mine, None), next(theirs, None)


def _order(found: Found) -> list[bytes]:
    return found.path.split(b"/") if found.path != b"/" else [b""]


def _what_differs(session: Session, one: Found, other: Session, two: Found) -> list[str]:
    """Return what two files of the same path differ in."""
    old, new = one.inode, two.inode
    if old is None or new is None:
        return ["cannot be read"] if one.fault != two.fault else []
    names = [name for name in _COMPARED if getattr(old, name) != getattr(new, name) and not (name == "size" and old.is_directory)]
    try:
        if _attributes(session, one.ino) != _attributes(other, two.ino):
            names.append("xattrs")
        if old.is_symlink and new.is_symlink:
            if namespace.readlink(session.volume, one.ino) != namespace.readlink(other.volume, two.ino):
                names.append("target")
        elif old.is_regular and new.is_regular and old.size == new.size and not _same_contents(session, one, other, two):
            names.append("contents")
    except RazorError as broken:
        names.append(f"cannot be compared: {broken}")
    return names


def _attributes(session: Session, ino: InodeNo) -> dict[bytes, bytes]:
    return {name: xattrs.get(session.volume, ino, name) for name in xattrs.names(session.volume, ino)}


def _same_contents(session: Session, one: Found, other: Session, two: Found) -> bool:
    """Return whether two files of equal size hold the same bytes."""
    assert one.inode is not None
    return all(
        files.read(session.volume, one.ino, at, PIECE_BYTES) == files.read(other.volume, two.ino, at, PIECE_BYTES)
        for at in range(0, one.inode.size, PIECE_BYTES)
    )


def show_history(session: Session, options: argparse.Namespace) -> Answer:
    """history: the checkpoints that superblocks still name, and the transactions since; or what changed since one of them."""
    found = _checkpoints(session)
    if options.generation is not None:
        if options.generation not in found:
            told = ", ".join(map(str, sorted(found)))
            raise UsageError(f"history: no superblock names generation {options.generation}; there are {told}")
        return _changes_since(session, found[options.generation][0], session.superblock())
    rows, data = [], []
    for generation in sorted(found):
        superblock, places = found[generation]
        lost = sum(node.header is None for node in RawTree(session.device, superblock).walk())
        state = "whole" if not lost else f"{lost} nodes overwritten"
        rows.append((generation, show_time(superblock.written_at_ns), superblock.transaction, ", ".join(places), state))
        facts = {"generation": generation, "written_at_ns": superblock.written_at_ns, "transaction": superblock.transaction}
        data.append({**facts, "places": places, "lost_nodes": lost})
    transactions = scan_journal(session).transactions
    since = [
        f"transaction {one.number}, committed {show_time(one.commit.committed_at_ns)}, {len(one.entries)} entries"
        for one in transactions
    ]
    table = Table(("generation", "written", "transaction", "superblocks", "its tree"), rows, None, right=(0, 2))
    lines = ["", *(since or ["no transaction since the last checkpoint"])]
    numbers = [{"number": one.number, "committed_at_ns": one.commit.committed_at_ns} for one in transactions]
    return Several([table, Lines(lines)], {"checkpoints": data, "transactions": numbers})


def _checkpoints(session: Session) -> dict[int, tuple[Superblock, list[str]]]:
    """Return the generations that superblocks name, and which ones do."""
    found: dict[int, tuple[Superblock, list[str]]] = {}
    for number, copy in enumerate(find_copies(session.device)):
        if copy.superblock is not None:
            found.setdefault(copy.superblock.generation, (copy.superblock, []))[1].append(copy_name(number))
    return found


@dataclass(frozen=True, slots=True)
class ItemChange:
    """An item that differs between two checkpoints. None: it is absent there."""

    key: bytes
    before: bytes | None
    after: bytes | None


def _changes_since(session: Session, old: Superblock, new: Superblock) -> Answer:
    """Return what changed between two checkpoints, inode by inode."""
    before, after = RawTree(session.device, old), RawTree(session.device, new)
    lines: list[str] = []
    data: list[dict[str, Any]] = []
    path, owner = "", -1
    for change in item_changes(before, after):
        number = object_of(change.key)
        if change.key[0] in (KeyTable.FILES, KeyTable.ORPHANS, KeyTable.PATCHES) and number != owner:
            owner = number
            path = printable_name(_path_in(after, InodeNo(number)) or _path_in(before, InodeNo(number)) or b"(no name)")
            lines.append(f"inode {number} {path}")
        lines += [f"  {line}" for line in _shown_change(change)]
        told = {"before": item_data(change.key, change.before), "after": item_data(change.key, change.after)}
        data.append({"key": show_key(change.key), "path": path if change.key[0] == KeyTable.FILES else None, **told})
    lines.append(f"{len(data)} items changed from generation {old.generation} to {new.generation}")
    lost = sum(node.header is None for tree in (before, after) for node in tree.walk())
    if lost:
        lines.append(f"{lost} nodes cannot be read any more: what stands in them is missing, or told as new or gone")
    return Lines(lines, {"from": old.generation, "to": new.generation, "changes": data, "lost_nodes": lost})


def _shown_change(change: ItemChange) -> list[str]:
    key = show_key(change.key)
    if change.before is None:
        return [f"+ {key}: {shown_item(change.key, change.after)}"]
    if change.after is None:
        return [f"- {key}: {shown_item(change.key, change.before)}"]
    fields = changed_fields(change.key, change.before, change.after)
    return [f"M {key}", *(f"    {name}: {old} -> {new}" for name, old, new in fields)]


def item_changes(before: RawTree, after: RawTree) -> Iterator[ItemChange]:
    """Yield the items that differ, in the order of their keys. Only what is in leaves of one tree alone is held in memory."""
    old = dict(_own_items(before, after))
    new = dict(_own_items(after, before))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield ItemChange(key, old.get(key), new.get(key))


def _own_items(tree: RawTree, other: RawTree) -> Iterator[tuple[bytes, bytes]]:
    """Yield the items of leaves that the other tree does not have."""
    shared = {(node.pointer.address, node.pointer.crc32c) for node in other.walk()}
    for node in tree.walk():
        if node.level == 0 and (node.pointer.address, node.pointer.crc32c) not in shared:
            yield from zip(node.keys, node.values, strict=True)


def _path_in(tree: RawTree, ino: InodeNo) -> bytes | None:
    """Return a path that leads to an inode in *tree*, None if that cannot be told."""
    parts: list[bytes] = []
    for _ in range(DEPTH_MAX):
        if ino == ROOT_INODE:
            return b"/" + b"/".join(reversed(parts))
        try:
            _, value = next(tree.items(*kind_range(ino, Kind.BACK_LINK)))
            link = BackLink.decode(value)
            name = tree.get(name_key(NameId(link.name_id)))
            parts.append(Name.decode(name or b"").text)
        except (StopIteration, CorruptImage):
            return None
        ino = InodeNo(link.parent)
    return None


_DIFF = Words("diff")
_DIFF.add_argument("image", metavar="HOST_PATH", help="the other image")
_DIFF.add_argument("path", nargs="?", default="/", metavar="PATH", help="only what lies here; otherwise everything")
_HISTORY = Words("history")
_HISTORY.add_argument("generation", nargs="?", type=count, metavar="GENERATION", help="tell what changed since this checkpoint")

COMMANDS = (
    Command("diff", "tell what another image has more, less or different", _DIFF, show_diff,
            ("diff backup.img", "diff backup.img /home")),
    Command("history", "show the checkpoints still on the disk, or what changed since one", _HISTORY, show_history,
            ("history", "history 41")),
)  # fmt: skip
