"""Names: entries and back links that do not confirm each other, names that are there twice, and files without any.

Each half of a name is enough to write the other. Where the two disagree, the half that agrees with a third thing is right: the
hash that an entry is filed under, the name's other user, the link count.
"""

from razortools.check.findings import Finding
from razortools.check.keynames import key_fault
from razortools.check.name_hash import unflipped
from razortools.check.repair import lost_found, plan_inodes
from razortools.check.repair.draft import Draft
from razortools.check.repair.naming import (
    confirmed_links,
    entry_to,
    find_name,
    fits,
    free_link_no,
    free_place,
    is_confirmed,
    put_back_link,
    rename_entry,
    unused_name,
)
from razortools.check.repair.true_type import set_type, true_type
from razortools.format.directory import BackLink, DirectoryEntry
from razortools.format.inode import ROOT_INODE
from razortools.format.keys import back_link_key, inode_key, name_key, object_of
from razortools.units import InodeNo, NameId


def entry_unconfirmed(draft: Draft, finding: Finding) -> None:
    """An entry leads to an inode that does not know of it."""
    key = finding.key
    entry = draft.entry(key) if key is not None else None
    inode = draft.inode(entry.inode) if entry is not None else None
    if key is None or entry is None or inode is None or key_fault(key) or _follow_back_link(draft, key, entry):
        return  # what has a senseless key is removed, and says nothing against a back link
    number, directory = entry.inode, object_of(key)
    if draft.lost_names.get(finding.path or "", number) != number and _has_its_names(draft, number):
        return  # another inode says that this is its name, and this one does not need it
    links = draft.back_links(number)
    wanted = BackLink(directory, entry.name_id)
    if links.get(entry.link_no) == wanted:
        return
    for link_no, link in links.items():
        if link.name_id == entry.name_id and link == wanted and not is_confirmed(draft, number, link_no, link):
            draft.set(key, "link_no", link_no, f"name back link {link_no}, which leads here")
            return
    if inode.is_directory and (number == ROOT_INODE or confirmed_links(draft, number) or _is_above(draft, number, directory)):
        draft.delete(key, f"remove this name: directory inode {number} has another one")
        return
    link_no = entry.link_no
    link_there = links.get(link_no)  # of a file with many names not all are asked for
    if (link_there and is_confirmed(draft, number, link_no, link_there)) or link_no > inode.next_link_no + 1000:
        link_no = free_link_no(draft, number, inode)
        draft.set(key, "link_no", link_no, f"let it name back link {link_no}")
    put_back_link(draft, number, link_no, wanted)


def _follow_back_link(draft: Draft, key: bytes, entry: DirectoryEntry) -> bool:
    """Plan to give the entry the name that its back link tells, if only that one fits where it is filed."""
    link = draft.back_links(entry.inode).get(entry.link_no)
    if link is None or link.parent != object_of(key) or link.name_id == entry.name_id:
        return False
    if fits(draft, key, draft.text(entry.name_id)) or not fits(draft, key, draft.text(link.name_id)):
        return False
    draft.set(key, "name_id", link.name_id, "give it the name that its back link tells")
    return True


def _is_above(draft: Draft, number: int, directory: int) -> bool:
    """Return whether *directory* lies in directory *number*, by its back links."""
    at, steps = directory, 0
    while at != ROOT_INODE and steps < 4096:
        if at == number:
            return True
        links = draft.back_links(at)
        if not links:
            return False
        at, steps = next(iter(links.values())).parent, steps + 1
    return at == number


def back_link_unconfirmed(draft: Draft, finding: Finding) -> None:
    """A back link names a directory that has no such entry."""
    number, link_no = int(finding.inode or 0), finding.values["link_no"]
    link, inode = draft.back_links(number).get(link_no), draft.inode(number)
    if link is None or inode is None or is_confirmed(draft, number, link_no, link):
        return
    key = back_link_key(InodeNo(number), link_no)
    confirmed = confirmed_links(draft, number)
    if len(confirmed) >= (1 if inode.is_directory else max(inode.link_count, 1)):
        draft.delete(key, f"remove back link {link_no}: inode {number} has all its names without it")
        return
    parent, text = draft.inode(link.parent), draft.text(link.name_id)
    if parent is None and text and ROOT_INODE < link.parent < draft.new_inode_limit() and not confirmed:
        plan_inodes.make_directory(draft, link.parent)
        parent = draft.inode(link.parent)
    if parent is None or not parent.is_directory or not text or _is_above(draft, number, link.parent):
        return  # lost+found is left, if no other name leads to it
    found = find_name(draft, link.parent, text)
    if found is None:
        place = free_place(draft, link.parent, text)
        if place is not None:
            entry = DirectoryEntry(number, link.name_id, link_no, inode.file_type)
            draft.put(place, entry.encode(), "write the entry that its back link tells of")
            draft.made[number] = text.decode("utf-8", "surrogateescape")
        return
    other_key, other = found
    if other.inode == number or _may_lose(draft, other, link.parent):
        changed = DirectoryEntry(number, link.name_id, link_no, inode.file_type)
        draft.put(other_key, changed.encode(), f"let the name lead to inode {number}, whose back link names it")
        draft.made[number] = text.decode("utf-8", "surrogateescape")
    else:
        draft.delete(key, f"remove back link {link_no}: the name leads to inode {other.inode}, which has no other one")


def _may_lose(draft: Draft, entry: DirectoryEntry, directory: int) -> bool:
    """Return whether a name may be given to another inode: the one that it leads to is gone, or does not need it."""
    if draft.inode(entry.inode) is None:
        return True
    return not _is_named_so(draft, entry, directory) and _has_its_names(draft, entry.inode)


def _has_its_names(draft: Draft, number: int) -> bool:
    """Return whether entries and back links that confirm one another name an inode as often as it counts."""
    inode = draft.inode(number)
    wanted = 1 if inode is None or inode.is_directory else max(inode.link_count, 1)
    return number == ROOT_INODE or len(confirmed_links(draft, number)) >= wanted


def _is_named_so(draft: Draft, entry: DirectoryEntry, directory: int) -> bool:
    """Return whether the inode that an entry leads to has a back link for it."""
    links = draft.back_links(entry.inode).values()
    return draft.inode(entry.inode) is not None and BackLink(directory, entry.name_id) in links


def dangling(draft: Draft, finding: Finding) -> None:
    """An entry leads to an inode that is not there."""
    entry = draft.entry(finding.key) if finding.key is not None else None
    if finding.key is not None and entry is not None and draft.inode(entry.inode) is None:
        draft.delete(finding.key, f"remove this name: inode {entry.inode} is gone")


def name_missing(draft: Draft, finding: Finding) -> None:
    """The string of an entry is gone."""
    key = finding.key
    entry = draft.entry(key) if key is not None else None
    if key is None or entry is None or draft.text(entry.name_id) is not None or _follow_back_link(draft, key, entry):
        return
    if draft.inode(entry.inode) is not None:
        rename_entry(draft, key, b"#%d" % entry.inode, f"name it #{entry.inode}: its name is lost")


def misfiled(draft: Draft, finding: Finding) -> None:
    """An entry is not filed under the hash of its name."""
    key = finding.key
    entry = draft.entry(key) if key is not None else None
    text = draft.text(entry.name_id) if entry is not None else None
    if key is None or entry is None or text is None or fits(draft, key, text) or _follow_back_link(draft, key, entry):
        return
    directory = object_of(key)
    if draft.back_links(entry.inode).get(entry.link_no) == BackLink(directory, entry.name_id):  # it has no other string
        right = unflipped(key, text, draft.image.superblock.hash_seed)
        if right is not None:
            draft.set(name_key(NameId(entry.name_id)), "text", right, "turn back the bit of the name that its hash tells of")
            return
    name, place = unused_name(draft, directory, text)
    if name != text:
        rename_entry(draft, key, text, "file it under another name: this one is taken")
        return
    draft.delete(key, "file the entry under the hash of its name")
    draft.put(place, entry.encode(), "file the entry under the hash of its name")


def duplicate(draft: Draft, finding: Finding) -> None:
    """A name is in the directory twice."""
    key = finding.key
    entry = draft.entry(key) if key is not None else None
    text = draft.text(entry.name_id) if entry is not None else None
    if key is None or entry is None or text is None:
        return
    found = find_name(draft, object_of(key), text)
    if found is None or found[0] == key:
        return
    if (found[1].inode, found[1].link_no) == (entry.inode, entry.link_no):
        draft.delete(key, "remove the second of two equal entries")
        return
    rename_entry(draft, key, text, "give it a name of its own")


def entry_type(draft: Draft, finding: Finding) -> None:
    """An entry and the inode that it leads to do not agree about the type of file."""
    entry = draft.entry(finding.key) if finding.key is not None else None
    inode = draft.inode(entry.inode) if entry is not None else None
    if finding.key is None or entry is None or inode is None:
        return
    wanted = true_type(draft, entry.inode, inode, entry.file_type)
    if wanted != inode.file_type:
        set_type(draft, entry.inode, inode, wanted)
    draft.set(finding.key, "file_type", wanted, "say which type of file it is")


def not_a_directory(draft: Draft, finding: Finding) -> None:
    """A file that is no directory has entries."""
    number = int(finding.inode or 0)
    inode, entry = draft.inode(number), entry_to(draft, number)
    if inode is None or inode.is_directory:
        return
    if true_type(draft, number, inode, entry.file_type if entry is not None else 0) << 12 == 0o040000:
        draft.set(
            inode_key(InodeNo(number)), "mode", 0o040000 | inode.mode & 0o7777, "make it a directory again, as its name says"
        )
        return
    for key, _ in list(draft.entries(number)):
        draft.delete(key, "remove the entry from a file that is no directory")


def two_parents(draft: Draft, finding: Finding) -> None:
    """A directory has more than one name."""
    number = int(finding.inode or 0)
    confirmed = confirmed_links(draft, number)
    kept = [] if number == ROOT_INODE else list(confirmed)[:1]
    for link_no, link in confirmed.items():
        if link_no in kept:
            continue
        text = draft.text(link.name_id)
        found = find_name(draft, link.parent, text) if text is not None else None
        if found is not None and found[1].inode == number:
            draft.delete(found[0], f"remove the further name of directory inode {number}")
        draft.delete(back_link_key(InodeNo(number), link_no), f"remove back link {link_no}: a directory has one name")


def unreachable(draft: Draft, finding: Finding) -> None:
    """No name leads to an inode."""
    number = int(finding.inode or 0)
    inode = draft.inode(number)
    if inode is not None and not confirmed_links(draft, number) and entry_to(draft, number) is None:
        lost_found.put_into(draft, number)


def cycle(draft: Draft, finding: Finding) -> None:
    """A directory lies in itself."""
    number = int(finding.inode or 0)
    if number in draft.made or _is_above(draft, ROOT_INODE, number):
        return  # another planner has decided where it is
    for link in draft.back_links(number).values():
        text = draft.text(link.name_id)
        found = find_name(draft, link.parent, text) if text is not None else None
        if found is not None and found[1].inode == number:
            draft.delete(found[0], "cut the cycle here")
    lost_found.put_into(draft, number)
