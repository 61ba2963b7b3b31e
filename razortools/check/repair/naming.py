"""Naming: finding a name in a directory of the draft, giving a file one, taking one away.

A name is an entry, a back link and a string; what follows from them (link counts, sizes, counts of uses) is recounted by the next
round. Invariants: a new entry takes a free place within reach of its hash; an entry that is made has its back link.
"""

from razortools.check.name_hash import may_stand_under
from razortools.check.repair.draft import LINK_NO_MAX, Draft
from razortools.format.directory import NAME_BYTES_MAX, BackLink, DirectoryEntry
from razortools.format.inode import Inode
from razortools.format.keys import PROBE_WINDOW, back_link_key, entry_key, inode_key, name_key, object_of
from razortools.format.name import Name, hash_name
from razortools.units import InodeNo, NameId


def find_name(draft: Draft, directory: int, text: bytes) -> tuple[bytes, DirectoryEntry] | None:
    """Return (key, entry) of a name in a directory, or None."""
    low = hash_name(text, draft.image.superblock.hash_seed)
    first, last = entry_key(InodeNo(directory), low), entry_key(InodeNo(directory), low + PROBE_WINDOW - 1)
    for key, _ in draft.items(first, last):
        entry = draft.entry(key)
        if entry is not None and draft.text(entry.name_id) == text:
            return key, entry
    return None


def fits(draft: Draft, key: bytes, text: bytes | None) -> bool:
    """Return whether an entry for *text* may stand under *key*."""
    return text is not None and may_stand_under(key, text, draft.image.superblock.hash_seed)


def free_place(draft: Draft, directory: int, text: bytes) -> bytes | None:
    """Return a key under which an entry for *text* may be put, or None if all that its hash allows are taken."""
    low = hash_name(text, draft.image.superblock.hash_seed)
    for offset in range(low, low + PROBE_WINDOW):
        key = entry_key(InodeNo(directory), offset)
        if draft.get(key) is None:
            return key
    return None


def unused_name(draft: Draft, directory: int, text: bytes) -> tuple[bytes, bytes]:
    """Return (name, key for its entry): *text*, or *text* with ``~2`` or a higher number behind it."""
    number = 1
    while True:
        tail = b"~%d" % number if number > 1 else b""
        name = text[: NAME_BYTES_MAX - len(tail)] + tail
        key = free_place(draft, directory, name)
        if key is not None and find_name(draft, directory, name) is None:
            return name, key
        number += 1


def new_string(draft: Draft, text: bytes, why: str) -> int:
    """Plan a string of its own for *text*, used once; return its id."""
    name_id = draft.new_name_id()
    draft.put(name_key(NameId(name_id)), Name(1, text).encode(), f"store the name for it: {why}")
    return name_id


def link_in(draft: Draft, directory: int, number: int, text: bytes, why: str) -> str:
    """Plan a name for inode *number* in *directory*; return the name, which may have got a number."""
    inode = draft.inode(number)
    assert inode is not None
    name, key = unused_name(draft, directory, text)
    shown = name.decode("utf-8", "surrogateescape")
    link_no = free_link_no(draft, number, inode)
    name_id = new_string(draft, name, shown)
    draft.put(key, DirectoryEntry(number, name_id, link_no, inode.file_type).encode(), f"{why} as {shown}")
    put_back_link(draft, number, link_no, BackLink(directory, name_id))
    draft.made[number] = shown
    return shown


def free_link_no(draft: Draft, number: int, inode: Inode) -> int:
    """Return a link number that no back link of the inode has."""
    used = draft.back_links(number)
    wanted = max([inode.next_link_no, *(used_no + 1 for used_no in used)])
    if wanted <= LINK_NO_MAX:
        return wanted
    return next(link_no for link_no in range(len(used) + 1) if link_no not in used)


def put_back_link(draft: Draft, number: int, link_no: int, link: BackLink) -> None:
    """Plan a back link, and that the next one gets a higher number."""
    draft.put(back_link_key(InodeNo(number), link_no), link.encode(), f"write back link {link_no}")
    inode = draft.inode(number)
    if inode is not None and inode.next_link_no <= link_no:
        draft.set(inode_key(InodeNo(number)), "next_link_no", link_no + 1, "count the back link")


def is_confirmed(draft: Draft, number: int, link_no: int, link: BackLink) -> bool:
    """Return whether an entry leads to the inode by exactly this back link."""
    text = draft.text(link.name_id)
    if text is None:
        return any(
            (entry.inode, entry.name_id, entry.link_no) == (number, link.name_id, link_no)
            for _, entry in draft.entries(link.parent)
        )
    found = find_name(draft, link.parent, text)
    return found is not None and (found[1].inode, found[1].name_id, found[1].link_no) == (number, link.name_id, link_no)


def confirmed_links(draft: Draft, number: int) -> dict[int, BackLink]:
    """Return the back links of an inode that an entry confirms."""
    links = draft.back_links(number)
    return {link_no: link for link_no, link in links.items() if is_confirmed(draft, number, link_no, link)}


def entry_to(draft: Draft, number: int) -> DirectoryEntry | None:
    """Return an entry that leads to the inode, found by its back links, confirmed or not."""
    for link in draft.back_links(number).values():
        text = draft.text(link.name_id)
        found = find_name(draft, link.parent, text) if text is not None else None
        if found is not None and found[1].inode == number:
            return found[1]
    return None


def rename_entry(draft: Draft, key: bytes, text: bytes, why: str) -> None:
    """Plan to file the entry *key* under the name *text*, with a number behind it if that is taken."""
    entry = draft.entry(key)
    if entry is None:
        return
    directory = object_of(key)
    draft.delete(key, why)
    name, place = unused_name(draft, directory, text)
    name_id = new_string(draft, name, why)
    draft.put(place, DirectoryEntry(entry.inode, name_id, entry.link_no, entry.file_type).encode(), why)
    link = draft.back_links(entry.inode).get(entry.link_no)
    if link is not None and (link.parent, link.name_id) == (directory, entry.name_id):
        draft.put(back_link_key(InodeNo(entry.inode), entry.link_no), BackLink(directory, name_id).encode(), why)
