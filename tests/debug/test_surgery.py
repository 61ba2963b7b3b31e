"""Surgery: a field is changed by name, checksums are right up to the root, and nothing is written before commit."""

from pathlib import Path

import pytest

from razortools.check.runner import check_quietly
from razortools.debug.opening import open_session
from razortools.debug.rawtree import RawTree
from razortools.engine import namespace
from razortools.engine.store.device import open_image
from razortools.format.inode import ROOT_INODE
from razortools.units import MIB
from tests.debug.tool import answer, debug, furnished, hurt, text
from tests.images import make_image, open_for_writing


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return furnished(tmp_path / "a.img")


def codes(image: Path) -> set[str]:
    """Return what razorfsck finds."""
    with open_image(image, writable=False) as device:
        return {finding.code for finding in check_quietly(device).findings}


def whole(image: Path) -> bool:
    """Return whether every node verifies, both copies."""
    with open_session(str(image), writable=False, tell=lambda said: None) as session:
        return not any(any(node.faults) for node in RawTree(session.device, session.superblock()).walk())


def test_a_field_is_changed_by_path_and_the_tree_verifies(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert codes(image) == set()
    out = text(capsys, image, "set inode.uid 4711 /hard", "stat /hard", "changes", "commit", "stat /hard", write=True)
    assert out.count("uid 4711") == 2
    assert "inode.uid of files 5 inode 0: 1000 -> 4711" in out
    assert "1 changes written" in out
    assert answer(capsys, image, "stat /hard")["uid"] == 4711
    assert whole(image)
    assert codes(image) == set()  # an owner is nobody's business


def test_nothing_is_written_before_commit_and_discard_drops_it(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = text(capsys, image, "set inode.size 99 /hard", "stat /hard", "discard", "stat /hard", "changes", write=True)
    assert "99 (99 B)" in out
    assert out.endswith("nothing is staged\n")
    assert debug("-w", "-R", "set inode.size 99 /hard", image) == 0
    assert "1 staged changes were not committed and are dropped" in capsys.readouterr().err
    assert answer(capsys, image, "stat /hard")["size"] == 6
    assert codes(image) == set()


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("set inode.link_count 7 /hard", {"E0401"}),
        ("set directory_entry.file_type directory {entry}", {"E0401", "E0405"}),
        ("set counters.inode_count 99", {"E0317"}),
    ],
)
def test_a_labelled_kind_of_damage_is_what_razorfsck_finds(
    command: str, found: set[str], image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = next(one["key"] for one in answer(capsys, image, "item files 1 directory_entry") if one["value"]["inode"] == 5)
    text(capsys, image, command.format(entry=entry), "commit", write=True)
    assert whole(image)
    assert codes(image) == found


def test_superblock_fields_are_set_in_every_newest_copy_or_in_one(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text(capsys, image, "set superblock.label renamed", "set superblock.error_count 3", "commit", write=True)
    told = answer(capsys, image, "super")
    assert bytes.fromhex(told["superblock"]["label"]).rstrip(b"\0") == b"renamed"
    assert {copy["state"] for copy in told["copies"]} == {"valid"}
    assert answer(capsys, image, "super 1")["superblock"]["error_count"] == 3
    text(capsys, image, "set superblock.mount_count 77 2", "commit", write=True)
    assert answer(capsys, image, "super 2")["superblock"]["mount_count"] == 77
    assert answer(capsys, image, "super 1")["superblock"]["mount_count"] != 77
    text(capsys, image, "set superblock.root.mirror 0", "commit", write=True)
    assert answer(capsys, image, "super")["superblock"]["root"]["mirror"] == 0


def test_a_node_deep_in_the_tree_is_changed_in_both_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = make_image(tmp_path / "a.img", 4 * MIB)
    with open_for_writing(image) as volume:
        for number in range(200):
            namespace.create(volume, ROOT_INODE, b"file %d" % number, 0o644, 1, 2)
    nodes = answer(capsys, image, "btree --walk")["nodes"]
    assert nodes[0]["level"] == 1
    last = nodes[-2]["blocks"][1]
    text(capsys, image, f"set node_header.generation 9 {last}", "commit", write=True)
    assert whole(image)
    assert answer(capsys, image, f"node {last}")["header"]["generation"] == 9
    text(capsys, image, "set inode.gid 5 /'file 150'", "commit", write=True)
    assert whole(image)
    assert answer(capsys, image, "stat '/file 150'")["gid"] == 5


def test_files_can_be_changed_again_after_commit_but_not_while_something_is_staged(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text(capsys, image, "set inode.uid 1 /hard", "commit", "mkdir /after", "set inode.uid 2 /hard", "commit", "ls /", write=True)
    assert answer(capsys, image, "stat /hard")["uid"] == 2
    assert answer(capsys, image, "stat /after")["type"] == "directory"
    assert debug("-w", "-R", "set inode.uid 1 /hard", "-R", "mkdir /x", image) == 2
    assert "are staged" in capsys.readouterr().err
    assert codes(image) == set()


def test_what_cannot_be_opened_can_be_operated_on(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong version in every superblock keeps the image from being opened; set puts it right."""
    text(capsys, image, "set superblock.block_count 999999", "commit", write=True)
    assert debug("-R", "ls", image) == 1
    assert "truncated" in capsys.readouterr().err
    text(capsys, image, "set superblock.block_count 4096", "commit", "ls", write=True)
    assert debug("-R", "ls", image) == 0
    assert codes(image) == set()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("set inode 5 /hard", "is no field"),
        ("set inode.nothing 5 /hard", "has no field nothing"),
        ("set nothing.uid 5 /hard", "is no field"),
        ("set inode.uid x /hard", "not a number"),
        ("set inode.uid -1 /hard", "does not fit"),
        ("set inode.uid 99999999999 /hard", "does not fit"),
        ("set inode.uid 5", "by its whole key"),
        ("set inode.uid 5 files 99 inode 0", "no such item"),
        ("set name.text longer names 2 name 0", "bytes, not 6"),
        ("set superblock.uuid x", "not a UUID"),
        ("set superblock.root 5", "name a field in it"),
        ("set superblock.label x 9", "there is no backup 9"),
        ("set data_record.birth 5 files 5 inode 0", "is no data_record"),
        ("set node_header.level 5", "name the block"),
        ("set journal_entry.flags 1", "cannot be changed"),
    ],
)
def test_what_cannot_be_set_gets_a_sentence(command: str, words: str, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert debug("-w", "-R", command, image) == 2
    assert words in capsys.readouterr().err
    assert debug("-R", "set inode.uid 5 /hard", image) == 1
    assert codes(image) == set()


def test_a_node_that_does_not_verify_is_not_sealed_over(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = answer(capsys, image, "super")["superblock"]["root"]
    for place in ("address", "mirror"):
        hurt(image, root[place] * 4096 + 500, b"\x99")
    assert debug("-w", "-R", "set counters.inode_count 1", "-R", "commit", image) == 1
    assert not whole(image)
