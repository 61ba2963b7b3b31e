"""diff and history: what differs is told, and nothing else."""

from pathlib import Path

import pytest

from razortools.engine import files, namespace, xattrs
from razortools.engine.store.device import open_image
from razortools.engine.volume import Volume, open_volume
from razortools.format.inode import ROOT_INODE
from tests.debug.tool import answer, debug, furnished, hurt, text, written
from tests.images import open_for_writing


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return furnished(tmp_path / "a.img")


def change(volume: Volume) -> None:
    home = namespace.resolve(volume, b"/home")
    written(volume, home, b"added", b"x")
    namespace.unlink(volume, home, b"text")
    files.write(volume, namespace.resolve(volume, b"/home/noise"), 150_000, b"changed")
    namespace.setattr(volume, namespace.resolve(volume, b"/hard"), namespace.AttributeChange(uid=77))
    xattrs.set(volume, namespace.resolve(volume, b"/home/sparse"), b"user.new", b"1")


def test_diff_tells_what_the_other_image_has_more_less_and_different(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "b.img"
    other.write_bytes(image.read_bytes())
    assert answer(capsys, image, f"diff {other}")["differences"] == []
    with open_for_writing(other) as volume:
        change(volume)
    before = other.read_bytes()
    found = {one["path"]: one for one in answer(capsys, image, f"diff {other}")["differences"]}
    assert other.read_bytes() == before
    assert (found["/home/added"]["change"], found["/home/text"]["change"]) == ("added", "removed")
    assert found["/home/noise"]["what"] == ["mtime_ns", "contents"]
    assert found["/hard"]["what"] == found["/home/small"]["what"] == ["uid"]
    assert found["/home/sparse"]["what"] == ["xattrs"]
    assert set(found) == {"/home", "/home/added", "/home/text", "/home/noise", "/hard", "/home/small", "/home/sparse"}
    back = {one["path"]: one["change"] for one in answer(capsys, other, f"diff {image}")["differences"]}
    assert (back["/home/added"], back["/home/text"]) == ("removed", "added")
    assert text(capsys, image, f"diff {other} /home/sparse").splitlines() == ["M /home/sparse: xattrs", "1 differences"]
    assert debug("-R", "diff /none", image) == 1


def test_history_tells_what_changed_since_an_older_checkpoint(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = open_volume(open_image(image, writable=True))
    generation = volume.store.superblock.generation
    change(volume)
    volume.checkpoint()
    volume.store.device.close()  # as if it had been killed
    told = answer(capsys, image, "history")
    assert [one["generation"] for one in told["checkpoints"]] == [generation, generation + 1]
    assert [one["lost_nodes"] for one in told["checkpoints"]] == [0, 0]
    changes = answer(capsys, image, f"history {generation}")["changes"]
    kinds = {(one["path"], one["key"].split()[2], one["before"] is None, one["after"] is None) for one in changes}
    assert ("/home/text", "inode", False, True) in kinds
    assert ("/home/added", "inode", True, False) in kinds
    assert ("/home/noise", "data_record", False, False) in kinds
    assert ("/home/sparse", "xattr", True, False) in kinds
    assert {one["path"] for one in changes} >= {"/home", "/hard"} or "/home/small" in {one["path"] for one in changes}
    assert "uid: 1000 -> 77" in text(capsys, image, f"history {generation}")
    assert answer(capsys, image, f"history {generation + 1}")["changes"] == []
    assert debug("-R", "history 99", image) == 2


def test_history_survives_an_older_tree_that_was_overwritten(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = open_volume(open_image(image, writable=True))
    namespace.mkdir(volume, ROOT_INODE, b"late", 0o755, 0, 0)
    volume.checkpoint()
    volume.store.device.close()  # as if it had been killed
    older = answer(capsys, image, "history")["checkpoints"][0]["generation"]
    copy = next(name for name in ("A", "B") if answer(capsys, image, f"super {name}")["superblock"]["generation"] == older)
    root = answer(capsys, image, f"super {copy}")["superblock"]["root"]
    assert root != answer(capsys, image, "super")["superblock"]["root"]
    hurt(image, root["address"] * 4096)
    hurt(image, root["mirror"] * 4096)
    assert answer(capsys, image, "history")["checkpoints"][0]["lost_nodes"] == 1
    assert "1 nodes overwritten" in text(capsys, image, "history")
    assert all(one["before"] is None for one in answer(capsys, image, f"history {older}")["changes"])
