"""razorfs-debug in this process, and images to look into."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from razortools import debugfs
from razortools.cli import app as cli
from razortools.engine import acls, files, namespace, xattrs
from razortools.engine.volume import Volume
from razortools.format.acl import AclEntry, Tag, encode_acl
from razortools.format.inode import ROOT_INODE
from razortools.units import KIB, MIB, InodeNo
from tests.images import make_image, open_for_writing
from tests.schemas import valid

NOISE = bytes(os.urandom(300_000))
TEXT = b"a line of text that compresses well\n" * 10_000


def debug(*words: object) -> int:
    """Return the exit code of razorfs-debug with *words*."""
    return cli.invoke(debugfs.app, debugfs.NAME, cli.DEBUG_CODES, [str(word) for word in words])


def answer(capsys: pytest.CaptureFixture[str], image: Path, command: str, *words: object) -> Any:
    """Return the JSON answer of one command, which must succeed and answer as its schema says."""
    capsys.readouterr()
    code = debug(*words, "--json", "-R", command, image)
    out, err = capsys.readouterr()
    assert code == 0, err
    return valid("razorfs-debug", json.loads(out), command.split()[0])


def text(capsys: pytest.CaptureFixture[str], image: Path, *commands: str, write: bool = False) -> str:
    """Return what commands, which must succeed, say in words."""
    capsys.readouterr()
    code = debug(*(["-w"] if write else []), *(word for command in commands for word in ("-R", command)), image)
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def furnished(path: Path, size_bytes: int = 16 * MIB) -> Path:
    """Make an image with a bit of everything, cleanly closed, and return its path."""
    make_image(path, size_bytes, label="tested")
    with open_for_writing(path) as volume:
        furnish(volume)
    return path


def furnish(volume: Volume) -> None:
    """Make a small tree: text and noise in blocks, a small file, a hole, links, attributes, a list."""
    home = namespace.mkdir(volume, ROOT_INODE, b"home", 0o755, 1000, 1000)
    written(volume, home, b"text", TEXT)
    noise = written(volume, home, b"noise", NOISE[: 256 * KIB])
    files.flush_all(volume)
    small = written(volume, home, b"small", b"small\n")
    sparse = written(volume, home, b"sparse", b"end", at=1 * MIB)
    files.write(volume, noise, 256 * KIB, NOISE[256 * KIB :])  # in a piece of its own
    namespace.link(volume, small, ROOT_INODE, b"hard")
    namespace.symlink(volume, home, b"symlink", b"../nowhere", 0, 0)
    xattrs.set(volume, small, b"user.comment", b"said")
    xattrs.set(volume, noise, b"user.large", bytes(range(256)) * 40)
    shared = (
        AclEntry(Tag.OWNER, 7),
        AclEntry(Tag.USER, 6, 1001),
        AclEntry(Tag.OWNING_GROUP, 5),
        AclEntry(Tag.MASK, 7),
        AclEntry(Tag.OTHERS, 0),
    )
    acls.set(volume, sparse, xattrs.ACCESS_ACL, encode_acl(shared))
    namespace.mkdir(volume, namespace.mkdir(volume, home, b"deep", 0o700, 1000, 1000), b"deeper", 0o700, 1000, 1000)


def written(volume: Volume, parent: InodeNo, name: bytes, data: bytes, at: int = 0) -> InodeNo:
    """Make a file with *data* at byte *at*, and return its inode."""
    ino = namespace.create(volume, parent, name, 0o644, 1000, 1000)
    files.write(volume, ino, at, data)
    return ino


def crashed(path: Path, image: Path, commits: int = 1) -> Path:
    """Return a copy of *image* as a machine that lost power after more commits would leave it: /late exists in its journal."""
    volume = open_for_writing(image)
    for number in range(commits):
        written(volume, ROOT_INODE, b"late" if not number else b"later %d" % number, b"committed\n")
        volume.commit()
    path.write_bytes(image.read_bytes())
    volume.close()
    return path


def hurt(image: Path, offset: int, data: bytes = b"\xff" * 64) -> None:
    """Write *data* over what the image holds at byte *offset*."""
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)
