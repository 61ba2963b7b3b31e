"""Phase 6: the string table. Verifies each name, and that its reference count is the number of entries that use it."""

from collections.abc import Generator, Iterator

from razortools.check import problems
from razortools.check.facts import DirectoryFacts, find_number
from razortools.check.findings import Event, Finding, Progress
from razortools.check.keynames import item_words
from razortools.check.tree import kinds_mask
from razortools.errors import CorruptImage
from razortools.format.directory import NAME_BYTES_MAX
from razortools.format.keys import Kind, Table, object_of
from razortools.format.layout import COUNT_MAX
from razortools.format.name import Name
from razortools.printable import printable

PROGRESS_STEP = 64  # leaves


def check(facts: DirectoryFacts) -> Generator[Event, None, int]:
    """Judge all names; return how many there are."""
    tree, count = facts.inodes.tree, 0
    for leaf, (keys, values) in tree.leaves(kinds_mask(Kind.NAME)):
        if leaf % PROGRESS_STEP == 0:
            yield Progress(leaf, tree.leaf_count)
        for key, value in zip(keys, values, strict=True):
            if key[0] != Table.NAMES or key[9] != Kind.NAME:
                continue
            count += 1
            try:
                name = Name.decode(value)
            except CorruptImage as broken:
                number = object_of(key)
                yield problems.ITEM_SHAPE.found(inode=0, what=item_words(key), reason=broken, key=key, where=f"name {number}")
                continue
            yield from _judge(facts, object_of(key), name)
    yield from _judge_counters(facts, count)
    return count


def _judge(facts: DirectoryFacts, name_id: int, name: Name) -> Iterator[Finding]:
    fault = _name_fault(name.text)
    place = find_number(facts.name_ids, name_id)
    uses = facts.name_uses[place] if place >= 0 else 0
    if not fault and uses == name.reference_count and uses:
        return
    shown = printable(name.text.decode("utf-8", "surrogateescape"))
    where = f"name {name_id}"
    if fault:
        yield problems.NAME_WRONG.found(where=where, name=f"'{shown}'", name_id=name_id, reason=fault)
    if uses == 0 and name.reference_count == 0:
        yield problems.UNUSED_NAME.found(where=where, name=f"'{shown}'", name_id=name_id)
    elif uses != name.reference_count:
        yield problems.REFERENCE_COUNT.found(
            where=where, name=f"'{shown}'", name_id=name_id, value=name.reference_count, counted=uses
        )


def _name_fault(text: bytes) -> str:
    """Return why *text* cannot be a name, or an empty string."""
    if not text:
        return "it is empty"
    if len(text) > NAME_BYTES_MAX:
        return f"it has {len(text)} bytes, more than {NAME_BYTES_MAX}"
    if b"/" in text or b"\0" in text:
        return "it contains a slash or NUL"
    if text in (b".", b".."):
        return "it means the directory itself or its parent"
    return ""


def _judge_counters(facts: DirectoryFacts, count: int) -> Iterator[Finding]:
    counters = facts.inodes.counters
    if counters is None:
        return
    if facts.name_ids and not facts.name_ids[-1] < counters.next_name_id <= COUNT_MAX:
        yield problems.NAME_NUMBER.found(
            where=f"name {facts.name_ids[-1]}", name_id=facts.name_ids[-1], next_name_id=counters.next_name_id
        )
    if counters.name_count != count and facts.inodes.tree.is_whole:
        yield problems.NAME_COUNT.found(where="counters", value=counters.name_count, counted=count)
