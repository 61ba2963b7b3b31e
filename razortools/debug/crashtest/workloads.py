"""Workloads: which operations in which order. Exhaustive where that is possible, random by a seed where it is not.

The tree that they start from is made by GROUND: a file of several records, a small one that lies inline, directories that are
empty and full, a hard link, a symbolic link, attributes. The alphabet does to it whatever its types of files allow, and some
things that must be refused.
"""

import random
from collections.abc import Iterator
from itertools import product

from razortools.debug.crashtest.operations import Operation, parse

Workload = tuple[Operation, ...]

GROUND = (
    "create /a; write /a 0 9000; create /b; write /b 0 100; mkdir /d; create /d/x; write /d/x 0 5000; mkdir /e; "
    "symlink /s 20; link /d/x /l; setxattr /d user.k 30; setxattr /b user.k 3000"
)

ALPHABET = (
    "create /n", "create /d/n",
    "write /n 0 5000", "write /a 0 9000", "write /a 3000 3000", "write /a 4096 4096", "write /b 10 50",
    "write /a 20000 100", "append /a 300", "append /b 3000", "append /n 700",
    "truncate /a 0", "truncate /a 5000", "truncate /b 9000",
    "mkdir /n", "mkdir /d/n", "rmdir /e", "rmdir /d",
    "unlink /a", "unlink /d/x", "unlink /n", "hold /a",
    "rename /a /n", "rename /a /b", "rename /a /d/n", "rename /n /a", "rename /d /e", "rename /e /d/e", "noreplace /a /n",
    "exchange /a /d/x", "exchange /a /d", "exchange /b /n",
    "link /a /n", "link /b /d/n",
    "symlink /n 30", "symlink /d/n 3000",
    "setxattr /a user.k 20", "setxattr /b user.k 450", "setxattr /n user.k 900",
    "setxattr /d user.big 5000", "removexattr /b user.k", "chmod /a 600",
    "fsync /a", "fsync /n", "fsyncdir /", "sync", "commit", "checkpoint", "begin", "begin-checkpoint", "write-out",
    "settle",
)  # fmt: skip

CORE = (
    "create /n", "write /n 0 5000", "write /a 3000 3000", "append /b 3000", "truncate /a 5000", "mkdir /n", "unlink /a",
    "rename /a /n", "rename /n /a", "exchange /a /d/x", "link /a /n", "setxattr /a user.k 20", "fsync /n", "checkpoint",
    "hold /a", "begin", "settle",
)  # fmt: skip

PAGES_SHARE = 1 / 3
NAMES = ("a", "b", "n", "x", "d", "e")


def exhaustive(length: int) -> Iterator[str]:
    """Yield all workloads of *length* operations: of the whole alphabet up to two, of its core beyond."""
    for words in product(ALPHABET if length <= 2 else CORE, repeat=length):
        yield "; ".join(words)


def random_workload(seed: int, length: int, *, pages: bool = False) -> str:
    """Return *length* operations at random, on few names so that they meet, with a sync now and then.

    With *pages* a third of them overwrite whole pages of one file.
    """
    chance = random.Random(seed)
    return "; ".join(
        _random_page(chance) if pages and chance.random() < PAGES_SHARE else _random_operation(chance) for _ in range(length)
    )


def _random_page(chance: random.Random) -> str:
    return f"write /a {4096 * chance.randrange(4)} 4096"


def _random_operation(chance: random.Random) -> str:
    kind = chance.random()
    path, other = _path(chance), _path(chance)
    length = chance.choice((1, 100, 450, 500, 600, 4096, 5000, 20_000))  # some fill a sector of the journal
    if kind < 0.12:
        return chance.choice((f"fsync {path}", "fsyncdir /", "sync", "commit", "commit", "checkpoint", "begin"))
    if kind < 0.2:
        return chance.choice(("begin", "begin-checkpoint", "write-out", "settle"))
    if kind < 0.5:
        offset = chance.choice((0, 0, 1, 4095, 4096, 8000, 50_000))
        return chance.choice((f"write {path} {offset} {length}", f"append {path} {length}", f"truncate {path} {offset}"))
    if kind < 0.68:
        return chance.choice((f"create {path}", f"create {path}", f"mkdir {path}", f"symlink {path} {min(length, 4000)}"))
    if kind < 0.86:
        verb = chance.choice(("rename", "rename", "rename", "exchange", "noreplace", "link"))
        return f"{verb} {path} {other}"
    value = chance.choice((0, 20, 450, 900, 5000))
    return chance.choice(
        (
            f"unlink {path}", f"unlink {path}", f"rmdir {path}", f"hold {path}", f"chmod {path} 6{chance.randrange(8)}0",
            f"setxattr {path} user.{chance.randrange(2)} {value}", f"removexattr {path} user.{chance.randrange(2)}",
        )
    )  # fmt: skip


def _path(chance: random.Random) -> str:
    return "/" + "/".join(chance.choice(NAMES) for _ in range(chance.choice((1, 1, 1, 2))))


def numbered(text: str) -> Workload:
    """Return the operations of *text*; their data differ from those of the ground."""
    offset = 1000
    return tuple(Operation(op.verb, op.words, op.number + offset) for op in parse(text))
