"""lost+found: where files go that no name leads to, under what was known of their path."""

import stat

from razortools.check.repair.draft import Draft
from razortools.check.repair.naming import find_name, link_in
from razortools.format.inode import ROOT_INODE, FileType, Inode
from razortools.format.keys import back_link_key, inode_key
from razortools.units import InodeNo

NAME = b"lost+found"
NAME_BYTES_KEPT = 200  # of a long path its end is kept


def put_into(draft: Draft, number: int) -> None:
    """Plan to give inode *number* a name in lost+found, and to forget the names that it has nowhere."""
    if number in draft.made or draft.inode(number) is None or number == ROOT_INODE:
        return
    name = last_known_name(draft, number)
    directory = directory_for_lost(draft)
    if directory is None or directory == number:
        return
    for link_no in draft.back_links(number):
        draft.delete(back_link_key(InodeNo(number), link_no), f"forget back link {link_no}, which leads nowhere")
    link_in(draft, directory, number, name, "put it into lost+found")


def directory_for_lost(draft: Draft) -> int | None:
    """Return the inode of lost+found, which is planned if it is not there; None if there is no root to put it into."""
    root = draft.inode(ROOT_INODE)
    if root is None or not root.is_directory:
        return None
    found = find_name(draft, ROOT_INODE, NAME)
    inode = draft.inode(found[1].inode) if found is not None else None
    if found is not None and inode is not None and inode.is_directory:
        return found[1].inode
    number = draft.new_inode_number()
    draft.put(
        inode_key(InodeNo(number)), new_inode(draft, FileType.DIRECTORY).encode(), "make the directory lost+found", "/lost+found"
    )
    link_in(draft, ROOT_INODE, number, NAME, "make the directory lost+found")
    return number


def new_inode(draft: Draft, file_type: int) -> Inode:
    """Return an inode that belongs to root and is as closed as possible. Its times are the image's own, so that plans repeat."""
    superblock = draft.image.superblock
    now = superblock.written_at_ns
    permissions = {FileType.DIRECTORY: 0o700, FileType.SYMLINK: 0o777}.get(FileType(file_type), 0o600)
    return Inode(
        mode=file_type << 12 | permissions, uid=0, gid=0, link_count=2 if file_type << 12 == stat.S_IFDIR else 1, size=0,
        stored_blocks=0, atime_ns=now, mtime_ns=now, ctime_ns=now, btime_ns=now, rdev=0, generation=0, flags=0, next_link_no=0,
        record_log2=superblock.record_bytes.bit_length() - 1, compression=superblock.compression,
        compression_level=superblock.compression_level, reserved=0,
    )  # fmt: skip


def last_known_name(draft: Draft, number: int) -> bytes:
    """Return the path that the inode had, with '+' between its parts, or ``#12`` if nothing of it is known."""
    path = draft.paths.of(number)
    if path == f"<inode {number}>":
        texts = [draft.text(link.name_id) for link in draft.back_links(number).values()]
        known = next((text for text in texts if text), None)
        return known if known is not None and b"/" not in known else b"#%d" % number
    parts = [part for part in path.split("/") if part]
    if parts and parts[0].startswith("<inode "):
        parts[0] = "#" + parts[0][len("<inode ") : -1]
    name = "+".join(parts).encode("utf-8", "surrogateescape").replace(b"\0", b"")
    if len(name) > NAME_BYTES_KEPT:
        name = b"#%d+" % number + name[-NAME_BYTES_KEPT:]
    return name or b"#%d" % number
