"""The tree: node, btree, item, inode, strings. Node and btree read the device, so they work when the tree cannot be opened."""

import argparse
import fnmatch
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from razortools.debug.answers import Answer, Lines, Pairs, Several, Table
from razortools.debug.arguments import count, number
from razortools.debug.fields import told_fields
from razortools.debug.rawtree import NodeView, RawTree
from razortools.debug.session import Command, Session, Words, reason_of
from razortools.debug.values import fields_of, item_data, key_range, show_key, shown_field, shown_item
from razortools.engine.store.nodes import judge_node
from razortools.errors import CorruptImage, RazorError, UsageError
from razortools.format.inode import Inode
from razortools.format.items import ITEMS
from razortools.format.keys import KIND_AT, Kind, inode_key, object_of, table_range
from razortools.format.keys import Table as KeyTable
from razortools.format.name import Name
from razortools.format.node import (
    ITEM_OVERHEAD_BYTES,
    NODE_MAGIC,
    ChildPointer,
    NodeHeader,
    decode_header,
    decode_items,
    node_capacity,
    node_checksum,
)
from razortools.printable import printable_name
from razortools.units import plural

LISTED_MAX = 10_000  # items that one answer shows


def show_node(session: Session, options: argparse.Namespace) -> Answer:
    """node: the header and items of the tree node that begins in a block, whether or not a tree names it."""
    superblock = session.superblock()
    offset = options.block * superblock.block_bytes
    raw = session.device.read(offset, superblock.node_bytes)
    if raw[:4] != NODE_MAGIC:
        raise CorruptImage(f"block {options.block}: no node begins here; 'block {options.block}' shows what it holds")
    header = decode_header(raw)
    checksum = node_checksum(raw)
    own = int.from_bytes(raw[4:8], "little")
    verdict = "good" if own == checksum else f"WRONG: {checksum:#010x} found, {own:#010x} expected"
    try:
        keys, values = decode_items(raw, header)
    except CorruptImage as broken:
        keys, values, verdict = [], [], f"{verdict}; {reason_of(broken)}"
    named = _named_by(session, header, raw)
    head: list[tuple[str, object]] = [("checksum", verdict), ("named by", named)]
    head += [(field.name, shown_field(NodeHeader, field.name, getattr(header, field.name))) for field in told_fields(NodeHeader)]
    rows = [(show_key(key), _shown_value(header.level, key, value)) for key, value in zip(keys, values, strict=True)]
    items = [{"key": show_key(key), "value": _value(header.level, key, value)} for key, value in zip(keys, values, strict=True)]
    data = {"block": options.block, "checksum": verdict, "named_by": named, "header": fields_of(header), "items": items}
    return Several([Pairs(head, None), Lines([""]), Table(("key", "value"), rows, None)], data)


def _named_by(session: Session, header: NodeHeader, raw: bytes) -> str:
    """Return whether the last checkpoint's tree names a node, by following its range down."""
    tree = RawTree(session.device, session.superblock())
    for node in tree.walk(header.low, header.low):
        if node.level == header.level and header.address in (node.pointer.address, node.pointer.mirror):
            try:
                judge_node(raw, node.pointer, node.level, tree.tag)
            except CorruptImage as broken:
                return f"the tree, which expects something else: {reason_of(broken)}"
            return "the tree of the last checkpoint"
    return "nothing: it was given up, or never belonged to the tree"


def _value(level: int, key: bytes, value: bytes) -> Any:
    return fields_of(ChildPointer.decode(value)) if level else item_data(key, value)


def _shown_value(level: int, key: bytes, value: bytes) -> str:
    if not level:
        return shown_item(key, value)
    pointer = ChildPointer.decode(value)
    return f"node {pointer.address} mirror {pointer.mirror} generation {pointer.generation} crc32c {pointer.crc32c:#010x}"


def show_btree(session: Session, options: argparse.Namespace) -> Answer:
    """btree: how many nodes each level has, how full they are, what kinds of items there are; with --walk every node."""
    superblock = session.superblock()
    capacity = node_capacity(superblock.node_bytes)
    levels: dict[int, list[float]] = {}
    kinds: Counter[str] = Counter()
    kind_bytes: Counter[str] = Counter()
    nodes: list[dict[str, Any]] = []
    faults: list[dict[str, Any]] = []
    for node in RawTree(session.device, superblock).walk():
        fill = _fill(node, capacity)
        if node.header is not None:
            levels.setdefault(node.level, []).append(fill)
        for block, fault in zip(node.copies, node.faults, strict=True):
            if fault:
                faults.append({"block": block, "level": node.level, "lost": node.header is None, "reason": fault})
        for key, value in zip(node.keys, node.values, strict=True) if node.level == 0 else ():
            kind = kind_name(key[KIND_AT])
            kinds[kind] += 1
            kind_bytes[kind] += len(value)
        if options.walk:
            state = "good" if not any(node.faults) else "LOST" if node.header is None else "one copy"
            nodes.append({
                "level": node.level, "blocks": node.copies, "generation": node.pointer.generation, "items": len(node.keys),
                "fill": fill, "state": state, "from": show_key(node.low),
            })  # fmt: skip
    by_level = [
        {"level": level, "nodes": len(fills), "fill_mean": sum(fills) / len(fills), "fill_least": min(fills)}
        for level, fills in sorted(levels.items(), reverse=True)
    ]
    parts: list[Answer] = [
        Table(
            ("level", "nodes", "mean fill", "least fill"),
            [(one["level"], one["nodes"], f"{one['fill_mean']:.0%}", f"{one['fill_least']:.0%}") for one in by_level],
            None,
            right=(0, 1, 2, 3),
        ),
        Lines([""]),
        Table(("items", "count", "bytes"), [(kind, kinds[kind], kind_bytes[kind]) for kind in sorted(kinds)], None, right=(1, 2)),
    ]
    if options.walk:
        columns = ("level", "blocks", "generation", "items", "fill", "state", "from key")
        rows = [
            tuple((one | {"blocks": ", ".join(map(str, one["blocks"])), "fill": f"{one['fill']:.0%}"}).values()) for one in nodes
        ]
        parts += [Lines([""]), Table(columns, rows, None, right=(0, 2, 3, 4))]
    parts += [Lines([_shown_fault(fault)]) for fault in faults]
    data: dict[str, Any] = {
        "height": superblock.root_level + 1,
        "levels": by_level,
        "items": {kind: {"count": kinds[kind], "bytes": kind_bytes[kind]} for kind in sorted(kinds)},
        "faults": faults,
    }
    if options.walk:
        data["nodes"] = nodes
    return Several(parts, data)


def _shown_fault(fault: dict[str, Any]) -> str:
    which = "node lost, with all below it" if fault["lost"] else "one copy of a node"
    return f"DAMAGED block {fault['block']}, level {fault['level']}: {which}: {fault['reason']}"


def _fill(node: NodeView, capacity: int) -> float:
    return (sum(map(len, node.values)) + ITEM_OVERHEAD_BYTES * len(node.keys)) / capacity


def kind_name(kind: int) -> str:
    """Return what kind of item this is."""
    return Kind(kind).name.lower() if kind in list(Kind) else f"kind {kind:#04x}"


def show_items(session: Session, options: argparse.Namespace) -> Answer:
    """item: all items whose keys begin so, field by field."""
    low, high = key_range(options.key)
    parts: list[Answer] = []
    data: list[dict[str, Any]] = []
    for at, (key, value) in enumerate(_items(session, low, high)):
        if at == LISTED_MAX:
            raise UsageError(f"item: more than {LISTED_MAX} items fit; say more of the key")
        data.append({"key": show_key(key), "hex": key.hex(), "value": item_data(key, value)})
        parts += [Lines([*([""] if at else []), show_key(key)]), _fields_table(key, value)]
    faults = _lost_between(session, low, high)
    parts += [Lines([_shown_fault(fault)]) for fault in faults]
    if faults and not data:
        raise CorruptImage(f"item: what begins with {' '.join(options.key)} cannot be read: {_shown_fault(faults[0])}")
    if not data:
        raise UsageError(f"item: no item has a key that begins with {' '.join(options.key)}")
    return Several(parts, data + faults)


def _items(session: Session, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield items of the filesystem as it is now, or, if it cannot be opened, of the last checkpoint as far as it verifies."""
    if session.has_volume:
        return session.volume.store.items(low, high)
    return RawTree(session.device, session.superblock()).items(low, high)


def _lost_between(session: Session, low: bytes, high: bytes) -> list[dict[str, Any]]:
    """Return the faults of nodes that _items() had to pass over; a filesystem that is open raises where it meets one."""
    if session.has_volume:
        return []
    tree = RawTree(session.device, session.superblock())
    return [
        {"block": node.copies[0], "level": node.level, "lost": True, "reason": node.fault()}
        for node in tree.walk(low, high)
        if node.header is None
    ]


def _fields_table(key: bytes, value: bytes) -> Answer:
    structure = ITEMS.get(key[KIND_AT])
    try:
        if structure is None:
            raise CorruptImage("its kind is unknown")
        item = structure.decode(value)
    except RazorError as broken:
        return Lines([f"  {reason_of(broken)}: {value.hex()}"])
    rows = [
        (f"  {field.name}", shown_field(structure, field.name, getattr(item, field.name)), field.meaning)
        for field in told_fields(structure)
    ]
    return Table(("  field", "value", "meaning"), rows, None)


def show_inode(session: Session, options: argparse.Namespace) -> Answer:
    """inode: every field of an inode, and how many items of each kind belong to it."""
    ino = session.find(options.path)
    key = inode_key(ino)
    value = session.volume.store.get(key)
    if value is None:
        raise CorruptImage(f"inode {ino} is missing from the tree; run razorfsck")
    inode = Inode.decode(value)
    kinds: Counter[str] = Counter()
    for table in (KeyTable.FILES, KeyTable.ORPHANS, KeyTable.PATCHES):
        low, high = key_range([table.name, str(ino)])
        kinds.update(kind_name(found[KIND_AT]) for found, _ in session.volume.store.items(low, high))
    data = {"inode": ino, "fields": fields_of(inode), "items": dict(kinds)}
    belongs = ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds))
    return Several([Lines([f"inode {ino}"]), _fields_table(key, value), Lines([f"items: {belongs}"])], data)


def show_strings(session: Session, options: argparse.Namespace) -> Answer:
    """strings: the string table, or the strings that fit a pattern."""
    rows: list[tuple[int, int, str]] = []
    data = []
    strings = references = text_bytes = 0
    for key, value in _items(session, *table_range(KeyTable.NAMES)):
        name = Name.decode(value)
        strings += 1
        references += name.reference_count
        text_bytes += len(name.text)
        fits = options.pattern is None or fnmatch.fnmatchcase(os.fsdecode(name.text), options.pattern)
        if fits and name.reference_count >= options.shared and len(rows) < LISTED_MAX:
            rows.append((object_of(key), name.reference_count, printable_name(name.text)))
            data.append({"id": object_of(key), "references": name.reference_count, "text": name.text})
    summary = f"{plural(strings, 'string')}, {plural(text_bytes, 'byte')}, used by {plural(references, 'entry')}"
    totals = {"strings": strings, "bytes": text_bytes, "references": references}
    faults = _lost_between(session, *table_range(KeyTable.NAMES))
    return Several(
        [Table(("id", "used", "string"), rows, None, right=(0, 1)), Lines(["", summary, *map(_shown_fault, faults)])],
        {"strings": data, "totals": totals, "faults": faults},
    )


_NODE = Words("node")
_NODE.add_argument("block", type=number, metavar="BLOCK")
_BTREE = Words("btree")
_BTREE.add_argument("--walk", action="store_true", help="every node, in the order of the keys")
_ITEM = Words("item")
_ITEM.add_argument("key", nargs="+", metavar="KEY", help="TABLE [OBJECT [KIND [OFFSET]]], or 36 hexadecimal digits")
_INODE = Words("inode")
_INODE.add_argument("path", metavar="PATH", help="or <NUMBER>")
_STRINGS = Words("strings")
_STRINGS.add_argument("--shared", type=count, default=0, metavar="COUNT", help="only those that so many entries use at least")
_STRINGS.add_argument("pattern", nargs="?", metavar="PATTERN", help="a pattern of the shell")

COMMANDS = (
    Command("inode", "show every field of an inode", _INODE, show_inode, ("inode /etc/passwd", "inode '<12>'")),
    Command(
        "item", "show items of the tree, field by field", _ITEM, show_items, ("item files 12 data_record 3", "item files 12")
    ),
    Command("strings", "show the string table", _STRINGS, show_strings, ("strings --shared 100", "strings 'lib*'")),
    Command("btree", "show how high and how full the tree is", _BTREE, show_btree, ("btree", "btree --walk")),
    Command("node", "show the tree node that begins in a block", _NODE, show_node, ("node 1234",)),
)
