"""A case for each command of the shell: what is typed on a furnished image, what it must answer, and what it says of damage.

The cases of a part are one session, in this order: each finds what those before it have left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.debug.tool import NOISE, TEXT

NEEDS_A_TREE = r"what needs no tree works: super, journal"


@dataclass(frozen=True, slots=True)
class Case:
    """One command. *judge* is asked of its answer on a healthy image; *lost* is said where the tree is lost."""

    line: str
    judge: Callable[[Any], object]
    lost: str = NEEDS_A_TREE
    hurt: str = ""  # said where the first record of /home/noise does not verify; empty: it does not read that

    @property
    def command(self) -> str:
        """The command's name."""
        return self.line.split()[0]


def named(*names: str) -> Callable[[Any], bool]:
    """Return a judge of listings."""
    return lambda told: [one["name"] for one in told] == list(names)


def holds(**facts: object) -> Callable[[Any], bool]:
    """Return a judge: the answer holds these keys with these values."""
    return lambda told: {name: told[name] for name in facts} == facts


HOME = ("deep", "noise", "small", "sparse", "symlink", "text")
DAMAGED_DATA = r"data at block 260: checksum 0x\w{8}"

# On an image that a crash left with transactions in its journal, without the right to write.
LOOKING = (
    Case("cd /home", holds(directory="/home")),
    Case("pwd", holds(directory="/home"), r"^/$"),
    Case("ls", named(*HOME)),
    Case("ls -l /", named("hard", "home", "late", "later 1", "later 2")),
    Case("stat noise", holds(size=len(NOISE), stored_bytes=75 * 4096, record_count=3, paths=["/home/noise"])),
    Case("tree /", holds(files=9, directories=3)),
    Case("find / --name 'sma*'", lambda told: [one["path"] for one in told["found"]] == ["/home/small"]),
    Case("du -d 0 /", lambda told: told["directories"][0]["size"] == len(NOISE) + len(TEXT) + 1048579 + 6 + 30),
    Case("cat small", lambda told: told == "small\n"),
    Case("cat noise", lambda told: told.encode("utf-8", "surrogateescape") == NOISE, hurt=DAMAGED_DATA),
    Case("head -n 2 text", lambda told: told.encode() == TEXT[: 2 * TEXT.index(b"\n") + 2]),
    Case("head -c 5 noise", lambda told: told.encode("utf-8", "surrogateescape") == NOISE[:5], hurt=DAMAGED_DATA),
    Case("get deep {here}/got", holds(directories=2, files=0)),
    Case("get noise {here}/noise", holds(files=1, total_bytes=len(NOISE)), hurt=r"could not be copied whole: .*" + DAMAGED_DATA),
    Case("export /home", lambda told: all(f"{name}\0" in told or f"{name}/\0" in told for name in HOME), hurt=DAMAGED_DATA),
    Case("xattr small", lambda told: told == [{"name": "user.comment", "bytes": 4, "value": "said", "hex": b"said".hex()}]),
    Case("acl sparse", lambda told: told["access"][1] == "user:1001:rw-"),
    Case("super", lambda told: told["superblock"]["root_level"] == 0 and len(told["copies"]) == 6, r"generation +\d+ "),
    Case("admin", lambda told: [one["action"] for one in told["entries"]] == ["mkfs", "mount", "mount"], r"mkfs"),
    Case("journal -v", lambda told: [one["number"] for one in told["transactions"]] == [5, 6, 7], r"^transaction 5"),
    Case("inode small", lambda told: told["fields"]["link_count"] == 2 and told["items"]["back_link"] == 2),
    Case("item names 1", lambda told: told[0]["value"]["text"] == b"home".hex(), r"cannot be read: DAMAGED block 72"),
    Case("strings", lambda told: told["totals"]["strings"] == 12 and told["faults"] == [], r"DAMAGED block 72"),
    Case("btree", lambda told: told["items"]["inode"]["count"] == 9 and told["faults"] == [], r"node lost, with all below it"),
    Case("node 72", holds(checksum="good"), r"^checksum +WRONG"),
    Case("block 72", lambda told: sum(one["length"] for one in told[0]["spans"]) == 4096, r"block 72 \(byte 294912\)"),
    Case("records --verify noise", lambda told: {one["state"] for one in told["pieces"]} == {"good"}, hurt=r"checksum"),
    Case("where noise", lambda told: sum(one["blocks"] for one in told["runs"]) == 75),
    Case("space", lambda told: sum(told["used"].values()) + told["free_blocks"] == told["block_count"]),
    Case(
        "compression --why /",
        lambda told: (told["reasons"][0]["records"], told["reasons"][0]["example"]) == (3, "/home/noise"),
        hurt=r"UNREADABLE /home/noise: .*checksum",
    ),
    Case(
        "whois -b 260",
        lambda told: told["owners"][0]["paths"] == ["/home/noise"],
        r"nothing that can be read",
        hurt=r"/home/noise",
    ),
    Case("paths 4", holds(paths=["/home/noise"])),
    Case("verify", holds(damaged=[]), r"^DAMAGED node at block 72", hurt=r"/home/noise"),
    Case("diff {here}/other.img /", lambda told: {"change": "removed", "path": "/home/small"} in told["differences"]),
    Case("history", lambda told: [one["generation"] for one in told["checkpoints"]] == [3, 4], r"1 nodes"),
    Case("history 3", holds(changes=[], lost_nodes=0), r"nodes cannot be read any more"),
    Case("undelete --list", lambda told: told == []),
    Case("label", holds(label="tested"), r"^tested$"),
    Case("uuid", holds(uuid="00010203-0405-0607-0809-0a0b0c0d0e0f"), r"^00010203-0405"),
    Case("feature", lambda told: {one["feature"] for one in told if one["set"]} >= {"zstd", "patches"}, r"second_checksum"),
    Case("help ls", lambda told: told["usage"] == "usage: ls [-l] [-R] [PATH]", r"^usage: ls"),
    Case(
        "damage --class lost-node --seed 3 {here}/drill.img",
        lambda told: len(told["done"]) == 2,
        r"^damage: there is no node in this",
    ),
    Case("resize", lambda told: told["bytes"] == told["device_bytes"] > told["least_bytes"], r": is not sound \(E0\d{3}: "),
    Case("dump --sanitize {here}/report.img", holds(findings={"E0201": 1}), r"^razorfsck finds the same .*E0302"),
)
DONE_TO_IT = [
    "debug", "recompress", "defrag", "undelete", "label", "label", "uuid", "uuid", "feature", "feature", "resize", "commit",
]  # fmt: skip
# On the same image, with it: every command that changes something, and what it changed is looked at.
CHANGING = (
    Case("mkdir -p /new/deep", holds(made=2)),
    Case("put {here}/host /new", holds(files=1, total_bytes=4000)),
    Case("mv /new/host /new/file", holds(target="/new/file")),
    Case("ln /new/file /hard-too", holds(target="/hard-too")),
    Case("ln -s file /new/link", holds(source="file")),
    Case("chmod u=rwx,go= /new/file", lambda told: told["modes"] == {"/new/file": 0o700}),
    Case("chown 5:6 /new/file", holds(uid=5, gid=6)),
    Case("truncate -s 100 /new/file", holds(size=100)),
    Case("setxattr /new/file user.a value", holds(bytes=5)),
    Case("rmxattr /new/file user.a", holds(name="user.a")),
    Case("touch -t 1234567890 /new/file", holds(made=0, time_ns=1_234_567_890 * 10**9)),
    Case("stat /hard-too", holds(size=100, mode=0o100700, uid=5, gid=6, links=2, xattrs={}, mtime_ns=1_234_567_890 * 10**9)),
    Case("recompress zlib /home/text", lambda told: told["files"] == 1 and told["data_bytes"] == len(TEXT)),
    Case("defrag /home/noise", lambda told: (told["pieces_before"], told["pieces_after"]) == (2, 1), hurt=DAMAGED_DATA),
    Case("rm /home/noise /home/text", holds(removed=2)),
    Case("undelete --list", lambda told: {one["path"]: one["state"] for one in told}["/home/text"] == "whole"),
    Case("undelete 3", holds(to="/home/text", state="whole")),
    Case("relabel other", holds(label="other")),
    Case("label third", holds(label="third")),
    Case("uuid 11234567-89ab-cdef-0123-456789abcdef", holds(uuid="11234567-89ab-cdef-0123-456789abcdef")),
    Case("newuuid 01234567-89ab-cdef-0123-456789abcdef", holds(uuid="01234567-89ab-cdef-0123-456789abcdef")),
    Case("feature second_checksum off", lambda told: not told["set"] and told["records"] > 0),
    Case("feature second_checksum on", holds(set=True, changed=True, records=0)),
    Case("resize 20M", holds(bytes_after=20 << 20, device_bytes=20 << 20)),
    Case("set inode.uid 1001 /hard", holds(before="1000", after="1001")),
    Case("changes", lambda told: len(told) == 1 and told[0]["after"] == "1001", r"^nothing is staged"),
    Case("commit", lambda told: told["changes"] == 1 and told["bytes"] > 0, r"^0 changes written"),
    Case("set inode.uid 1002 /hard", holds(after="1002")),
    Case("discard", holds(changes=1), r"^0 changes dropped"),
    Case("inode /hard", lambda told: told["fields"]["uid"] == 1001),
    Case("admin", lambda told: [one["action"] for one in told["entries"]][-len(DONE_TO_IT) :] == DONE_TO_IT, r"mkfs"),
)
